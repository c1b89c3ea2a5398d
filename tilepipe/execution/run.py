"""This module does the steps of `segment` in a work directory, from the first block to the content of run.json.

    .<output>.lock                     held while a run works on this output; one per product
    .<output>.tilepipe/<key>/          plan, ledger and Zarr store of one request (see `keys`, `store`)
    .<output>.tilepipe/<key>/certificate.json  what is known about seams
    .<output>.tilepipe/<key>/run.json  what was computed, the products as they were written, whether they are in place

The same request resumes with the plan it has kept; another request has its own folder. Products are written inside the
work directory and put in place by one rename each (see `publish`); nothing is ever written at the final path. Before
that everything is compared once more: each block with its ledger line as it is read, the ledger on disk with what was
committed, the image with what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tilepipe.errors import ModelError
from tilepipe.events import Listener
from tilepipe.execution.block_queue import BlockQueue, Checked
from tilepipe.execution.command import command_of
from tilepipe.execution.durable_array import Layout
from tilepipe.execution.executors import blocks
from tilepipe.execution.incremental.take_over import take_over
from tilepipe.execution.job import FAIL, Job
from tilepipe.execution.keys import write_plan
from tilepipe.execution.ledger import Ledger, read_records
from tilepipe.execution.model_watch import begin_watch, forget_ends
from tilepipe.execution.output_grid import Read, label_map, layer_map, output_resolution
from tilepipe.execution.run_order import RunOrder, error_of, own_record
from tilepipe.execution.run_record import RECORD, RunRecord
from tilepipe.execution.statistics.field import FIELD
from tilepipe.execution.statistics.passes import take_statistics
from tilepipe.execution.store import Store, drop_arrays
from tilepipe.heap import give_back
from tilepipe.inference.profile.throughput import Throughput
from tilepipe.models.precision import surroundings
from tilepipe.planning.certify import certificate_of, reproducibility_of, write_certificate
from tilepipe.planning.plan import FORMAT
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.material import Material
from tilepipe.products.tissue import tissue_map
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.acquired import acquired_of
from tilepipe.sources.base import Source
from tilepipe.sources.mosaic_files import is_pattern
from tilepipe.sources.open import reopening
from tilepipe.sources.tissue import Tissue
from tilepipe.sources.world_grid import without_canvas
from tilepipe.tiling.grid import Index


def maps_of(job: Job, full: Source, reader: Callable[[str], Read]) -> dict[str, LabelMap]:
    """Return the labels and the layers by name, on the output grid; `reader` returns the function that reads one of
    them."""
    plan, card, wanted = job.plan, job.model.card, job.wanted
    layers = {name: layer_map(name, plan, card, full, reader(name), wanted) for name in plan.kept}
    maps = {LABELS: label_map(plan, card, full, reader(LABELS), wanted), **layers}
    # A pixel size that the user gives holds for the products too, since the file says none or a wrong one.
    stated = output_resolution(plan, job.stated) if job.stated else None
    return {name: replace(found, resolution=stated) for name, found in maps.items()} if stated else maps


def stitch(job: Job, full: Source, queue: BlockQueue, options: VectorOptions) -> Material:
    """Return one map of the labels and one of each layer; each block read is compared with its ledger line."""
    maps, area = maps_of(job, full, partial(Checked, queue)), job.wanted.area
    material = Material.of(maps, without_canvas(full), tissue_of(job, full), options)
    if not isinstance(area, Tissue):
        return material
    return replace(material, tissue=tissue_map(area, job.plan.region, full, job.stated or full.resolution))


def tissue_of(job: Job, full: Source) -> float | None:
    """Return the area of tissue in the region (square millimetres), without the labelled margin around the tissue.

    Returns None if there is no tissue mask, or if the slide does not say how large its pixels are.
    """
    area, size = job.wanted.area, job.stated or full.resolution
    if not isinstance(area, Tissue) or size is None or size.unit != "um":
        return None
    return area.pixels(job.plan.region) * size.y * size.x / 1e6


def compute(job: Job, order: RunOrder, listener: Listener) -> tuple[BlockQueue, list[str]]:
    """Compute the missing blocks; compute all blocks if an attempt has ended with failed tiles.

    Also returns a list of the patches and tiles that could not be read or predicted, each with the reason.
    """
    plan, directory = job.plan, order.directory
    again = bool((own_record(order) or {}).get("failed"))
    if again or (job.on_tile_error == FAIL and _failed_in(directory / f"{FIELD}.jsonl")):
        drop_arrays(directory)  # labels were made with statistics that lack a patch
        forget_ends(directory)
        (directory / RECORD).unlink(missing_ok=True)
    chunk = plan.grid.y.zone, plan.grid.x.zone
    store = Store.create(directory, Layout(plan.predicted, chunk, plan.label_dtype, plan.nodata), plan.kept)
    write_plan(directory, plan, order.key)
    # The folder must be absolute, since a worker has its own working folder.
    job = replace(job, directory=directory.absolute())
    begin_watch(directory)
    patches = take_statistics(job, partial(blocks.run, scheduler=order.scheduler), listener)
    give_back()
    ledger = Ledger(directory / "ledger.jsonl")
    if job.on_tile_error == FAIL and (failed := _failed_in(ledger.path)):
        ledger.forget(failed)  # failed blocks are tried again
    queue = BlockQueue(plan, ledger, store, listener)
    queue.note = take_over(job, queue, order, listener)
    queue.begin()
    blocks.run(job, queue, order.scheduler)
    begin_watch(directory)  # the notes of the calls serve no more
    # The memory promise takes the largest of statistics, prediction and export and not their sum, so memory that the
    # heaps of threads have kept is given back in between.
    give_back()
    records = queue.ledger.done.values()
    problems = [problem for record in records for problem in record.failed]
    if problems and not any(record.tiles or record.taken for record in records):
        store.drop()  # without its arrays, the next run tries all of them again
        did = "predicted" if error_of(problems[0]) is ModelError else "read"
        many = f"none of {len(problems)} tiles could be {did}; the first: " if len(problems) > 1 else ""
        raise error_of(problems[0])(f"{many}{problems[0]}")
    return queue, [*patches, *problems]


def _failed_in(ledger: Path) -> list[Index]:
    """Return the blocks or units of a ledger that have a failed tile or patch."""
    return [block for block, record in read_records(ledger)[0].items() if record.failed]


def record_of(job: Job, order: RunOrder, queue: BlockQueue, full: Source) -> RunRecord:
    """Return run.json of a run that is computed and has no products yet; write the run's certificate.

    The caller adds the failed tiles, the numbers, the products, the files that are replaced, and how long the run took.
    """
    plan, records = job.plan, queue.ledger.done.values()
    certificate = certificate_of(plan, job.model, reproducibility_of(plan, job.model))
    write_certificate(certificate, order.directory)
    source, models = _absolute(plan.source), [_absolute(name) for name in job.model.names]
    return {
        "format": FORMAT,
        "source": source,
        "model": models if job.model.members else models[0],
        "blocks": len(records),
        "tiles": sum(record.tiles for record in records),
        "block_seconds": round(sum(record.seconds for record in records), 3),
        "plain": certificate.plain,
        "seams": list(certificate.sentences),
        "versions": dict(certificate.versions),
        "plan": plan.to_dict(),
        "key": order.keys.run(plan),
        "request": order.key,
        "asked": order.asked,
        "surroundings": surroundings(),
        "canvas": list(order.canvas),
        "since": queue.note,
        "taken": sum(bool(record.taken) for record in records),
        "contents": {file.path.name: file.content for file in order.outputs.files},
        "polygons": order.outputs.options.to_dict(),
        "choice": {**getattr(full, "selected", {}), **reopening(full)},
        "settings": order.settings,
        "command": command_of(source, models, order.settings, order.outputs.paths),
        "acquired": acquired_of(full),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "published": False,
    }


def throughput_of(job: Job, record: RunRecord, seconds: float) -> Throughput:
    """Return the throughput of a run that one attempt has finished in `seconds`."""
    plan = job.plan
    statistics = round(plan.statistics_work * plan.predicted_region.area)
    return Throughput(seconds, record["tiles"] * plan.tile_pixels + statistics)


def _absolute(name: str) -> str:
    """Return a path or a pattern that is valid from any folder; return the name unchanged if it is neither."""
    if is_pattern(name):
        return str(Path(name).absolute())
    return str(Path(name).resolve()) if Path(name).exists() else name
