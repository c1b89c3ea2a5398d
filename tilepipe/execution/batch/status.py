"""This module says how a batch stands, from its record alone: no image is opened and nothing is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tilepipe.errors import public
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.jobs_file import read_jobs
from tilepipe.execution.batch.record import DONE, FAILED, PARTIAL, WAITING, Entry
from tilepipe.execution.batch.run_batch import LOCK
from tilepipe.storage import is_locked
from tilepipe.text import duration

NAMES_SAID = 3
"""Largest number of images that the summary names."""


@dataclass(frozen=True)
class Status:
    """How a batch stands."""

    name: str
    """Name of the jobs file without its ending."""
    folder: Path
    """Folder that all outputs lie in."""
    entries: tuple[Entry, ...]
    """Last entry of each image; status 'waiting' for an image that no batch has done yet."""
    running: bool
    """Whether a batch works in the output folder now."""

    def reasons(self) -> list[tuple[str, list[Entry]]]:
        """Return the reasons of failures, each with its images, the most frequent reason first."""
        return reasons_of(self.entries)


@public
def status_of(jobs: str | Path) -> Status:
    """Return how the batch of a jobs file stands. Raises `UsageError` and `StorageError`."""
    path = Path(jobs).resolve()
    batch = Batch.load(path, read_jobs(path))
    items = batch.images()
    entries = tuple(
        batch.known.get(batch.below(item.output)) or Entry(str(item.image), batch.below(item.output), WAITING)
        for item in items
    )
    return Status(path.stem, batch.folder, entries, is_locked(batch.folder / LOCK))


def reasons_of(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Return the reasons of failures, each with its images; names of images in a reason do not make it another one."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.status in (FAILED, PARTIAL):
            plain = entry.message.replace(entry.image, "IMAGE").replace(Path(entry.image).name, "IMAGE")
            found.setdefault(f"{entry.error}: {plain}" if entry.error else plain, []).append(entry)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def summary_line(name: str, entries: Sequence[Entry], seconds: float = 0.0) -> str:
    """Return one line about a batch, for the subject of a mail or a log."""
    counts = Counter(entry.status for entry in entries)
    order = sorted(counts, key=lambda status: (status != DONE, status))
    said = ", ".join(f"{counts[status]:,} {status}" for status in order) or "no images"
    took = f" in {duration(seconds)}" if seconds >= 1 else ""
    bad = [Path(entry.image).name for entry in entries if entry.status in (FAILED, PARTIAL)]
    more = f" and {len(bad) - NAMES_SAID:,} more" if len(bad) > NAMES_SAID else ""
    names = f"; failed: {', '.join(bad[:NAMES_SAID])}{more}" if bad else ""
    return f"tilepipe batch {name}: {said}{took}{names}"
