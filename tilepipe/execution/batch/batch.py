"""This module defines a batch: a jobs file, what earlier batches did, and whether outputs are unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilepipe.execution.batch.items import BatchItem, expand
from tilepipe.execution.batch.jobs_file import Jobs, output_folder
from tilepipe.execution.batch.pixel_sizes import is_table, read_table, refuse_unused, size_of
from tilepipe.execution.batch.record import DONE, EDITED, UNCHANGED, Entry, read_entries
from tilepipe.execution.file_state import is_same
from tilepipe.products.labels import parses
from tilepipe.text import JSON


@dataclass(frozen=True)
class Batch:
    """A jobs file and what earlier batches did with it."""

    path: Path
    """Path of the jobs file."""
    jobs: Jobs
    """Content of the jobs file."""
    known: dict[str, Entry]
    """Last entry of each output, by its path below the output folder."""

    @classmethod
    def load(cls, path: Path, jobs: Jobs) -> Batch:
        """Read the record of earlier batches."""
        record = output_folder(jobs, path.parent) / f"{path.stem}.jsonl"
        return cls(path, jobs, {entry.output: entry for entry in read_entries(record)})

    @property
    def folder(self) -> Path:
        """Folder that all outputs lie in."""
        return output_folder(self.jobs, self.path.parent)

    @property
    def record(self) -> Path:
        """Path of the record: JSON lines, one per image processed."""
        return self.folder / f"{self.path.stem}.jsonl"

    @property
    def table(self) -> Path:
        """Path of the CSV file with the numbers of all images."""
        return self.folder / f"{self.path.stem}.numbers.csv"

    @property
    def page(self) -> Path:
        """Path of the report of all images."""
        return self.folder / f"{self.path.stem}.report.html"

    def settings_of(self, item: BatchItem) -> JSON:
        """Return keyword arguments of `tilepipe.segment` for an image; paths in them start from the jobs file."""
        settings = dict(self.jobs.settings)
        if is_table(settings.get("pixel_size")):
            settings["pixel_size"] = size_of(self._pixel_sizes(), item.image, self.path.parent)
        for name in ("mask", "region"):
            # A word such as 'tissue' is no path, so only a file that exists is taken for one.
            if (file := self.path.parent / str(settings.get(name, ""))).is_file():
                settings[name] = str(file)
        return {**settings, "of": self.jobs.of} if self.jobs.of else settings

    @property
    def polygons(self) -> JSON:
        """Options of polygons and objects that the jobs file sets."""
        return self.jobs.polygons.to_dict()

    def images(self) -> list[BatchItem]:
        """Return the images to process, checked for collisions. Raises `UsageError`."""
        products = frozenset(self.folder / name for entry in self.known.values() for name in entry.files)
        found = expand(self.jobs, self.path.parent, products)
        refuse_unused(self._pixel_sizes(), [item.image for item in found], self.path.parent)
        return found

    def _pixel_sizes(self) -> dict[str, float]:
        stated = self.jobs.settings.get("pixel_size")
        return read_table(stated, self.path.parent) if is_table(stated) else {}

    def below(self, path: str | Path) -> str:
        """Return a path in the form that the record has."""
        return Path(path).resolve().relative_to(self.folder).as_posix()

    def earlier(self, output: str, key: str = "", state: tuple[str, str] = ("", "")) -> str:
        """Return 'unchanged' if these labels were made before and the products are as they were, 'edited' if somebody
        has changed a product since and all can be read, else ''.

        The labels are known by their request key, or by the entry's `asked` and `seen` (`state`).
        """
        entry = self.known.get(output)
        if entry is None or (entry.status, entry.of, entry.polygons) != (DONE, self.jobs.of, self.polygons):
            return ""
        if not ((key and entry.key == key) or (all(state) and (entry.asked, entry.seen) == state)):
            return ""
        # The record alone is no proof: somebody may have removed or edited a product since.
        if all(is_same(self.folder / name, known) for name, known in entry.files.items()):
            return UNCHANGED
        kept = not self.jobs.settings.get("overwrite", False)
        readable = all((self.folder / name).exists() and parses(self.folder / name) for name in entry.files)
        return EDITED if kept and readable else ""

    def may_replace(self, job: BatchItem) -> bool:
        """Return whether each output of an image is free, or is still as an earlier batch wrote it."""
        entry = self.known.get(self.below(job.output))
        files = entry.files if entry else {}
        there = [self.below(path) for path in job.products if path.exists()]
        return all(name in files and is_same(self.folder / name, files[name]) for name in there)
