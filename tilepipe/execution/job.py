"""This module defines a job: a plan, and the image and the model for it. The module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tilepipe.events import Listener, silent
from tilepipe.models.model import Model
from tilepipe.planning.plan import Plan
from tilepipe.planning.planner import make_plan, resumed
from tilepipe.planning.receptive_field import Known
from tilepipe.planning.region import area_of, image_data, on_prediction_grid
from tilepipe.planning.settings import Request
from tilepipe.planning.wanted import Wanted
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.mask import Mask

NODATA, FAIL = "nodata", "fail"
MODEL_FAILS = "the model fails in "
"""Beginning of the sentence about a tile that was read but not predicted."""


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to work on a run; it can be pickled."""

    plan: Plan
    """Plan of the run."""
    source: Source
    """Image on the prediction grid, with its mask of image data: what the model sees."""
    model: Model
    """The model."""
    wanted: Wanted
    """Pixels that get a label."""
    directory: Path | None = None
    """Work directory of the run, which holds run.zarr; None for a region in memory."""
    stated: Resolution | None = None
    """Resolution of the image if the user states it; otherwise the image's own resolution is used."""
    on_tile_error: str = NODATA
    """What happens if a tile cannot be read or predicted: 'nodata' leaves its pixels without a label, 'fail' stops the
    run."""
    record: bool = False
    """Whether the run leaves a record."""
    tile_timeout: float = 0.0
    """Longest time that the model may take for one call, in a process of our own (seconds); 0 waits for ever."""

    @property
    def hashes(self) -> bool:
        """Whether hashes of what the tiles see are kept, by which a later run takes over labels."""
        return self.record and self.directory is not None


def job_of(plan: Plan, image: Source, model: Model, area: Mask | None) -> Job:
    """Return the job of a plan for an image at full resolution; `area` is the part that gets a label, None for all."""
    data = image_data(image, plan.mask)
    seen = on_prediction_grid(data, plan.predicted)
    return Job(plan, seen, model, Wanted(data, plan, area))


def make_job(
    image: Source,
    model: Model,
    request: Request,
    known: Known | None = None,
    listener: Listener = silent,
    like: Plan | None = None,
) -> Job:
    """Return a job with a new plan, with the choices of the plan `like`; see `make_plan`. Nothing is run."""
    plan, area = make_plan(image, model, request, known, listener, like)
    return _as_asked(job_of(plan, image, model, area), request)


def kept_job(image: Source, model: Model, request: Request, kept: Plan) -> Job:
    """Return a job with the plan that a run of the same request has kept; see `resumed`."""
    plan = resumed(kept, image, model, request)
    # The plan keeps a hash of the polygons and not their file, which one of these two settings names.
    polygons = request.region if isinstance(request.region, str) else request.mask
    return _as_asked(job_of(plan, image, model, area_of(image, plan.mask, polygons, request.classes)), request)


def _as_asked(job: Job, request: Request) -> Job:
    """Return the job with the settings that a plan does not hold."""
    size = request.pixel_size
    stated = Resolution(size, size, job.model.card.unit) if size else None
    return replace(
        job, stated=stated, on_tile_error=request.on_tile_error, tile_timeout=request.tile_timeout,
        record=request.record,
    )  # fmt: skip
