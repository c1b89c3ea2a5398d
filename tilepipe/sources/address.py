"""Address: a file on another machine that the user names, https://, s3://, gs:// or az://. No server is asked here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from tilepipe.errors import InputError, UsageError
from tilepipe.paths import without_secrets

BUCKETS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "azure": "az"}
"""Schemes of object stores, with the scheme by which each is known here."""
HERE = ("127.0.0.1", "localhost", "[::1]")
"""Hosts that are this machine."""
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(:\d+)?|\[[0-9A-Fa-f:]+\](:\d+)?")
"""Name of a host, with its port, or of a bucket."""


@dataclass(frozen=True)
class Address:
    """A file on another machine."""

    scheme: str
    """'https', 'http' (this machine only), 's3', 'gs' or 'az'."""
    place: str
    """Host with its port, bucket, or container."""
    key: str
    """Name of the file in its place, not encoded."""
    query: str = field(default="", repr=False)
    """Text behind the question mark. It may be a signature, so messages and records leave it out."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}/{self.key}"

    @property
    def local_name(self) -> Path:
        """Path in the working folder that has the name of the file; labels go beside it."""
        return Path(PurePosixPath(self.key).name)

    @property
    def encoded(self) -> str:
        """The key as a part of a URL."""
        return quote(self.key, safe="/~")

    @property
    def download(self) -> str:
        """What to do with a file that is not read from a server, for messages."""
        copies = {"s3": "aws s3 cp", "gs": "gcloud storage cp"}
        command = "curl -O ADDRESS" if self.scheme in ("https", "http") else f"{copies.get(self.scheme, '')} {self} ."
        return "download it first" + ("" if self.scheme == "az" else f" ({command}) and give the file")

    def below(self, key: str) -> Address:
        """Return the address of `key` in the folder that this address names."""
        return Address(self.scheme, self.place, f"{self.key.rstrip('/')}/{key}", self.query)


def address_of(name: str) -> Address:
    """Return the address that a text names. Raises `UsageError` or `InputError` if it is none that is read."""
    scheme, found, rest = name.partition("://")
    scheme = scheme.lower()
    if name.startswith("/vsi") or not found:
        raise InputError(f"{name} is a path of GDAL's; name the file itself: https://HOST/FILE, s3://BUCKET/FILE")
    if scheme not in (*BUCKETS, "https", "http"):
        raise InputError(
            f"{without_secrets(name)} is not a file on this machine, and {scheme}:// is not read; download it first"
        )
    if any(ord(letter) < 32 + (scheme in ("https", "http")) for letter in name):
        raise UsageError(f"{without_secrets(name)!r} has a space or a control character in it; write %20 for a space")
    place, _, key = rest.partition("/")
    if "@" in place:
        raise UsageError(
            f"{without_secrets(name)} has a name or a password in it, which others can see; leave it out. Keys of "
            "object stores come from the environment, see docs/inputs.md"
        )
    if not _PLACE.fullmatch(place):
        raise UsageError(f"{without_secrets(name)} names no host or bucket")
    query = ""
    if scheme in ("https", "http"):
        parts = urlsplit(f"{scheme}://{rest}")
        key, query = unquote(parts.path[1:]), parts.query
        if scheme == "http" and re.sub(r":\d+$", "", place).lower() not in HERE:
            raise UsageError(
                f"{without_secrets(name)} is not encrypted, so anybody on the way could change the image; use https://"
            )
    if not key.strip("/") or ".." in key.split("/") or "\0" in key:
        raise UsageError(f"{without_secrets(name)} names no file")
    return Address(BUCKETS.get(scheme, scheme), place, key, query)
