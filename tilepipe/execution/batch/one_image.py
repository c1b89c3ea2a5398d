"""This module does one image of a batch: look at what is known, open it, segment it, and say what became of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.errors import TilepipeError, ordinary
from tilepipe.events import Listener
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.image_state import Folders, elsewhere
from tilepipe.execution.batch.items import BatchItem
from tilepipe.execution.batch.record import DONE, EDITED, FAILED, KNOWN_BAD, NEW, PARTIAL, UNCHANGED, Entry
from tilepipe.execution.file_state import state_of
from tilepipe.execution.keys import Keys, asked_of
from tilepipe.planning.planner import opened, plan
from tilepipe.planning.settings import Request
from tilepipe.sources.open import image_files
from tilepipe.storage import storage_errors
from tilepipe.supervisor import began
from tilepipe.text import JSON

if TYPE_CHECKING:
    from tilepipe.models.model import Model
    from tilepipe.sources.base import Source

TILES_SAID = 3
"""Largest number of failed tiles that the record of an image names."""
READ = "cannot be read"
"""Words in the reason of a tile that its image is to blame for."""


@dataclass(frozen=True)
class Looked:
    """An image of a batch as it was found, before it was opened."""

    item: BatchItem
    """The image and the places of its labels."""
    output: str
    """Path of the output below the output folder."""
    asked: str = ""
    """Hash of what is asked for: model, settings, products; '' if they are refused."""
    seen: str = ""
    """State of the image's files."""
    reads: tuple[str, ...] = ()
    """Paths of files that the image reads outside of its own folder, as far as the record knows."""
    known: Entry | None = None
    """Entry of an image without work to do: unchanged, edited or known to be bad; None if there is work."""


@dataclass(frozen=True)
class Opened:
    """An image that was opened for work."""

    source: Source
    """Image at full resolution, with the bands that the model reads."""
    settings: JSON
    """Remaining settings of `tilepipe.segment`."""
    key: str
    """Request key."""


def inspected(batch: Batch, item: BatchItem, model: Model, folders: Folders, *, retry: bool = False) -> Looked:
    """Look at an image without opening it; with `retry`, an image that is known to be bad is work."""
    output = batch.below(item.output)
    entry = batch.known.get(output)
    try:
        asked = asked_of(model, Request.of(batch.settings_of(item)))
    except Exception:
        return Looked(item, output)  # opening the image raises it once more
    reads = entry.reads if entry else ()
    seen = folders.state(item, reads)
    found = Looked(item, output, asked, seen, reads)
    if entry is None:
        return found
    # The model has ended the process on a later image. It might end it on this one too, again and again.
    if _tried_by_this_command(entry):
        return replace(found, known=entry)
    if status := batch.earlier(output, state=(asked, seen)):
        return replace(found, known=replace(entry, status=status, seconds=0.0))
    if entry.is_known_bad(asked, seen) and not retry:
        return replace(found, known=replace(entry, status=KNOWN_BAD))
    return found


def open_image(batch: Batch, looked: Looked, model: Model) -> Opened:
    """Open an image and find its request key. Raises the errors of `tilepipe.segment`."""
    settings = batch.settings_of(looked.item)
    request = Request.of(settings)
    _, source = opened(looked.item.image, model, request)
    rest = {name: value for name, value in settings.items() if name != "bands"}
    request = Request.of(rest)
    return Opened(source, rest, Keys.of(source, model, request).request(request))


def examine(batch: Batch, looked: Looked, model: Model) -> Entry:
    """Return the result that an image would have: 'unchanged', 'edited', 'failed', or 'new' if there is work to do."""
    if looked.known:
        return looked.known
    try:
        image = open_image(batch, looked, model)
        status = batch.earlier(looked.output, image.key)
        if not status:
            plan(image.source, model, **image.settings)  # the plan raises what a run would raise
    except Exception as error:
        return failed(batch, looked.item, error)
    return Entry(str(looked.item.image), looked.output, status or NEW, image.key)


def do(batch: Batch, looked: Looked, image: Opened | Exception, model: Model, listener: Listener) -> Entry:
    """Segment an image that was opened, or that could not be opened; errors of the image become its entry."""
    start, item, reads = time.monotonic(), looked.item, looked.reads
    try:
        if isinstance(image, Exception):
            raise image
        reads = elsewhere(item, image_files(image.source))
        entry = _segmented(batch, looked, image, model, listener)
    except Exception as error:
        entry = failed(batch, item, error)
    before = batch.known.get(looked.output)
    tries = before.tries if before and (before.asked, before.seen) == (looked.asked, looked.seen) else 0
    state: JSON = {"asked": looked.asked, "seen": looked.seen, "reads": reads, "tries": tries + 1}
    if entry.status in (UNCHANGED, EDITED):
        return replace(entry, **state)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(entry, **state, time=now, seconds=round(time.monotonic() - start, 3))


def _segmented(batch: Batch, looked: Looked, image: Opened, model: Model, listener: Listener) -> Entry:
    from tilepipe.execution.segment import segment  # it opens torch and Dask, which a batch without work does without

    item, output = looked.item, looked.output
    if status := batch.earlier(output, image.key):
        return replace(batch.known[output], status=status, seconds=0.0)
    overwrite = batch.may_replace(item) or batch.jobs.settings.get("overwrite", False)
    with storage_errors(item.output.parent):
        item.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {**image.settings, "overwrite": overwrite}
    if batch.jobs.incremental and overwrite:
        settings["since"] = next((path for path in item.products if path.exists()), None)
    result = segment(image.source, model, item.output, listener=listener, **settings)
    files = {batch.below(path): state_of(Path(path)) for path in result.paths}
    entry = Entry(
        str(item.image), output, DONE, image.key, batch.jobs.of, batch.polygons, files,
        result.record.get("numbers", {}), result.certificate.plain,
        processor_seconds=result.record.get("processor_seconds", 0.0),
    )  # fmt: skip
    if result.failed:
        why = f"{len(result.failed)} tiles have no labels: {'; '.join(result.failed[:TILES_SAID])}"
        error = "InputError" if all(READ in reason for reason in result.failed) else "ModelError"
        return replace(entry, status=PARTIAL, error=error, message=why)
    return entry


def failed(batch: Batch, item: BatchItem, error: Exception) -> Entry:
    """Return the entry of an image that failed. The entry keeps the files of an earlier success."""
    output = batch.below(item.output)
    files = batch.known[output].files if output in batch.known else {}
    error = ordinary(error) or error
    message = str(error) if isinstance(error, TilepipeError) else f"unexpected, a bug: {error}"
    return Entry(str(item.image), output, FAILED, files=files, error=type(error).__name__, message=message)


def _tried_by_this_command(known: Entry) -> bool:
    """Return whether an earlier process of the same command has tried an image, and some or all of it failed."""
    start = began()
    if start is None or known.status not in (PARTIAL, FAILED):
        return False
    return datetime.fromisoformat(known.time) >= datetime.fromtimestamp(start, UTC).replace(microsecond=0)
