"""The record of a batch: one JSON line per image processed, and how to tell that an output is as it was written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tilepipe.store import storage_errors

DONE, PARTIAL, FAILED, UNCHANGED, NEW = "done", "partial", "failed", "unchanged", "new"


@dataclass(frozen=True)
class Entry:
    """What became of one image; one line of the record."""

    image: str
    """Absolute path."""
    output: str
    """Path below the output folder."""
    status: str
    """'done', 'partial' (some tiles failed), 'failed'; not recorded: 'unchanged' (done before), 'new' (dry run)."""
    key: str = ""
    """Run key: changes with the image's content, the weights and whatever decides a label."""
    of: tuple[str, ...] = ()
    """Products asked for."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{'bytes', 'mtime_ns', 'sha256'} of each product by its path below the output folder."""
    error: str = ""
    """Class of the error, where it failed."""
    message: str = ""
    """What the error says."""
    time: str = ""
    """When it ended, UTC."""
    seconds: float = 0.0
    """How long it took."""


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a record, none where there is no file."""
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            fields = json.loads(line)
            yield Entry(**{**fields, "of": tuple(fields["of"])})
        except (ValueError, KeyError, TypeError):  # torn by a crash; the image is simply done again
            continue


def append_entry(path: Path, entry: Entry) -> None:
    """Add a line and make it durable; a torn line before it is left alone. Raises `StorageError`."""
    with storage_errors(path), path.open("ab+") as file:
        if file.tell() and path.read_bytes()[-1:] != b"\n":
            file.write(b"\n")
        file.write(json.dumps(asdict(entry)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def is_as_written(path: Path, known: dict[str, Any]) -> bool:
    """Return whether a file or folder still has the `facts` that it had."""
    if not path.exists():
        return False
    size, mtime = _size(path)
    return bool(size == known["bytes"] and (mtime == known["mtime_ns"] or _sha256(path) == known["sha256"]))


def facts(path: Path) -> dict[str, Any]:
    """Return {'bytes', 'mtime_ns', 'sha256'} of a file or folder."""
    size, mtime = _size(path)
    return {"bytes": size, "mtime_ns": mtime, "sha256": _sha256(path)}


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> tuple[int, int]:
    """Return (bytes, latest change in ns) of a file or a folder."""
    stats = [p.stat() for p in _files(path)]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _sha256(path: Path) -> str:
    """Return the hash of a file, or that of a folder's files with their names."""
    if path.is_dir():
        names = "".join(f"{file.relative_to(path).as_posix()}\0{_sha256(file)}\n" for file in _files(path))
        return hashlib.sha256(names.encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
