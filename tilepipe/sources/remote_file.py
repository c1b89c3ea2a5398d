"""RemoteFile: reads ranges of bytes of one file on one server, and never asks any other server.

A redirection is refused and not followed. Each answer must be of the same version of the file as the first one, by its
size, its ETag and its date.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError

from tilepipe.errors import ChangedError, InputError
from tilepipe.paths import without_secrets
from tilepipe.sources.address import Address
from tilepipe.sources.remote_url import credentials_hint, url_of

PAGE = 128 << 10
"""Size of the ranges in which a file is read [bytes]: at usual speeds the bytes take as long as asking for them."""
AT_ONCE = 64
"""Largest number of pages that are asked for at once."""
CACHE_BYTES = 32 << 20
"""Size of the pages that a process keeps, over all files [bytes]."""
TRIES = 3
"""Number of times that a range is asked for."""
TIMEOUT = urllib3.Timeout(connect=10, read=30)
"""Longest times for a connection and for each answer [seconds]."""
AGAIN = (429, 500, 502, 503, 504)
"""States of a server that pass."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class AbsentError(InputError):
    """The server says that there is no such file."""


class DeniedError(InputError):
    """The server lets nobody read the file; some object stores say so of files that do not exist."""


class Version(NamedTuple):
    """What tells one version of a file from another."""

    size: int
    """Size of the file [bytes]."""
    etag: str
    """The server's mark of this version; '' if it gives none."""
    modified: str
    """Time of the last change, as the server writes it; '' if it gives none."""

    @property
    def number(self) -> int:
        """Number that stands for the version."""
        return int.from_bytes(hashlib.sha256(repr(tuple(self)).encode()).digest()[:8])


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, in one version. It is picklable and safe under threads."""

    address: Address
    version: Version

    @property
    def size(self) -> int:
        """Size of the file [bytes]."""
        return self.version.size

    @property
    def label(self) -> str:
        """Name of the file in messages."""
        return self.address.local_name.name

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on. Raises `InputError` if the server fails, and
        `ChangedError` if the file changed."""
        stop = min(offset + size, self.version.size)
        if offset >= stop:
            return b""
        first, last = offset // PAGE, (stop - 1) // PAGE
        data = b"".join(self._pages(first, last + 1))
        return data[offset - first * PAGE : stop - first * PAGE]

    def _pages(self, first: int, stop: int) -> list[bytes]:
        pages = _pages_of(os.getpid())
        found = {k: page for k in range(first, stop) if (page := pages.get((self, k))) is not None}
        k = first
        while k < stop:
            if k in found:
                k += 1
                continue
            end = next((n for n in range(k, min(stop, k + AT_ONCE)) if n in found), min(stop, k + AT_ONCE))
            data, version = fetch(self.address, k * PAGE, min(end * PAGE, self.version.size))
            if version != self.version:
                raise ChangedError(f"{self.address} changed while it was being read; start again once it is complete")
            for n in range(k, end):
                found[n] = data[(n - k) * PAGE : (n - k + 1) * PAGE]
                pages.put((self, n), found[n])
            k = end
        return [found[n] for n in range(first, stop)]


