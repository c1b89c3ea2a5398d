"""This module makes a `Plan` from an image, a model and a request. It makes every choice the user left open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, Unpack

from tilepipe.errors import DeviceError, UsageError, public
from tilepipe.events import Listener, silent
from tilepipe.inference.device import resolve_device
from tilepipe.inference.profile.known_models import open_known
from tilepipe.inference.runtimes.base import refuse_missing
from tilepipe.models.card import ModelCard
from tilepipe.models.identity import identities_held
from tilepipe.models.model import Model
from tilepipe.models.unread import AnyModel
from tilepipe.planning.band_tiling import in_bands, work_of
from tilepipe.planning.earlier_choices import choices_of
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.fit_table import with_machine
from tilepipe.planning.global_statistics import fix_global_statistics
from tilepipe.planning.image_fit import check_fit
from tilepipe.planning.layout import Layout
from tilepipe.planning.memory import Load, format_bytes, needs_of
from tilepipe.planning.plan import Plan
from tilepipe.planning.receptive_field import Known, measure_receptive_field
from tilepipe.planning.reduced_halo import reduced_halo
from tilepipe.planning.region import image_data, on_prediction_grid, resolve_region
from tilepipe.planning.resolution import grids_of, on_world_grid, refuse_off_world, with_model_bands, world_row
from tilepipe.planning.runtime import Chosen, choose_runtime
from tilepipe.planning.settings import Request, Settings
from tilepipe.planning.signature import with_settings
from tilepipe.planning.tile_size import check_tiling, choose_tiling, fit_memory, usual_tiling
from tilepipe.planning.wanted import Wanted
from tilepipe.sources.array import ArraySource
from tilepipe.sources.bands import Picked
from tilepipe.sources.base import Source
from tilepipe.sources.foreign import Arrayed, Plain
from tilepipe.sources.mask import Mask
from tilepipe.sources.open import open_source, place_of
from tilepipe.sources.world_grid import Anchored, without_canvas
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import setting
from tilepipe.tiling.tiling import Tiling
from tilepipe.tiling.uncertainty import INFORMATION, check_blended, probability_names

MOST_CLASSES = 255
"""Largest number of classes whose probabilities are kept."""

Image: TypeAlias = "str | Path | Sequence[str | Path] | Source | Plain | Arrayed"
"""What may stand for an image: a path, a list of paths, a source, or a numpy, dask, torch, zarr or xarray array."""


@with_settings(Settings)
@public
@identities_held()
def plan(source: Image, model: AnyModel, **settings: Unpack[Settings]) -> Plan:
    """Return what `segment` would do: tiles, blocks, memory, disk, and what is known about seams.

    Nothing is labelled and nothing is written beside the image. If the model was not measured before, it is measured
    now, and the result is kept in the cache directory.

    Args:
        source: The image: a path, a `Source`, or an array of shape (bands, height, width) or (height, width).
        model: The name of a bundled model, the path of a model, a `Model`, or a list of these, which are averaged.
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
    request = Request.of(settings)
    model, image = opened(source, model, request)
    # A plan has no output yet, so the disk of the image stands for it, where the output goes if nothing else is said.
    place = place_of(image)
    beside = place.parent if place is not None and place.parent.is_dir() else None
    made = with_machine(make_plan(image, model, request)[0], model, beside)
    if request.since:
        said = "how many blocks are taken from earlier labels shows when the image is read: tilepipe segment --dry-run"
        made = replace(made, fit_table=(*made.fit_table, FitRow("since", "note", said)))
    return made


def opened(source: Image, model: AnyModel, request: Request) -> tuple[Model, Source]:
    """Return the model and the image at full resolution, with the bands that the model reads."""
    model = open_known(model, request.tta, trust_model=request.trust_model)
    asked = {"scene": request.scene, "z": request.z, "t": request.t, "driver": request.driver}
    image = open_source(source, **asked, allow=request.allow)
    if isinstance(inside := unwrapped(image), ArraySource):
        inside.forget()  # a source of the caller's may have been used before, and chunks are kept for one call only
    image = with_model_bands(image, model.card, request)
    return model, image if request.grid == "image" else on_world_grid(image, request)


