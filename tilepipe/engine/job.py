"""From an image, a model and settings to a job, and a region's labels in memory: the one path of all who predict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from tilepipe.afford import afford
from tilepipe.arithmetic import resolve_precision
from tilepipe.box import Box
from tilepipe.choice import choose_tile
from tilepipe.engine.steps import Job, Worker
from tilepipe.errors import InputError
from tilepipe.events import Listener, silent
from tilepipe.frozen import freeze
from tilepipe.models.footprint import footprint
from tilepipe.models.model import Model
from tilepipe.output import label_map
from tilepipe.planning import Settings, compute_of, make_plan
from tilepipe.predict import resolve_device
from tilepipe.reach import Known, look
from tilepipe.region import on_prediction_grid, resolve
from tilepipe.sources.base import Source


def make_job(
    full: Source, model: Model, settings: Settings, known: Known | None = None, listener: Listener = silent
) -> Job:
    """Return the job for what is asked of an image at full resolution, every open choice made. Nothing is run.

    `known` is what `reach.look` would find, where the caller need not have it measured.

    Raises `InputError`, `ModelError`, `UsageError` or `DeviceError`.
    """
    (card, reach), statistics = freeze(model, known or look(model, listener), full, settings)
    asked, mask = resolve(full, card, settings)
    device = resolve_device(settings.get("device", "auto"))
    settings = {**settings, "precision": resolve_precision(settings.get("precision", "auto"), device, model.module)}
    values, why, tolerance = sum(statistics.values) if statistics else 0, "", 0.0
    needs = footprint(model, values=values, dtype=compute_of(settings, device).dtype)
    if statistics:
        settings = {**settings, "window_shape": "crop"}
    else:
        settings, why = choose_tile(model, card, full, settings, compute_of(settings, device), needs)
        settings, tolerance = afford(model, card, full, settings, device)
    made = make_plan(full, card, asked, settings, device=device, footprint=needs)
    made = replace(made, reach=replace(reach, tolerance=tolerance), statistics=statistics, why=why)
    return Job(made, on_prediction_grid(full, mask, made), model)


def region_labels(job: Job, full: Source) -> NDArray[Any]:
    """Return the labels of the job's region on its output grid, (height, width) uint8 or uint16, in memory.

    Raises `InputError` where the image cannot be read.
    """
    worker = Worker(job)
    try:
        labels, tally = worker.region()
    finally:
        worker.close()
    if tally.failed:
        raise InputError(tally.failed[0])
    area = job.plan.predicted_region
    view = label_map(job.plan, job.model.card, full, lambda box: labels[box.slices_in(area)])
    return view.read(Box.of_shape(*view.shape))
