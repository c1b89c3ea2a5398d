"""This module runs a batch: one model over many images.

Finished images are not done again, and one bad image never stops the rest. A batch is started by a person or by a timer
(cron, a systemd timer); it holds a lock while it runs. A record beside the outputs says what was done. It has one JSON
line per image processed: the request key (a hash of the image's content, the weights and the settings), the state of
the image's files, and size and sha256 of each output. An output that the record does not know, or that changed since,
is never overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.errors import UsageError, public
from tilepipe.events import Event, Listener, silent
from tilepipe.execution.batch import one_image
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.disk import refuse_small_disk
from tilepipe.execution.batch.image_state import Folders
from tilepipe.execution.batch.in_parallel import worked_on
from tilepipe.execution.batch.jobs_file import Jobs, output_folder, read_jobs
from tilepipe.execution.batch.map_index import refuse_other_maps, write_maps
from tilepipe.execution.batch.metrics import write_metrics
from tilepipe.execution.batch.one_image import Looked
from tilepipe.execution.batch.record import EDITED, FAILED, KNOWN_BAD, PARTIAL, UNCHANGED, WAITING, Entry, append_entry
from tilepipe.execution.batch.settle import Settling
from tilepipe.execution.batch.table import refuse_foreign, write_table
from tilepipe.inference.profile.known_models import open_known
from tilepipe.models.identity import identities_held
from tilepipe.planning.receptive_field import measure_receptive_field
from tilepipe.planning.settings import Settings
from tilepipe.products.formats import REPORT
from tilepipe.products.numbers import Numbers
from tilepipe.storage import locked, storage_errors
from tilepipe.text import JSON, did_you_mean

if TYPE_CHECKING:
    from tilepipe.models.model import Model

LOCK = ".tilepipe-batch.lock"
"""Name of the file in the output folder that a batch locks."""


@dataclass(frozen=True)
class Report:
    """The results for all images."""

    folder: Path
    """Folder that all outputs lie in."""
    entries: tuple[Entry, ...]
    """Entries, one per image."""
    table: Path
    """Path of the CSV file with the numbers of all images."""
    seconds: float = 0.0
    """Time that the batch took (seconds)."""
    page: Path | None = None
    """Path of the report with all images; None if the jobs file does not ask for reports."""

    @property
    def numbers(self) -> Numbers | None:
        """Sums over all images that have labels; None if there is none, or if their classes or units differ."""
        from tilepipe.products.report.index import total  # it opens what fills pages

        return total([Numbers.from_dict(entry.numbers) for entry in self.entries if entry.numbers])

    @property
    def failed(self) -> list[Entry]:
        """Entries of images that failed in this batch, or of which some tiles failed."""
        return [entry for entry in self.entries if entry.status in (PARTIAL, FAILED)]

    @property
    def known_bad(self) -> list[Entry]:
        """Entries of images that failed in an earlier batch, have not changed since, and were not tried again."""
        return [entry for entry in self.entries if entry.status == KNOWN_BAD]


@dataclass(frozen=True)
class Options:
    """Choices of one run of a batch, besides what its jobs file says."""

    retry: bool = False
    """Whether images that are known to be bad are tried again."""
    overwrite: bool = False
    """Whether products that somebody has edited, or that the record does not know, are replaced."""
    max_parallel: int = 1
    """Number of images that are worked on at a time."""


PLAIN = Options()
"""The usual choices."""


@public
def run(path: str | Path, *, dry_run: bool = False, options: Options = PLAIN, listener: Listener = silent) -> Report:
    """Run a jobs file and return what became of each image; with `dry_run`, only say what would be done.

    Raises `UsageError` if the jobs file is wrong, `ModelError` if the model is refused, `StorageError` if the labels
    cannot fit on the disk, and `LockedError` if another batch works on the same output folder. An error of one image
    becomes an entry with status 'failed'.
    """
    path, start = Path(path).resolve(), time.monotonic()
    jobs = _checked(path, options)
    # A model does not change during a batch, so it is identified once.
    with identities_held():
        model = model_of(jobs, path.parent)
        measure_receptive_field(model, listener)  # a model that no image can use stops the batch, not every image
        folder = output_folder(jobs, path.parent)
        if dry_run:
            batch = Batch.load(path, jobs)
            looked = _looked(batch, model, options)
            return Report(folder, tuple(one_image.examine(batch, each, model) for each in looked), batch.table)
        with _alone(folder):
            batch = Batch.load(path, jobs)
            _refuse_foreign(batch)
            entries = _done(batch, model, options, listener)
            _write_pages(batch, entries, listener)
            seconds = time.monotonic() - start
            if jobs.metrics:
                write_metrics(path.parent / jobs.metrics, path.stem, entries, seconds)
    page = batch.page if REPORT in jobs.of else None
    return Report(folder, tuple(entries), batch.table, seconds, page)


def model_of(jobs: Jobs, base: Path) -> Model:
    """Return the model of a jobs file in the folder `base`. Raises `ModelError`."""
    # A jobs file is written by hand and run from anywhere, so its paths start at the file.
    near = [base / name for name in jobs.models]
    named = [str(file) if file.exists() else name for file, name in zip(near, jobs.models, strict=True)]
    return open_known(named, trust_model=jobs.settings.get("trust_model"))


def _looked(batch: Batch, model: Model, options: Options) -> list[Looked]:
    folders = Folders()
    return [one_image.inspected(batch, item, model, folders, retry=options.retry) for item in batch.images()]


def _done(batch: Batch, model: Model, options: Options, listener: Listener) -> list[Entry]:
    """Work on all images that need it; return the entry of each image, in their order."""
    looked = _looked(batch, model, options)
    found = {each.output: each.known for each in looked if each.known}
    todo = [each for each in looked if not each.known]
    refuse_small_disk(batch, todo)
    # A model may keep values while it is called, so each image that is worked on at a time has a model of its own.
    more = min(options.max_parallel, len(todo)) - 1
    models = [model, *(model_of(batch.jobs, batch.path.parent) for _ in range(more))]
    settling = Settling(batch.jobs.settle, todo)
    said = _Said(listener, len(looked), list(found.values()))
    with ExitStack() as shared:
        if todo and batch.jobs.settings.get("workers"):
            from tilepipe.execution.executors.cluster import cluster_kept  # it opens Dask

            shared.enter_context(cluster_kept())
        for each, entry in worked_on(batch, models, settling.settled(), said):
            _record(batch, each, entry)
            found[each.output] = entry
            said.end(entry)
    for each in settling.growing:
        found[each.output] = Entry(str(each.item.image), each.output, WAITING, message="the image is still growing")
    return [found[each.output] for each in looked]


def _record(batch: Batch, looked: Looked, entry: Entry) -> None:
    """Add what became of an image to the record."""
    old = batch.known.get(looked.output)
    if entry.status not in (UNCHANGED, EDITED):
        append_entry(batch.record, entry)
    elif old and old.seen != entry.seen:
        # The image was only touched. Its new state spares the next batch to hash it.
        append_entry(batch.record, replace(old, asked=entry.asked, seen=entry.seen, reads=entry.reads))


class _Said:
    """Reports of the images of a batch: how many are done, how many have failed, and how many needed no work."""

    def __init__(self, listener: Listener, total: int, entries: list[Entry]) -> None:
        """Take the entries of images that need no work; they are reported in one event."""
        self.listener, self.total, self.entries = listener, total, entries
        if entries:
            self._tell(f"{len(entries)} of {total} images need no work")

    def begin(self, looked: Looked) -> None:
        """Report that an image is begun."""
        self.listener(Event("batch", len(self.entries), self.total, str(looked.item.image), self._counts()))

    def end(self, entry: Entry) -> None:
        """Report what became of an image."""
        self.entries.append(entry)
        self._tell(_sentence(entry))

    def _tell(self, sentence: str) -> None:
        self.listener(Event("batch", len(self.entries), self.total, sentence, {**self._counts(), "note": sentence}))

    def _counts(self) -> JSON:
        status = [entry.status for entry in self.entries]
        failed = sum(status.count(name) for name in (FAILED, PARTIAL, KNOWN_BAD))
        return {"failed": failed, "skipped": status.count(UNCHANGED) + status.count(EDITED)}


def _sentence(entry: Entry) -> str:
    why = f"{entry.error}: {entry.message}" if entry.error else entry.message
    end = f": {why}" if why else f" in {entry.seconds:.1f} s" if entry.seconds else ""
    return f"{entry.image}: {entry.status}{end}"


def _refuse_foreign(batch: Batch) -> None:
    """Raise `UsageError` if a file of somebody else lies where a page or a table of the batch would be written."""
    refuse_foreign(batch.table)
    if batch.jobs.index:
        refuse_other_maps(batch)
    if REPORT in batch.jobs.of:
        from tilepipe.execution.batch.index import index_path, refuse_other_page

        refuse_other_page(index_path(batch))


def _write_pages(batch: Batch, entries: list[Entry], listener: Listener) -> None:
    """Write the table of all images, and the page and the maps that the jobs file asks for."""
    write_table(batch.table, entries)
    batch = Batch.load(batch.path, batch.jobs)
    if batch.jobs.index:
        write_maps(batch, entries)
    if REPORT in batch.jobs.of:
        # The page shows labels of all images, and opens what reads them.
        from tilepipe.execution.batch.index import index_path, write_index

        idle = all(entry.status in (UNCHANGED, EDITED, KNOWN_BAD, WAITING) for entry in entries)
        if not (idle and index_path(batch).exists()):
            write_index(batch, index_path(batch), listener)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a batch on its output folder. Raises `LockedError`."""
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK):
            yield
    finally:
        with suppress(OSError):  # a batch that has written nothing leaves no folder
            for above in made:
                above.rmdir()


def _checked(path: Path, options: Options) -> Jobs:
    jobs = read_jobs(path)
    known = set(Settings.__annotations__) - {"of"}
    for name in jobs.settings:
        if name not in known:
            raise UsageError(f"{path}: settings: {did_you_mean(name, known)}")
    if options.max_parallel < 1:
        raise UsageError(f"`max_parallel` is {options.max_parallel}; give the number of images at a time, from 1")
    return jobs.model_copy(update={"settings": {**jobs.settings, "overwrite": True}}) if options.overwrite else jobs
