"""This module reads and writes the record of a batch: one JSON line with a checksum per image processed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tilepipe.errors import StorageError
from tilepipe.execution.file_state import FileState
from tilepipe.products.numbers import Numbers
from tilepipe.storage import append_line, read_lines
from tilepipe.text import JSON

DONE, PARTIAL, FAILED, UNCHANGED, EDITED, NEW = "done", "partial", "failed", "unchanged", "edited", "new"


@dataclass(frozen=True)
class Entry:
    """The result for one image; one line of the record."""

    image: str
    """Absolute path of the image."""
    output: str
    """Path of the output below the output folder."""
    status: str
    """Result: 'done', 'partial' (some tiles failed) or 'failed'. Not recorded are 'unchanged' (done before), 'edited'
    (done before, then changed by somebody, and kept) and 'new' (dry run)."""
    key: str = ""
    """Request key; it changes with the image's content, the model and the settings."""
    of: tuple[str, ...] = ()
    """Products asked for."""
    polygons: JSON = field(default_factory=dict)
    """Options of polygons and objects, if they were chosen."""
    files: dict[str, FileState] = field(default_factory=dict)
    """State {'files', 'bytes', 'mtime_ns', 'sha256'} of each product, by its path below the output folder."""
    numbers: JSON = field(default_factory=dict)
    """Numbers of each class; see `products.numbers.Numbers`. Empty if the image got no labels."""
    seams: str = ""
    """Sentence that says whether the labels depend on the tiling; '' if the image got no labels."""
    error: str = ""
    """Class of the error, if the image failed."""
    message: str = ""
    """Message of the error."""
    time: str = ""
    """Time when the image ended, in UTC."""
    seconds: float = 0.0
    """Time that the image took (seconds)."""


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a record, or none if there is no file; damaged lines are left out.

    Raises `StorageError` for a line of another version of tilepipe.
    """
    for fields in read_lines(path)[0]:
        try:
            entry = Entry(**{**fields, "of": tuple(fields["of"])})
            if entry.numbers:  # the table of all images would find out only when all work is done
                Numbers.from_dict(entry.numbers)
        except (KeyError, TypeError, StorageError):
            raise StorageError(
                f"{path} was written by another version of tilepipe; use that version, or name another folder for "
                "`output`"
            ) from None
        yield entry


def append_entry(path: Path, entry: Entry) -> None:
    """Add a line and make it durable; a torn line before it stays as it is. Raises `StorageError`."""
    append_line(path, asdict(entry))
