"""The record of a batch: one JSON line per image processed, each with its checksum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tilepipe.execution.file_state import FileState
from tilepipe.storage import append_line, read_lines
from tilepipe.text import JSON

DONE, PARTIAL, FAILED, UNCHANGED, EDITED, NEW = "done", "partial", "failed", "unchanged", "edited", "new"


@dataclass(frozen=True)
class Entry:
    """What became of one image; one line of the record."""

    image: str
    """Absolute path."""
    output: str
    """Path below the output folder."""
    status: str
    """'done', 'partial' (some tiles failed), 'failed'; not recorded: 'unchanged' (done before), 'edited' (done, and
    changed by somebody since: kept), 'new' (dry run)."""
    key: str = ""
    """Request key: changes with the image's content, the model and the settings."""
    of: tuple[str, ...] = ()
    """Products asked for."""
    polygons: JSON = field(default_factory=dict)
    """How polygons are written, where that was chosen."""
    files: dict[str, FileState] = field(default_factory=dict)
    """{'files', 'bytes', 'mtime_ns', 'sha256'} of each product by its path below the output folder."""
    numbers: JSON = field(default_factory=dict)
    """What each class has; see `products.numbers.Numbers`. Empty if the image got no labels."""
    error: str = ""
    """Class of the error, where it failed."""
    message: str = ""
    """What the error says."""
    time: str = ""
    """When it ended, UTC."""
    seconds: float = 0.0
    """How long it took."""


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a record, none where there is no file; damaged lines are left out."""
    for fields in read_lines(path)[0]:
        yield Entry(**{**fields, "of": tuple(fields["of"])})


def append_entry(path: Path, entry: Entry) -> None:
    """Add a line and make it durable; a torn line before it is left alone. Raises `StorageError`."""
    append_line(path, asdict(entry))
