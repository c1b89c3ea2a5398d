"""This module writes the report of a batch: one page with all images of a jobs file."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path

from tilepipe.errors import TilepipeError, UsageError
from tilepipe.events import Event, Listener, silent
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.items import BatchItem
from tilepipe.execution.batch.jobs_file import read_jobs
from tilepipe.execution.batch.record import WAITING, Entry
from tilepipe.execution.report import coarse, image_of_run
from tilepipe.execution.run_record import find_record
from tilepipe.products.formats import LOSSLESS, PRODUCTS, REPORT, product_of
from tilepipe.products.label_map import Legend
from tilepipe.products.labels import open_map
from tilepipe.products.report.index import MARK, index_of
from tilepipe.products.report.thumbnail import thumbnail
from tilepipe.storage import write_durably
from tilepipe.text import JSON


def report_of_batch(
    jobs: str | Path, output: str | Path | None = None, *, overwrite: bool = False, listener: Listener = silent
) -> Path:
    """Write the report of a batch and return its path: by default JOBS.report.html in the folder of the outputs.

    A report of a batch is replaced by a newer one. Raises `UsageError` if the jobs file is wrong, if no image was
    processed yet, or if another file is there and `overwrite` is not given.
    """
    path = Path(jobs).resolve()
    batch = Batch.load(path, read_jobs(path))
    if not batch.known:
        raise UsageError(f"no image of {jobs} was processed yet; run: tilepipe batch run {shlex.quote(str(jobs))}")
    page = Path(output) if output else index_path(batch)
    if not overwrite:
        refuse_other_page(page)
    write_index(batch, page, listener)
    return page


def index_path(batch: Batch) -> Path:
    """Return the path of the report of a batch in the folder of its outputs."""
    return batch.page


def refuse_other_page(page: Path) -> None:
    """Raise `UsageError` if a file exists that is no report of a batch, because its content would be lost."""
    if page.is_dir() or (page.exists() and MARK.encode() not in page.read_bytes()[: 1 << 16]):
        raise UsageError(f"{page} exists and is not the report of a batch, which would be written there; move it away")


def write_index(batch: Batch, page: Path, listener: Listener = silent) -> None:
    """Write the report of a batch from its record, whole or not at all; labels are read from small versions."""
    items = batch.images()
    images, thumbnails, legend = [], {}, None
    top = os.path.commonpath([item.image.parent for item in items]) if items else ""
    for k, item in enumerate(items):
        listener(Event("export", k, len(items), f"writing {page.name}"))
        facts = {**_facts_of(batch, item, page.absolute().parent), "name": item.image.relative_to(top).as_posix()}
        images.append(facts)
        if facts["labels"]:
            with suppress(TilepipeError):  # a page about many images does without the picture of one
                picture, found = _thumbnail(page.absolute().parent / facts["labels"])
                thumbnails[facts["name"]] = picture
                legend = legend or found
    command = shlex.join(["tilepipe", "batch", "run", str(batch.path)])
    facts = {"jobs": batch.path.name, "model": " + ".join(batch.jobs.models), "command": command, "images": images}
    write_durably(page, index_of(facts, thumbnails, legend))


def _facts_of(batch: Batch, item: BatchItem, folder: Path) -> JSON:
    """Return what is known about an image; paths are relative to `folder`, in which the page will lie."""
    entry = batch.known.get(batch.below(item.output)) or Entry(str(item.image), "", WAITING)
    there = [path for path in item.products if path.exists()]
    below = {product_of(path): os.path.relpath(path, folder) for path in reversed(there)}
    return {
        "image": str(item.image),
        "status": entry.status,
        "message": f"{entry.error}: {entry.message}" if entry.error else entry.message,
        "seconds": entry.seconds,
        "processor_seconds": entry.processor_seconds,
        "numbers": entry.numbers,
        "seams": entry.seams,
        "labels": next((below[product] for product in PRODUCTS if product in LOSSLESS & below.keys()), ""),
        "page": below.get(REPORT, ""),
    }


def _thumbnail(labels: Path) -> tuple[str, Legend]:
    """Return the thumbnail of labels, over their image if it can still be opened, and their legend."""
    full, found = open_map(labels), find_record(labels)
    image = image_of_run(found[0]) if found else None
    return thumbnail(coarse(full, labels), image), full.legend
