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

DONE, PARTIAL, FAILED = "done", "partial", "failed"
UNCHANGED, EDITED, NEW, WAITING, KNOWN_BAD = "unchanged", "edited", "new", "waiting", "known-bad"
TRIES = {"InputError": 1, "ModelError": 3}
"""How often an image in the same state is tried, by class of the error. The bytes of an image do not become better; a
model may have failed by bad luck. After any other error an image is tried in each batch."""


@dataclass(frozen=True)
class Entry:
    """The result for one image; one line of the record."""

    image: str
    """Absolute path of the image."""
    output: str
    """Path of the output below the output folder."""
    status: str
    """Result: 'done', 'partial' (some tiles failed) or 'failed'. Not recorded are 'unchanged' (done before), 'edited'
    (done before, then changed by somebody, and kept), 'known-bad' (failed before, and unchanged since), 'waiting'
    (still growing) and 'new' (dry run)."""
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
    """Class of the error, if the image or some of its tiles failed."""
    message: str = ""
    """Message of the error."""
    time: str = ""
    """Time when the image ended, in UTC."""
    seconds: float = 0.0
    """Time that the image took (seconds)."""
    processor_seconds: float = 0.0
    """Processor time of the run (seconds); 0 if it is not known because the run was interrupted. If several images were
    worked on at a time, it is what was spent since the image before ended: only the sum over the images says something,
    and it is not known with worker processes."""
    asked: str = ""
    """Hash of what was asked for: model, settings, products."""
    seen: str = ""
    """State of the image's files before they were read; see `image_state`."""
    reads: tuple[str, ...] = ()
    """Paths of files that the image reads outside of its own folder."""
    tries: int = 1
    """Number of batches that have tried the image in this state with what was asked for."""

    def is_known_bad(self, asked: str, seen: str) -> bool:
        """Return whether this image has failed in this state, and trying again would not help."""
        same = bool(seen) and (self.asked, self.seen) == (asked, seen)
        return same and self.status in (PARTIAL, FAILED) and self.tries >= TRIES.get(self.error, self.tries + 1)


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a record, or none if there is no file; damaged lines are left out.

    Raises `StorageError` for a line of another version of tilepipe.
    """
    for fields in read_lines(path)[0]:
        try:
            several: JSON = {name: tuple(fields[name]) for name in ("of", "reads") if name in fields}
            entry = Entry(**{**fields, "of": (), **several})
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