def make_plan(
    image: Source,
    model: Model,
    request: Request,
    known: Known | None = None,
    listener: Listener = silent,
    like: Plan | None = None,
) -> tuple[Plan, Mask | None]:
    """Return the plan of a request for an image at full resolution, and the area that gets a label (None: all).

    What is not yet known of the model on this machine is measured: its receptive field (not measured if `known` is
    given), the speed of larger tiles, and the error of less context. Nothing is labelled. The choices of an earlier
    plan `like` are taken if they can be (see `choices_of`): they depend on the size of its image.

    Raises `InputError`, `ModelError`, `UsageError` or `DeviceError`.
    """
    grids = grids_of(image, model.card, request)
    refuse_off_world(image, model.card, grids)
    # Only the validation of a training brings `known`. It plans many times for images that the training has checked
    # itself.
    brought = known is not None
    fit = () if known else check_fit(without_canvas(image), model.card, request, grids.resolution)
    known = known or measure_receptive_field(model, listener)
    # This comes before the region, because a tissue mask grows by the model's context.
    (card, reach), statistics = fix_global_statistics(model, known, grids.predicted, request)
    if statistics and isinstance(image, Anchored):
        raise UsageError(
            f"model {card.name} has norms or poolings over the whole image, which differ from image to image; with "
            f"{setting(grid='world')} take them from each tile: {setting(statistics='tile')}"
        )
    asked, area = resolve_region(image, card, request, grids)
    data, compute, tolerance = image_data(image, asked.mask), request.compute(model), 0.0
    needs = needs_of(model, compute.dtype, statistics, grids.predicted, card.stride)
    load = Load(image, card, grids.predicted, compute, needs, _kept(card, request))
    if statistics:  # Fixed statistics are put in only for tiles whose context is cut off.
        request = replace(request, window_shape="crop")
    seen = on_prediction_grid(data, grids.predicted)
    if like and (held := choices_of(like, model, request, load)):
        (tiling, load), why, chosen = held, like.why, Chosen(held[1].compute, agreement=like.agreement)
    else:
        banded = in_bands(model, reach, request, usual_tiling(card, request), load, statistics)
        if isinstance(banded, str):
            tiling, why = choose_tiling(model, card, request, load)
            if not statistics:
                tiling, tolerance = reduced_halo(model, seen, request, tiling, compute)
            fit += (FitRow("bands", "note", banded),) if banded else ()
            check_tiling(tiling)  # a tile that the user gave may be no multiple of the stride
        else:
            (tiling, load), bands = banded, banded[0].bands
            why = f"in bands of {bands.height} rows: {work_of(tiling, load):.2f} x one pass" if bands else ""
        chosen = Chosen(compute)
        if not (brought and request.runtime == "auto"):  # the validation of a training plans small images, many times
            chosen = choose_runtime(model, request, tiling, load, seen, statistics=statistics is not None)
    load, compute = replace(load, compute=chosen.compute), chosen.compute
    # Only the memory promise may depend on the region. The choices before it must not: then a region has the tiles of
    # the whole image, and so the same labels.
    tiling, memory = fit_memory(tiling, replace(load, region=asked.region), request.memory)
    layout = Layout(grids.image, grids.predicted, grids.output, asked.region, asked.mask, tiling)
    picked: Picked = getattr(image, "picked", Picked())
    plan = Plan(
        **vars(layout), source=image.name, model=card.name, bands=image.shape[0], dtype=str(image.dtype),
        compute=compute, classes=len(card.classes), label_dtype=card.label_dtype, nodata=card.nodata, memory=memory,
        reach=replace(reach, tolerance=tolerance), layers=_layers(model, request.layers, tiling), statistics=statistics,
        probabilities=request.probabilities, tta=request.tta, picked=picked.bands, valid_band=picked.valid, why=why,
        left=Wanted(data, layout, area).left(), with_image=request.polygons.with_image,
        holes=not getattr(data, "complete", False), agreement=chosen.agreement,
        fit_table=(*fit, *chosen.rows, *world_row(image, tiling), *asked.notes),
    )  # fmt: skip
    return plan, area


def _kept(card: ModelCard, request: Request) -> tuple[str, ...]:
    """Return the names of what is kept beside the labels. Raises `UsageError` if the model lacks probabilities."""
    if not request.probabilities:
        return request.layers
    if card.output == "labels":
        raise UsageError(f"model {card.name} gives labels and no probabilities; leave probabilities out")
    if len(card.classes) > MOST_CLASSES:
        raise UsageError(
            f"model {card.name} has {len(card.classes)} classes, and probabilities are kept of at most {MOST_CLASSES}; "
            "leave probabilities out, or ask for `layers` margin and entropy, which are one band each"
        )
    return (*request.layers, *probability_names(len(card.classes)))


def _layers(model: Model, layers: tuple[str, ...], tiling: Tiling) -> tuple[str, ...]:
    """Return the layers asked for. Raises `UsageError` if the model, or this tiling, cannot give one of them."""
    card = model.card
    if INFORMATION in layers and not model.answers_often:
        raise UsageError(
            f"layer {INFORMATION} compares the answers of several models, or of one in several positions, and here is "
            f"one answer; give a list of models as `model`, or {setting(tta='d4')}, or leave the layer out"
        )
    if card.output == "labels" and layers:
        raise UsageError(
            f"model {card.name} gives labels and no probabilities, of which layers are made; leave `layers` out"
        )
    return check_blended(layers, tiling.window, tiling.overlap)


def resumed(plan: Plan, image: Source, model: Model, request: Request) -> Plan:
    """Return the kept plan of a run that is resumed: its choices hold, whatever would be chosen today.

    The number of worker processes is the one asked for now. Raises `DeviceError` if the plan's device is missing,
    `UsageError` if so many workers do not keep within `memory`.
    """
    try:
        resolve_device(plan.compute.device)
    except DeviceError as error:
        raise DeviceError(
            f"the run that was interrupted computes on {plan.compute.device}: {error}. Go on where that device is, or "
            "name another one with `device`, which begins anew"
        ) from None
    refuse_missing(plan.compute.runtime)
    # The key identifies image and model by content, since they may have been moved or renamed.
    plan = replace(plan, source=image.name, model=model.card.name, with_image=request.polygons.with_image)
    if request.workers == plan.compute.workers:
        return plan
    compute = replace(plan.compute, workers=request.workers)
    needs = needs_of(model, compute.dtype, plan.statistics, plan.predicted, plan.tiling.stride)
    memory = Load(image, model.card, plan.predicted, compute, needs, plan.kept, plan.region).promise(plan.tiling)
    if request.memory is not None and memory.total > request.memory:
        raise UsageError(
            f"memory {format_bytes(request.memory)} cannot be kept by the run that was interrupted with "
            f"{compute.workers} worker processes, which take {format_bytes(memory.total)}; give fewer `workers`"
        )
    return replace(plan, compute=compute, memory=memory)
