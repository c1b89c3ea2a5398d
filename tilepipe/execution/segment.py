"""This module is the pipeline on one page: from an image and a model to labels on disk, or in memory for a region."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

from tilepipe.errors import ChangedError, public
from tilepipe.events import Event, Listener, silent
from tilepipe.execution import run_order
from tilepipe.execution.command import kept_settings
from tilepipe.execution.elapsed import processor_timed, timed
from tilepipe.execution.file_state import FileState
from tilepipe.execution.incremental.earlier import find_earlier
from tilepipe.execution.job import Job, kept_job, make_job
from tilepipe.execution.keys import Keys, kept_plan
from tilepipe.execution.outputs import Outputs, outputs_of
from tilepipe.execution.publish import finish_others, put_in_place, write_products
from tilepipe.execution.result import Result
from tilepipe.execution.run_record import RECORD, load_record
from tilepipe.execution.stages import PROCESSOR, collected
from tilepipe.execution.store import Store, drop_arrays
from tilepipe.inference.profile.throughput import keep_throughput
from tilepipe.models.identity import identities_held
from tilepipe.models.model import Model
from tilepipe.models.unread import AnyModel
from tilepipe.planning.certify import certificate_in
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.fit_table import fit_events, refuse_full_disk, warn, with_machine
from tilepipe.planning.memory import format_bytes
from tilepipe.planning.plan import Plan
from tilepipe.planning.planner import Image, make_plan, opened
from tilepipe.planning.settings import Request, Settings
from tilepipe.planning.signature import with_settings
from tilepipe.products.formats import LOSSLESS
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.labels import Labels, Layer, open_map
from tilepipe.progress import reported
from tilepipe.sources.bands import Picked
from tilepipe.sources.base import Source
from tilepipe.sources.geotiff_gdal import rows_forgotten
from tilepipe.sources.world_grid import canvas_of
from tilepipe.stage_times import bottleneck
from tilepipe.storage import locked, write_json
from tilepipe.text import JSON
from tilepipe.tiling.uncertainty import PROBABILITIES

SAID = 1 << 30
"""Size of a dask array from which on the user is told that identifying it takes time (bytes)."""


@with_settings(Settings)
@public
@identities_held()
@rows_forgotten()
def segment(
    source: Image,
    model: AnyModel,
    output: str | Path | None = None,
    *,
    listener: Listener | None = None,
    progress: bool = False,
    **settings: Unpack[Settings],
) -> Result:
    """Segment an image into a label map on disk. A run that was interrupted goes on if it is called again.

    Nothing stands under the output's name before it is complete. After an error, an output that existed is as it was.

    Args:
        source: The image: a path, a `Source`, or an array of shape (bands, height, width) or (height, width).
        model: The name of a bundled model, the path of a model, a `Model`, or a list of these, which are averaged.
        output: Path of the label map. If it is left out, the labels go beside the image as `<stem>.labels.tif`, for
            slides as `<stem>.labels.ome.zarr` and `<stem>.labels.geojson`.
        listener: Is called with each `Event` of the run: its stage, how much of it is done, and a message. If it is
            left out, warnings are Python's warnings.
        progress: Whether a bar is shown, in a terminal or a notebook. The logger `tilepipe` is told in any case.
        **settings: See `Settings`. They have the names of the command line's options.

    Returns:
        The paths of the products, the lazy labels, the plan and the certificate. Labels are (height, width) uint8, or
        uint16 for more than 255 classes.

    Raises:
        UsageError: A setting is wrong, the region has no pixels, or the output exists.
        InputError: The image is missing, damaged, does not fit the model, or changed during the run.
        ModelError: The model is refused, or fails on every tile.
        StorageError: The disk is full or cannot be written.
        DeviceError: The device is not there, or its memory ran out.
        LockedError: Another run works on the same output.

    Example:
        >>> import tilepipe as tp
        >>> image = "pipelines/sample/Amazon_24_20.tif"
        >>> result = tp.segment(image, "forest", "corner.tif", window=(0, 0, 200, 100))
        >>> result.labels.shape, result.labels.classes
        ((100, 200), ('other', 'forest'))
        >>> result.certificate.mode
        'EXACT'
    """
    # Open the image and the model, and decide where labels go.
    request = Request.of(settings)
    with reported(listener, progress) as tell:
        model, image = opened(source, model, request)
        outputs = outputs_of(image, model.names, output, request)
        request = request.writing(outputs.paths)
        finish_others(outputs)
        order = _order(image, model, request, outputs, tell)
        directory = order.directory
        # Plan the run, or use the plan that an earlier attempt has kept.
        kept, like = kept_plan(directory, order.key), order.earlier.plan if order.earlier else None
        begun = partial(kept_job, kept=kept) if kept else partial(make_job, listener=tell, like=like)
        job = begun(image, model, request)
        job = replace(job, plan=with_machine(job.plan, model, outputs.work.parent))
        for event in fit_events(job.plan, resumed=kept is not None):
            tell(event)
        # An attempt that goes on has a part of its labels on the disk, so the need of a whole run says too much.
        if kept is None:
            refuse_full_disk(job.plan)
        if listener is None:
            warn(job.plan, decorators=3)
        run_order.refuse_others(order)
        with locked(*outputs.locks):
            record, message = run_order.finished(order, job.on_tile_error), "already complete, nothing to do"
            if record is None:
                replaces, message = run_order.begin(job, order), ""
                if not run_order.staged(order):
                    try:
                        _make(job, image, order, replaces, tell)
                    except ChangedError:
                        run_order.refuse_changed_image(image, order)
                        raise
                # Publish the products, each by one rename.
                record = put_in_place(directory, load_record(directory) | {"replaces": replaces})
            # From here on labels are read from the product. Polygons alone do not hold labels, so then the arrays stay.
            if not record["failed"] and LOSSLESS & set(outputs.paths):
                drop_arrays(directory)
            certificate = certificate_in(job.plan, job.model, directory)
            if not (request.record or record["failed"]):
                run_order.forget(order)
            tell(Event("done", message=message, data=dict(record)))
    maps = _maps(job, image, order)
    layers = {name: Layer(maps[name]) for name in job.plan.layers}
    return Result(
        tuple(file.path for file in outputs.files), Labels(maps[LABELS]), layers, job.plan, certificate, record,
        _probabilities(outputs),
    )  # fmt: skip


def _make(job: Job, image: Source, order: run_order.RunOrder, replaces: dict[str, FileState], tell: Listener) -> None:
    """Compute what is missing of the labels, and write products and run.json inside the work directory."""
    # What computes opens torch. A command whose labels are complete does without, and answers in a moment.
    from tilepipe.execution import run

    directory, outputs = order.directory, order.outputs
    goes_on = kept_plan(directory, order.key) is not None
    with timed(directory) as elapsed, processor_timed() as here:
        # Compute the statistics and the blocks that are missing.
        with collected(directory, job.plan.compute.workers or 1) as stages:
            queue, failed = run.compute(job, order, tell)
        taken = stages()
        elsewhere = taken.pop(PROCESSOR)
        # A process counts its stages over all that it works on, as its processor time.
        taken = taken if here() else {}
        made = run.record_of(job, order, queue, image) | {"failed": failed, "stages": taken}
        # Stitch the blocks to one map, and write the products.
        material = run.stitch(job, image, queue, outputs.options)

        def times() -> JSON:
            # Only an attempt that did all of the work knows the processor time of the run.
            spent = 0.0 if goes_on or not here() else round(here() + elsewhere, 3)
            return {"elapsed_seconds": elapsed(), "processor_seconds": spent}

        material = replace(material, facts={**made})
        began = time.perf_counter()
        products = write_products(material, outputs, directory, tell, times)
        made["stages"]["products"] = round(time.perf_counter() - began, 3)
        made["bottleneck"] = bottleneck(made["stages"])
        # This check comes after the products: a change up to here is noticed, and no final path has changed yet.
        run_order.refuse_changed(image, order, queue)
        made |= {"numbers": material.numbers().to_dict(), "products": products, "replaces": replaces}
        write_json(directory / RECORD, made | times())
        # Only an attempt that did all of the work tells how long such a run takes.
        if not (goes_on or made["taken"]):
            keep_throughput(job.model, job.plan.compute, run.throughput_of(job, made, elapsed()))


@public
@identities_held()
def dry_run(source: Image, model: AnyModel, output: str | Path | None = None, **settings: Unpack[Settings]) -> Plan:
    """Return the plan of `segment` with the same arguments, after checking the outputs. Nothing is written."""
    request = Request.of(settings)
    model, image = opened(source, model, request)
    outputs = outputs_of(image, model.names, output, request)
    request = request.writing(outputs.paths)
    if not request.since:
        return with_machine(make_plan(image, model, request)[0], model, outputs.work.parent)
    from tilepipe.execution.incremental.take_over import would_take

    order = _order(image, model, request, outputs, silent)
    assert order.earlier is not None
    job = make_job(image, model, request, like=order.earlier.plan)
    plan = with_machine(job.plan, model, outputs.work.parent)
    return replace(plan, fit_table=(*plan.fit_table, FitRow("since", "note", would_take(job, order))))


def _order(image: Source, model: Model, request: Request, outputs: Outputs, tell: Listener) -> run_order.RunOrder:
    """Return the order with the identities of image and model; tell the listener what matters of these."""
    in_table = getattr(image, "picked", Picked()).notes
    for note in getattr(image, "notes", ()):
        if note not in in_table:
            tell(Event("plan", message=note))
    size = getattr(image, "identity_bytes", 0)
    if size > SAID:
        tell(Event("plan", message=f"computing the {format_bytes(size)} of the dask array once, to know it again"))
    keys = Keys.of(image, model, request)
    if keys.trouble:
        tell(Event("plan", message=f"{model.name} has no identity: {keys.trouble}; the run cannot be resumed"))
    return run_order.RunOrder(
        keys.request(request), keys, outputs, request.scheduler, kept_settings(request.given), keys.asked(request),
        find_earlier(request.since) if request.since else None, canvas_of(image),
    )  # fmt: skip


def _maps(job: Job, image: Source, order: run_order.RunOrder) -> dict[str, LabelMap]:
    """Return labels and layers by name: from the first product that holds them, else from the work directory."""
    found = {file.content: open_map(file.path) for file in reversed(order.outputs.files) if file.product in LOSSLESS}
    if found:
        return found
    from tilepipe.execution import run

    return run.maps_of(job, image, lambda name: Store(order.directory).array(name).read)


def _probabilities(outputs: Outputs) -> tuple[Layer, ...]:
    """Return the probabilities of the classes from the first product that holds them; none if there is none."""
    for file in outputs.files:
        if file.content == PROBABILITIES:
            from tilepipe.products.probabilities import read_probabilities

            return tuple(map(Layer, read_probabilities(file.path)))
    return ()
