"""This module tells whether a product, a file or a folder, is still as it was written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypedDict


class FileState(TypedDict, total=False):
    """The state of a file, or of a folder's files: their number, size, time and content."""

    files: int
    """Number of files; 1 for a file."""
    bytes: int
    """Total size (bytes)."""
    mtime_ns: int
    """Time of the latest change (nanoseconds)."""
    sha256: str
    """Hash of the content, once the content was written."""
    beside: list[str]
    """Endings of the files that were written beside the product."""


def state_of(path: Path) -> FileState:
    """Return the state of a product, from which `is_same` tells later whether the product is unchanged."""
    return {**(seen(path) or FileState()), "sha256": sha256_of(path)}


def seen(path: Path) -> FileState | None:
    """Return number, size and latest change of a file, or of a folder's files; None if there is nothing."""
    try:
        # A link that leads nowhere counts too: it must not be overwritten as if there were nothing.
        stats = [file.stat() if file.exists() else file.lstat() for file in _files(path)]
    except OSError:
        return None
    latest = max((s.st_mtime_ns for s in stats), default=0)
    return {"files": len(stats), "bytes": sum(s.st_size for s in stats), "mtime_ns": latest}


def is_same(path: Path, known: FileState) -> bool:
    """Return whether a file or folder has this state; its content is compared only if its time differs."""
    now = seen(path)
    if now is None or (now["files"], now["bytes"]) != (known.get("files"), known.get("bytes")):
        return False
    # Hashing reads the whole product, so the content is compared only if all but the time is the same, as after a copy.
    return now["mtime_ns"] == known["mtime_ns"] or ("sha256" in known and sha256_of(path) == known["sha256"])


def sha256_of(path: Path) -> str:
    """Return the hash of a file, or of a folder's files together with their names."""
    if path.is_dir():
        # No name holds a zero byte, so two folders that differ never give the same text.
        names = "".join(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n" for file in _files(path))
        return hashlib.sha256(names.encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(path: Path) -> list[Path]:
    # The order in which a system lists a folder must not change the hash.
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
