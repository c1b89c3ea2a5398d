"""This module runs a batch: one model over many images.

Finished images are not done again, and one bad image never stops the rest. A batch is started by a person or by a timer
(cron, a systemd timer); it holds a lock while it runs. A record beside the outputs says what was done. It has one JSON
line per image processed: the run key (a hash of the image's content, the weights and the settings), and size and sha256
of each output. An output that the record does not know, or that changed since, is never overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.errors import TilepipeError, UsageError, ordinary, public
from tilepipe.events import Event, Listener, silent
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.index import index_path, refuse_other_page, write_index
from tilepipe.execution.batch.jobs_file import BatchItem, Jobs, output_folder, read_jobs
from tilepipe.execution.batch.record import (
    DONE,
    EDITED,
    FAILED,
    NEW,
    PARTIAL,
    UNCHANGED,
    Entry,
    append_entry,
)
from tilepipe.execution.batch.table import refuse_foreign, write_table
from tilepipe.execution.file_state import state_of
from tilepipe.execution.keys import Keys
from tilepipe.execution.report import REPORT
from tilepipe.execution.segment import segment
from tilepipe.models.formats.directory import load_model
from tilepipe.models.identity import identities_held
from tilepipe.models.unread import open_models
from tilepipe.planning.planner import opened, plan
from tilepipe.planning.receptive_field import measure_receptive_field
from tilepipe.planning.settings import Request, Settings
from tilepipe.products.numbers import Numbers
from tilepipe.products.report.index import total
from tilepipe.storage import locked, storage_errors
from tilepipe.supervisor import began
from tilepipe.text import JSON, did_you_mean

if TYPE_CHECKING:
    from tilepipe.models.model import Model
    from tilepipe.sources.base import Source


TILES_SAID = 3
"""Largest number of failed tiles that the record of an image names."""


@dataclass(frozen=True)
class Report:
    """The results for all images."""

    folder: Path
    """Folder that all outputs lie in."""
    entries: tuple[Entry, ...]
    """Entries, one per image."""
    table: Path
    """Path of the CSV file with the numbers of all images."""
    page: Path | None = None
    """Path of the report with all images; None if the jobs file does not ask for reports."""

    @property
    def numbers(self) -> Numbers | None:
        """Sums over all images that have labels; None if there is none, or if their classes or units differ."""
        return total([Numbers.from_dict(entry.numbers) for entry in self.entries if entry.numbers])

    @property
    def failed(self) -> list[Entry]:
        """Entries of images that failed, or of which some tiles failed."""
        return [entry for entry in self.entries if entry.status in (PARTIAL, FAILED)]


@public
def run(path: str | Path, *, dry_run: bool = False, listener: Listener = silent) -> Report:
    """Run a jobs file and return what became of each image; with `dry_run`, only say what would be done.

    Raises `UsageError` if the jobs file is wrong, `ModelError` if the model is refused, and `LockedError` if another
    batch works on the same output folder. An error of one image becomes an entry with status 'failed'.
    """
    path = Path(path).resolve()
    jobs = _checked(path)
    # A jobs file is written by hand and run from anywhere, so its paths start at the file.
    near = [path.parent / name for name in jobs.models]
    named = [str(file) if file.exists() else name for file, name in zip(near, jobs.models, strict=True)]
    trust = {"trust_model": jobs.settings["trust_model"]} if "trust_model" in jobs.settings else {}
    models = [load_model(name, **trust) for name in named]
    model = models[0] if len(models) == 1 else open_models(models)
    measure_receptive_field(model, listener)  # a model that no image can use stops the batch, not every image
    folder = output_folder(jobs, path.parent)
    if dry_run:
        batch = Batch.load(path, jobs)
        return Report(folder, tuple(_examine(batch, job, model) for job in batch.images()), batch.table)
    with _alone(folder):
        batch = Batch.load(path, jobs)
        refuse_foreign(batch.table)
        if REPORT in jobs.of:
            refuse_other_page(index_path(batch))
        todo = batch.images()
        entries: list[Entry] = []
        for job in todo:
            listener(Event("batch", len(entries), len(todo), str(job.image), _counts(entries)))
            entries.append(_process(batch, job, model, listener))
            said = _sentence(entries[-1])
            listener(Event("batch", len(entries), len(todo), said, {**_counts(entries), "note": said}))
        write_table(batch.table, entries)
        page = index_path(batch) if REPORT in jobs.of else None
        if page is not None:
            write_index(Batch.load(path, jobs), page, listener)
    return Report(folder, tuple(entries), batch.table, page)


def _counts(entries: list[Entry]) -> JSON:
    """Return how many images have failed so far, and how many needed no work."""
    status = [entry.status for entry in entries]
    failed = status.count(FAILED) + status.count(PARTIAL)
    return {"failed": failed, "skipped": status.count(UNCHANGED) + status.count(EDITED)}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a batch on its output folder. Raises `LockedError`."""
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / ".tilepipe-batch.lock"):
            yield
    finally:
        with suppress(OSError):  # a batch that has written nothing leaves no folder
            for above in made:
                above.rmdir()


