"""Run: the steps of `segment` in a work directory, from the first block to what run.json says.

    .<output>.lock                     held while a run works on this output; one per product
    .<output>.tilepipe/<key>/          plan, ledger and Zarr store of one request (see `keys`, `store`)
    .<output>.tilepipe/<key>/certificate.json  what is known about seams
    .<output>.tilepipe/<key>/run.json  what was computed, the products as they were written, whether they are in place

The same request resumes with the plan it has kept, another request never mixes. Products are written inside the work
directory and put in place by one rename each (see `publish`); nothing is ever written at the final path. Before that
everything is compared once more: each block with its ledger line as it is read, the ledger on disk with what was
committed, the image with what it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tilepipe.errors import InputError, LockedError, ModelError, StorageError
from tilepipe.events import Listener
from tilepipe.execution.block_queue import BlockQueue, Checked
from tilepipe.execution.durable_array import Layout
from tilepipe.execution.executors import dask
from tilepipe.execution.file_state import FileState
from tilepipe.execution.job import FAIL, NODATA, Job
from tilepipe.execution.keys import Keys, kept_plan, read_plan, write_plan
from tilepipe.execution.ledger import AGAIN, Ledger, read_records
from tilepipe.execution.output_grid import Read, label_map, layer_map, output_resolution
from tilepipe.execution.outputs import Outputs
from tilepipe.execution.publish import is_published, is_whole, refuse_existing
from tilepipe.execution.run_record import RECORD, RunRecord, read_record
from tilepipe.execution.statistics.field import FIELD
from tilepipe.execution.statistics.passes import take_statistics
from tilepipe.execution.store import Store, drop_arrays
from tilepipe.execution.trials import MODEL_FAILS
from tilepipe.inference.profile.pace import Pace
from tilepipe.planning.certificate import Certificate
from tilepipe.planning.certify import certificate_of, read_certificate, reproducibility_of, write_certificate
from tilepipe.planning.memory import give_back
from tilepipe.planning.plan import FORMAT
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.material import Material
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.base import Source
from tilepipe.sources.mask import Tissue
from tilepipe.storage import storage_errors
from tilepipe.text import setting
from tilepipe.tiling.grid import Index

KEY_LENGTH = 16
"""Hexadecimal digits of the request key in the name of a work directory."""


@dataclass(frozen=True)
class RunOrder:
    """What one command orders: which labels, told by the request key, and where they go."""

    key: str
    """The request key."""
    keys: Keys
    """Identities of image and model when the command began."""
    outputs: Outputs
    """Where products go."""
    scheduler: str | None = None
    """Address of a running Dask scheduler; None: blocks are computed here."""

    @property
    def directory(self) -> Path:
        """Work directory of this order."""
        return self.outputs.work / self.key[:KEY_LENGTH]


def refuse_others(order: RunOrder) -> None:
    """Raise `UsageError` before anything is computed if something that may not be replaced is at a final path."""
    if finished(order) is None:
        refuse_existing(order.outputs, own_record(order))


def finished(order: RunOrder, on_tile_error: str = NODATA) -> RunRecord | None:
    """Return run.json if this very run is complete and its products are still as they were written, else None.

    A run with tiles that failed is not complete for somebody who asks to overwrite: they are tried again. With 'fail'
    it raises `InputError` or `ModelError`.
    """
    record = own_record(order)
    if record is None or (record["failed"] and order.outputs.overwrite) or not is_published(record, order.outputs):
        return None
    if record["failed"] and on_tile_error == FAIL:
        raise _refused(record["failed"][0])(
            f"{len(record['failed'])} tiles of this finished run have no labels; the first: {record['failed'][0]}; "
            f"{setting(overwrite=True)} tries them again"
        )
    return record


def own_record(order: RunOrder) -> RunRecord | None:
    """Return run.json of this request, or None if it has not come that far."""
    record = read_record(order.directory)
    return record if record and record.get("request") == order.key else None


def staged(order: RunOrder) -> RunRecord | None:
    """Return run.json if a process died between the renames: everything is computed, so only they are left."""
    before = own_record(order)
    return before if before and not before["published"] and is_whole(order.directory, before) else None


def begin(job: Job, order: RunOrder) -> dict[str, FileState]:
    """Return what is at the final paths and may be replaced, now that the locks keep others from changing it.

    Raises `UsageError` if something else is there, `LockedError` if another process has begun with another plan.
    """
    replaces = refuse_existing(order.outputs, own_record(order))
    if written := staged(order):
        return written["replaces"] | replaces
    kept = kept_plan(order.directory, order.key)
    # The plan was made before the lock was taken, and measures speed: another process may have kept another choice of
    # tiles by now, whose blocks must not be mixed with these.
    if kept is not None and kept.key({}, "") != job.plan.key({}, ""):
        raise LockedError(f"another run of the same command has begun in {order.directory}; give the command again")
    return replaces


def refuse_changed(full: Source, order: RunOrder, queue: BlockQueue) -> None:
    """Raise when the image or the work directory is no longer what the labels were made of."""
    directory = order.directory
    if not order.keys.still(full):
        # Nothing tells which blocks were read before the change, so none of them can be used.
        shutil.rmtree(directory, ignore_errors=True)
        raise InputError(
            f"{full.name} was changed while the run read it, so its labels would be those of two images; nothing was "
            "written. Give the command again once the image is complete"
        )
    try:
        read_plan(directory)
        same = read_records(queue.ledger.path) == (queue.ledger.done, 0)
    except StorageError:
        same = False
    if not same:
        raise StorageError(f"{directory} was changed or removed while the run worked there; {AGAIN}")


def maps_of(job: Job, full: Source, reader: Callable[[str], Read]) -> dict[str, LabelMap]:
    """Return the labels and the layers by name, on the output grid; `reader` returns what reads each of them."""
    plan, card, wanted = job.plan, job.model.card, job.wanted
    layers = {name: layer_map(name, plan, card, full, reader(name), wanted) for name in plan.layers}
    maps = {LABELS: label_map(plan, card, full, reader(LABELS), wanted), **layers}
    stated = output_resolution(plan, job.stated) if job.stated else None
    return {name: replace(found, resolution=stated) for name, found in maps.items()} if stated else maps


def stitch(job: Job, full: Source, queue: BlockQueue, options: VectorOptions) -> Material:
    """Return the blocks as one map of labels and one of each layer; each is compared with its ledger line when read."""
    return Material.of(maps_of(job, full, partial(Checked, queue)), full, tissue_of(job, full), options)


def tissue_of(job: Job, full: Source) -> float | None:
    """Return the square millimetres of tissue in the region, without the margin around it that gets labels too.

    None without a tissue mask, and if the slide does not say how large its pixels are.
    """
    area, size = job.wanted.area, job.stated or full.resolution
    if not isinstance(area, Tissue) or size is None or size.unit != "um":
        return None
    return area.pixels(job.plan.region) * size.y * size.x / 1e6


def certificate(job: Job, directory: Path) -> Certificate:
    """Return the certificate of a finished run, with what `tilepipe verify` has added since."""
    try:
        return read_certificate(directory)
    except StorageError:  # the work directory was removed
        return certificate_of(job.plan, job.model)


def forget(order: RunOrder) -> None:
    """Remove what a finished run keeps, for somebody who wants no record of it. Raises `StorageError`."""
    with storage_errors(order.directory):
        shutil.rmtree(order.directory)
    with suppress(OSError):  # another request keeps its own folder there
        order.outputs.work.rmdir()


def compute(job: Job, order: RunOrder, listener: Listener) -> tuple[BlockQueue, list[str]]:
    """Compute the blocks that are missing; all of them if an attempt has ended with tiles that failed.

    Also returns what could not be read or predicted, of patches and tiles, and why.
    """
    plan, directory = job.plan, order.directory
    again = bool((own_record(order) or {}).get("failed"))
    if again or (job.on_tile_error == FAIL and _failed_in(directory / f"{FIELD}.jsonl")):
        drop_arrays(directory)  # labels were made of statistics that lack a patch
        (directory / RECORD).unlink(missing_ok=True)
    chunk = plan.grid.y.zone, plan.grid.x.zone
    store = Store.create(directory, Layout(plan.predicted, chunk, plan.label_dtype, plan.nodata), plan.layers)
    write_plan(directory, plan, order.key)
    job = replace(job, directory=directory.absolute())  # a worker has its own working folder
    patches = take_statistics(job, partial(dask.run, scheduler=order.scheduler), listener)
    give_back()
    ledger = Ledger(directory / "ledger.jsonl")
    if job.on_tile_error == FAIL and (failed := _failed_in(ledger.path)):
        ledger.forget(failed)  # they are tried again
    queue = BlockQueue(plan, ledger, store, listener)
    dask.run(job, queue, order.scheduler)
    # The promise takes the largest of statistics, prediction and export and not their sum: what the heaps of threads
    # have kept goes back in between.
    give_back()
    records = queue.ledger.done.values()
    problems = [problem for record in records for problem in record.failed]
    if problems and not any(record.tiles for record in records):
        store.drop()  # so that the next run tries them all again
        did = "predicted" if _refused(problems[0]) is ModelError else "read"
        raise _refused(problems[0])(f"none of {len(problems)} tiles could be {did}; the first: {problems[0]}")
    return queue, [*patches, *problems]


def _refused(problem: str) -> type[InputError | ModelError]:
    """Return the class of error for a tile without labels, by what was the matter."""
    return ModelError if problem.startswith(MODEL_FAILS) else InputError


def _failed_in(ledger: Path) -> list[Index]:
    """Return the blocks or units of a ledger of which a tile or a patch failed."""
    return [block for block, record in read_records(ledger)[0].items() if record.failed]


def record_of(job: Job, order: RunOrder, queue: BlockQueue, material: Material) -> RunRecord:
    """Return what run.json says of a run that is computed and not yet published; write its certificate.

    The caller adds the products, the tiles that failed, what is replaced, and how long the run took.
    """
    plan, records = job.plan, queue.ledger.done.values()
    certificate = certificate_of(plan, job.model, reproducibility_of(plan, job.model))
    write_certificate(certificate, order.directory)
    return {
        "format": FORMAT,
        "source": _absolute(plan.source),
        "model": _absolute(job.model.name),
        "blocks": len(records),
        "tiles": sum(record.tiles for record in records),
        "block_seconds": round(sum(record.seconds for record in records), 3),
        "seams": list(certificate.sentences),
        "versions": dict(certificate.versions),
        "plan": plan.to_dict(),
        "key": order.keys.run(plan),
        "request": order.key,
        "contents": {file.path.name: file.content for file in order.outputs.files},
        "polygons": order.outputs.options.to_dict(),
        "numbers": material.numbers().to_dict(),
        "choice": getattr(material.image, "selected", {}),
        "published": False,
    }


def pace_of(job: Job, record: RunRecord, seconds: float) -> Pace:
    """Return how long a run took that one attempt has finished."""
    plan = job.plan
    height, width = plan.grid.tile_shape
    statistics = round(plan.statistics_work * plan.predicted_region.area)
    return Pace(seconds, record["tiles"] * height * width + statistics)


def _absolute(name: str) -> str:
    """Return a path that still leads there from another folder; the name where it is none."""
    return str(Path(name).resolve()) if Path(name).exists() else name
