"""What tells whether a product, a file or a folder, is still the one that was written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypedDict


class FileState(TypedDict, total=False):
    """Number, size, time and content of a file, or of a folder's files."""

    files: int
    """How many; 1 for a file."""
    bytes: int
    """Size of all."""
    mtime_ns: int
    """Time of the latest change, in nanoseconds."""
    sha256: str
    """Of the content, once it was written."""
    beside: list[str]
    """Endings of the files that were written beside it."""


def state_of(path: Path) -> FileState:
    """Return what tells later whether a product is still the one that was written."""
    return {**(seen(path) or FileState()), "sha256": sha256_of(path)}


def seen(path: Path) -> FileState | None:
    """Return number, size and latest change of a file, or of a folder's files; None if there is nothing."""
    try:
        # A link that leads nowhere is something too: it must not be overwritten as if nothing were there.
        stats = [file.stat() if file.exists() else file.lstat() for file in _files(path)]
    except OSError:
        return None
    latest = max((s.st_mtime_ns for s in stats), default=0)
    return {"files": len(stats), "bytes": sum(s.st_size for s in stats), "mtime_ns": latest}


def is_same(path: Path, known: FileState) -> bool:
    """Return whether a file or folder has this state; its content counts where only its time is another."""
    now = seen(path)
    if now is None or (now["files"], now["bytes"]) != (known.get("files"), known.get("bytes")):
        return False
    # Hashing reads the whole product, so content decides only if all but the time is the same, as after a copy.
    return now["mtime_ns"] == known["mtime_ns"] or ("sha256" in known and sha256_of(path) == known["sha256"])


def sha256_of(path: Path) -> str:
    """Return the hash of a file, or that of a folder's files with their names."""
    if path.is_dir():
        names = "".join(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n" for file in _files(path))
        return hashlib.sha256(names.encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