def _checked(path: Path) -> Jobs:
    jobs = read_jobs(path)
    known = set(Settings.__annotations__) - {"of"}
    for name in jobs.settings:
        if name not in known:
            raise UsageError(f"{path}: settings: {did_you_mean(name, known)}")
    return jobs


def _examine(batch: Batch, job: BatchItem, model: Model) -> Entry:
    """Return the result that an image would have: 'unchanged', 'failed', or 'new' if there is work to do."""
    output = batch.below(job.output)
    try:
        source, settings = _opened(batch, job, model)
        key = _key(source, model, settings)
        done, edited = batch.is_done(output, key), batch.is_edited(output, key)
        if not (done or edited):
            plan(source, model, **settings)  # the plan raises what a run would raise
    except Exception as error:
        return _failed(batch, job, error)
    return Entry(str(job.image), output, UNCHANGED if done else EDITED if edited else NEW, key)


def _process(batch: Batch, job: BatchItem, model: Model, listener: Listener) -> Entry:
    """Process one image and record it. Errors of the image become its entry; only Ctrl-C is raised."""
    start, known = time.monotonic(), batch.known.get(batch.below(job.output))
    # The model has ended the process on a later image. It might end it on this one too, again and again.
    if known is not None and _tried_by_this_command(known):
        return known
    try:
        # Both the key and `segment` need the identity of the model, which takes time to find, so it is found once for
        # an image.
        with identities_held():
            entry = _segment(batch, job, model, listener)
    except Exception as error:
        entry = _failed(batch, job, error)
    if entry.status not in (UNCHANGED, EDITED):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = replace(entry, time=now, seconds=round(time.monotonic() - start, 3))
        append_entry(batch.record, entry)
    return entry


def _segment(batch: Batch, job: BatchItem, model: Model, listener: Listener) -> Entry:
    output, (source, settings) = batch.below(job.output), _opened(batch, job, model)
    key = _key(source, model, settings)
    entry = Entry(str(job.image), output, UNCHANGED, key, batch.jobs.of, batch.polygons)
    if batch.is_done(output, key):
        return replace(entry, numbers=batch.known[output].numbers, seams=batch.known[output].seams)
    if batch.is_edited(output, key):
        return replace(entry, status=EDITED, numbers=batch.known[output].numbers, seams=batch.known[output].seams)
    settings = {**settings, "overwrite": batch.may_replace(job) or batch.jobs.settings.get("overwrite", False)}
    with storage_errors(job.output.parent):
        job.output.parent.mkdir(parents=True, exist_ok=True)
    result = segment(source, model, job.output, listener=listener, **settings)
    files = {batch.below(path): state_of(Path(path)) for path in result.paths}
    entry = replace(entry, files=files, numbers=result.record.get("numbers", {}), seams=result.certificate.plain)
    if result.failed:
        why = f"{len(result.failed)} tiles have no labels: {'; '.join(result.failed[:TILES_SAID])}"
        return replace(entry, status=PARTIAL, message=why)
    return replace(entry, status=DONE)


def _tried_by_this_command(known: Entry) -> bool:
    """Return whether an earlier process of the same command has tried an image, and some or all of it failed."""
    start = began()
    if start is None or known.status not in (PARTIAL, FAILED):
        return False
    return datetime.fromisoformat(known.time) >= datetime.fromtimestamp(start, UTC).replace(microsecond=0)


def _opened(batch: Batch, job: BatchItem, model: Model) -> tuple[Source, JSON]:
    """Return an image with the bands that are read, and the remaining settings."""
    settings = batch.settings_of(job)
    _, source = opened(job.image, model, Request.of(settings))
    return source, {name: value for name, value in settings.items() if name != "bands"}


def _key(source: Source, model: Model, given: JSON) -> str:
    """Return the request key: a hash of the image's content, the model and the settings. No plan is needed."""
    request = Request.of(given)
    return Keys.of(source, model, request).request(request)


def _failed(batch: Batch, job: BatchItem, error: Exception) -> Entry:
    """Return the entry of an image that failed. The entry keeps the files of an earlier success."""
    output = batch.below(job.output)
    files = batch.known[output].files if output in batch.known else {}
    error = ordinary(error) or error
    message = str(error) if isinstance(error, TilepipeError) else f"unexpected, a bug: {error}"
    return Entry(str(job.image), output, FAILED, files=files, error=type(error).__name__, message=message)


def _sentence(entry: Entry) -> str:
    why = f"{entry.error}: {entry.message}" if entry.error else entry.message
    end = f": {why}" if why else f" in {entry.seconds:.1f} s" if entry.seconds else ""
    return f"{entry.image}: {entry.status}{end}"
