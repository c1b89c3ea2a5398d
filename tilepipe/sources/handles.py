"""Keeps track of the files of sources: their stamps, the hashes of their content, and open handles per thread."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Generic, NamedTuple, TypeVar

from tilepipe.errors import ChangedError, InputError
from tilepipe.paths import refuse_special
from tilepipe.text import missing

T = TypeVar("T")

HANDLES_PER_THREAD = 8
"""Largest number of files that one thread keeps open; beyond it, the least recently used file is closed."""


HASHING_THREADS = 4
"""Number of files that are hashed at once: reading from a disk and hashing keep each other waiting otherwise."""


HASHES = 256
"""Number of files whose hashes a process keeps."""


class Stamp(NamedTuple):
    """A file and its state: a file that is replaced gets another stamp."""

    path: str
    size: int
    changed: int
    """Time of the last change of the content [ns]."""
    inode: int
    touched: int
    """Time of the last change of content, name or rights [ns]; a writer cannot set it back."""


def stamp(path: str | Path) -> Stamp:
    """Return the stamp of a file. Raises `InputError` if there is no file, or if it is a pipe or a device."""
    refuse_special(path)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise InputError(missing(path)) from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}") from error
    # The path is absolute, since a worker process may have another working folder.
    return Stamp(str(Path(path).absolute()), found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)


def unchanged(known: Stamp) -> Stamp:
    """Return `known`. Raises `ChangedError` if the file has other content since.

    Sources ask before each read: runs last for hours, and in a notebook a source stays open while files are made anew.
    """
    try:
        now = stamp(known.path)
    except InputError as error:
        raise ChangedError(f"{error}; it was there when it was opened") from None
    # The last field is left out: a renamed folder or another owner changes the time of status, but no pixel.
    if now[:-1] == known[:-1] or _same_content(known, now):
        return known
    raise ChangedError(f"{known.path} changed while it was open; start again, or open it again, once it is complete")


@lru_cache(maxsize=256)
def _same_content(known: Stamp, now: Stamp) -> bool:
    """Return whether a file that was written to holds what it held, as far as this process has hashed that."""
    return known in _hashed and content_sha256(now) == _hashed[known]


_hashed: dict[Stamp, str] = {}


@lru_cache(maxsize=HASHES)
def content_sha256(known: Stamp) -> str:
    """Return the sha256 of a file's bytes; it is computed once per state of the file in a process."""
    with open(known.path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    _hashed[known] = found
    if len(_hashed) > HASHES:
        _hashed.pop(next(iter(_hashed)), None)
    return found


def contents_sha256(known: tuple[Stamp, ...]) -> tuple[str, ...]:
    """Return the sha256 of the bytes of each file; they are computed once per state of the files in a process.

    Threads read and hash several files at once. Raises `ChangedError` if a file changed since it was opened.
    """
    for one in known:
        unchanged(one)
    return _contents(known)


@lru_cache(maxsize=4)
def _contents(known: tuple[Stamp, ...]) -> tuple[str, ...]:
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        return tuple(pool.map(content_sha256.__wrapped__, known))


class Handles(Generic[T]):
    """Open files, one set for each thread; a forked process opens its own files too.

    Libraries that decode images keep state in a handle: sharing one between threads gives wrong pixels.
    """

    def __init__(self, close: Callable[[T], object], limit: int = HANDLES_PER_THREAD, *, shared: bool = False) -> None:
        """Keep at most `limit` files open, closed by `close`.

        If `shared`, all threads use one set of files, and the caller lets in one thread at a time.
        """
        self._close = close
        self._limit = limit
        self._local = SimpleNamespace() if shared else threading.local()

    def get(self, key: Hashable, opened: Callable[[], T]) -> T:
        """Return this thread's handle for `key`; `opened` makes it if there is none yet."""
        mine = self._mine()
        if key not in mine:
            mine[key] = opened()
            if len(mine) > self._limit:
                self._close(mine.popitem(last=False)[1])
        mine.move_to_end(key)
        return mine[key]

    def drop(self, key: Hashable) -> None:
        """Close this thread's handle for `key`."""
        handle = self._mine().pop(key, None)
        if handle is not None:
            self._close(handle)

    def close(self) -> None:
        """Close all handles of this thread."""
        while mine := self._mine():
            self._close(mine.popitem()[1])

    def _mine(self) -> OrderedDict[Hashable, T]:
        if getattr(self._local, "process", None) != os.getpid():
            # Handles inherited through fork belong to the parent: they are forgotten, not closed.
            self._local.inherited = getattr(self._local, "handles", None)
            self._local.handles = OrderedDict()
            self._local.process = os.getpid()
        handles: OrderedDict[Hashable, T] = self._local.handles
        return handles