class _Pages:
    """Pages of files; beyond `CACHE_BYTES`, the least recently used ones are dropped."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[RemoteFile, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[RemoteFile, int]) -> bytes | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: tuple[RemoteFile, int], page: bytes) -> None:
        with self._lock:
            self._held[key] = page
            while len(self._held) * PAGE > CACHE_BYTES:
                self._held.popitem(last=False)


@lru_cache(maxsize=1)
def _pages_of(process: int) -> _Pages:
    return _Pages()


@lru_cache(maxsize=64)
def _pool(process: int, scheme: str, host: str) -> urllib3.PoolManager:
    """Return the connections of this `process` to a server, through the proxy that the environment names."""
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    return urllib3.ProxyManager(proxy, maxsize=8) if proxy else urllib3.PoolManager(maxsize=8)


def open_remote(address: Address) -> tuple[RemoteFile, bytes]:
    """Ask a server for a file once; return the file and its first bytes.

    Raises `InputError` if the file is not there, or if the server sends no parts of files or names no version.
    """
    start, version = fetch(address, 0, PAGE)
    if not (version.etag or version.modified):
        raise InputError(
            f"the server of {address} gives neither ETag nor Last-Modified, so a change during the run would not be "
            "noticed; download the file first"
        )
    file = RemoteFile(address, version)
    _pages_of(os.getpid()).put((file, 0), start)
    return file, start


def fetch(address: Address, start: int, stop: int) -> tuple[bytes, Version]:
    """Return bytes [start, stop) of a file, or less at its end, and the version that they belong to.

    Raises `InputError` with what to type.
    """
    said: Exception | int = 0
    for _ in range(TRIES):
        url = url_of(address)
        host, asked = urllib3.util.parse_url(url), {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        try:
            answer = _pool(os.getpid(), str(host.scheme), str(host.hostname)).request(
                "GET", url, headers=asked, redirect=False, retries=False, preload_content=False, timeout=TIMEOUT
            )
            try:
                if answer.status not in AGAIN:
                    return _range(address, answer, start, stop)
                said = answer.status
            finally:
                answer.close()
        except (HTTPError, OSError) as error:
            said = error
    cause = f"the server answers {said}" if isinstance(said, int) else _cause(said)
    raise InputError(f"{address} cannot be read in bytes {start} to {stop}: {cause}, {TRIES} times; try again later")


def _range(address: Address, answer: urllib3.BaseHTTPResponse, start: int, stop: int) -> tuple[bytes, Version]:
    """Return the bytes of an answer and their version. Raises `InputError` if the answer is another than asked for."""
    _refuse(address, answer)
    span = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if answer.status != 206 or span is None:
        raise InputError(
            f"the server of {address} sends only whole files, so no part of the image can be read; download it first"
        )
    first, last, size = map(int, span.groups())
    if first != start or last + 1 != min(stop, size):
        raise InputError(f"the server of {address} sends bytes {first} to {last + 1}, not {start} to {stop}, as asked")
    data = answer.read(last + 1 - first, decode_content=False)
    if len(data) != last + 1 - first:
        raise HTTPError(f"the answer ends after {len(data)} of {last + 1 - first} bytes")
    return data, Version(size, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))


def _refuse(address: Address, answer: urllib3.BaseHTTPResponse) -> None:
    """Raise `InputError` if a server says no, with what to do."""
    status = answer.status
    if region := answer.headers.get("x-amz-bucket-region") if status in (301, 307, 400) else None:
        raise InputError(f"bucket {address.place} is in the region {region[:40]}; set AWS_REGION={region[:40]}")
    if 300 <= status < 400:
        there = without_secrets(answer.headers.get("Location", "another address"))[:200]
        raise InputError(
            f"{address} leads to {there}, and only the server that you named is asked; name that address, or download "
            "the file first"
        )
    if status in (401, 403):
        raise DeniedError(f"{address} may not be read (the server answers {status}); {credentials_hint(address)}")
    if status in (404, 410):
        raise AbsentError(f"{address} does not exist (the server answers {status}); check the address")
    if status == 416:
        raise InputError(f"{address} is empty or shorter than it was")
    if status not in (200, 206):
        raise InputError(f"{address} cannot be read: the server answers {status}")


def _cause(error: Exception) -> str:
    """Return what failed, in words without addresses: the address that is asked may hold a signature."""
    text = type(getattr(error, "reason", None) or error).__name__
    known = {
        "NameResolutionError": "no such host is known",
        "NewConnectionError": "the server takes no connection",
        "ConnectTimeoutError": "the server takes no connection",
        "ReadTimeoutError": "the server does not answer in time",
        "SSLError": "its certificate is not trusted",
    }
    return known.get(text, "the server ends the connection")
