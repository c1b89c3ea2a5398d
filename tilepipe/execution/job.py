"""From an image, a model and settings to a job: the one path of all who plan and predict; knows no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, Unpack

from tilepipe.errors import DeviceError, InputError, UsageError, public
from tilepipe.events import Event, Listener, silent
from tilepipe.inference.device import resolve_device, resolve_precision
from tilepipe.models.identity import identities_held
from tilepipe.models.model import Model
from tilepipe.models.unread import open_model
from tilepipe.planning.check_settings import checked
from tilepipe.planning.global_statistics import fix_global_statistics
from tilepipe.planning.image_fit import fitting
from tilepipe.planning.memory import HEAPS, Needs, promises
from tilepipe.planning.plan import Left, Plan
from tilepipe.planning.planner import make_plan
from tilepipe.planning.receptive_field import Known, measure_receptive_field
from tilepipe.planning.reduced_halo import reduced_halo
from tilepipe.planning.region import image_data, on_prediction_grid, resolve_region
from tilepipe.planning.resolution import predicted_shape, with_model_bands
from tilepipe.planning.settings import Settings, check_numbers, compute_of
from tilepipe.planning.tile_size import choose_tile, with_workers
from tilepipe.planning.wanted import Wanted
from tilepipe.products.formats import refuse_unknown
from tilepipe.sources.base import Source
from tilepipe.sources.foreign import Arrayed, Plain
from tilepipe.sources.open import chosen, open_source
from tilepipe.tiling.grid import Grid

Image: TypeAlias = "str | Path | Source | Plain | Arrayed"
"""What may stand for an image: a path, a source, or a numpy, dask, torch, zarr or xarray array."""
NODATA, FAIL = "nodata", "fail"


@dataclass(frozen=True)
class Job:
    """What a process needs to work on a run; picklable."""

    plan: Plan
    """What is computed."""
    source: Source
    """The image on the prediction grid, valid where it holds image data: what the model sees."""
    model: Model
    """The model."""
    wanted: Wanted
    """Which pixels get a label."""
    directory: Path | None = None
    """Work directory of the run, holding run.zarr; None for a region in memory."""
    on_tile_error: str = NODATA
    """What a tile that cannot be read or predicted does: 'nodata' leaves its pixels without a label, 'fail' stops."""


def make_job(
    full: Source, model: Model, settings: Settings, known: Known | None = None, listener: Listener = silent
) -> Job:
    """Return the job for what is asked of an image at full resolution, every open choice made. Nothing is run.

    `known` is what `measure_receptive_field` would find, where the caller need not have it measured.

    Raises `InputError`, `ModelError`, `UsageError` or `DeviceError`.
    """
    check_numbers(settings)
    fit = () if known else tuple(str(finding) for finding in fitting(full, model.card, settings))
    for text in fit:
        listener(Event("plan", message=text))
    known = known or measure_receptive_field(model, listener)
    (card, reach), statistics = fix_global_statistics(model, known, full, settings)
    asked, area = resolve_region(full, card, settings)
    for finding in asked.notes:
        listener(Event("plan", message=str(finding)))
        fit += (str(finding),)
    image = image_data(full, asked.mask)
    device = resolve_device(settings.get("device", "auto"))
    settings = {**settings, "precision": resolve_precision(settings.get("precision", "auto"), device, model)}
    if statistics:
        settings = {**settings, "window_shape": "crop"}
    compute, tolerance = compute_of(settings, device), 0.0
    shape = predicted_shape(full, card, settings.get("pixel_size"))
    windows = statistics.windows(shape, card.stride) if statistics and statistics.kind == "field" else None
    needs = _needs(model, sum(statistics.values) if statistics else 0, windows, compute.dtype)
    settings, why = choose_tile(model, card, full, settings, compute, needs)
    if not statistics:
        settings, tolerance = reduced_halo(model, card, image, settings, device)
    made = make_plan(full, card, asked, settings, device=device, needs=needs)
    made = replace(made, reach=replace(reach, tolerance=tolerance), statistics=statistics, why=why, fit=fit)
    made = replace(made, left=left_of(Wanted(image, made, area)), holes=not getattr(image, "complete", False))
    wanted = Wanted(image, made, area)
    return Job(made, on_prediction_grid(image, made), model, wanted, on_tile_error=_on_tile_error(settings))


@public
@identities_held()
def plan(source: Image, model: str | Path | Model, **settings: Unpack[Settings]) -> Plan:
    """Return what `segment` would do: tiles, blocks, memory, disk, and what is known about seams.

    Nothing is labelled and nothing is written beside the image. A model that was not measured before is measured, and
    the result is kept in the cache directory.

    Args:
        source: The image: a path, a `Source`, or an array of shape (bands, height, width) or (height, width).
        model: The name of a bundled model, the path of a model, or a `Model`.
        **settings: See `Settings`. They have the names of the command line's options.

    Returns:
        The plan. `print(plan)` shows it as a table; sizes are in pixels, memory is in bytes.

    Raises:
        TilepipeError: As `segment` does, for everything that can be known before a run.

    Example:
        >>> import tilepipe as tp
        >>> plan = tp.plan("pipelines/sample/Amazon_24_20.tif", "forest", tile=256)
        >>> plan.tile_count, plan.exact
        (9, True)
    """
    return job_of(source, model, settings)[0].plan


def job_of(
    source: Image, model: str | Path | Model, settings: Settings, listener: Listener = silent
) -> tuple[Job, Source]:
    """Return the job, on the prediction grid, and the source at full resolution."""
    settings = checked(settings)
    refuse_unknown(settings.get("of", ()))
    model, full = opened(source, model, settings)
    return make_job(full, model, settings, listener=listener), full


def opened(source: Image, model: str | Path | Model, settings: Settings) -> tuple[Model, Source]:
    """Return the model and the image at full resolution, with the bands that the model reads."""
    model = model if isinstance(model, Model) else open_model(model, trust_model=settings.get("trust_model"))
    image = open_source(source, **chosen(settings))
    return model, with_model_bands(image, model.card, settings)


def _on_tile_error(settings: Settings) -> str:
    asked = settings.get("on_tile_error", NODATA)
    if asked not in (NODATA, FAIL):
        raise UsageError(f"on_tile_error {asked!r} is not known; use {NODATA} or {FAIL}")
    return asked


def left_of(wanted: Wanted) -> Left | None:
    """Return what the area leaves to compute. Raises `InputError` where that is nothing."""
    left = wanted.left()
    if left is not None and not left.tiles:
        tissue, box = wanted.plan.mask.startswith("tissue"), wanted.plan.region
        what = "no tissue was found" if tissue else "no pixel's centre lies in the polygons"
        raise InputError(
            f"nothing of {wanted.image.name} is left to label: {what}, in rows {box.y0} to {box.y1}, "
            f"columns {box.x0} to {box.x1}; name a larger area, or leave the mask out"
        )
    return left


def kept_job(full: Source, model: Model, settings: Settings, plan: Plan) -> Job:
    """Return the job of a plan that a run has kept: its choices hold, whatever would be chosen today.

    Worker processes are those asked for now. Raises `DeviceError` where the plan's device is not there, `UsageError`
    where so many workers do not keep within `memory`.
    """
    try:
        resolve_device(plan.compute.device)
    except DeviceError as error:
        raise DeviceError(
            f"the run that was interrupted computes on {plan.compute.device}: {error}. Go on where that device is, or "
            "name another one with --device, which begins anew"
        ) from None
    card = model.card.model_copy(update={"halo": plan.tiling.halo, "stride": plan.tiling.stride})
    _, area = resolve_region(full, card, settings)
    plan = replace(plan, source=full.name, model=card.name)
    if (settings.get("workers") or 0) != plan.compute.workers:
        compute = replace(plan.compute, workers=settings.get("workers") or 0)
        promise = promises(full, card, settings, compute, _needs_of(plan, model), plan.region)
        plan = with_workers(plan, compute, promise, settings.get("memory"))
    image = image_data(full, plan.mask)
    wanted = Wanted(image, plan, area)
    return Job(plan, on_prediction_grid(image, plan), model, wanted, on_tile_error=_on_tile_error(settings))


def _needs_of(plan: Plan, model: Model) -> Needs:
    windows = plan.windows if plan.statistics and plan.statistics.kind == "field" else None
    return _needs(model, sum(plan.statistics.values) if plan.statistics else 0, windows, plan.compute.dtype)


def _needs(model: Model, values: int, windows: Grid | None, dtype: str) -> Needs:
    """Return what a model takes in memory with so many statistics put in, and taking those of `windows`."""
    if model.facts is not None and not values and dtype == "float32":
        return Needs(model.facts.weights, model.facts.peak)
    from tilepipe.inference.profile.footprint import footprint

    live = Needs(*footprint(model, dtype=dtype))
    if not values:
        return live
    pixels = math.prod(windows.tile_shape) if windows else 0
    return Needs(*footprint(model, values=values, dtype=dtype), window=live.tile, windows=pixels, heaps=HEAPS)
