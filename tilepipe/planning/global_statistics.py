"""This module decides if a run fixes the statistics of a model's global operations, and where these come from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tilepipe.box import Sides
from tilepipe.errors import ModelError, TilepipeError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.models.probe.result import Probe, ProbeError
from tilepipe.planning.band_tiling import can_be_banded
from tilepipe.planning.receptive_field import MEASURED, Known, Reach, named_layers
from tilepipe.planning.settings import Request
from tilepipe.planning.tile_size import tile_size
from tilepipe.text import setting
from tilepipe.tiling.statistics_grid import Statistics
from tilepipe.tiling.tiling import cost_factor

if TYPE_CHECKING:
    from tilepipe.models.model import Model

PATCH = 256
"""Side of a patch (pixels) if the card does not say on which crops the model was trained."""


def fix_global_statistics(
    model: Model, known: Known, shape: tuple[int, int], request: Request
) -> tuple[Known, Statistics | None]:
    """Return card and reach as they are with fixed statistics, and the source of these; None if they are not fixed.

    `known` is what `measure_receptive_field` found, `shape` is the shape (height, width) of the prediction grid. 'auto'
    fixes the statistics if the image is cut, every global operation can be replaced and the context costs no more than
    `max_cost`; 'field' and 'whole' insist. Raises `UsageError` if the statistics cannot be fixed.
    """
    wanted, crop = request.statistics, request.window_shape in ("auto", "crop")
    # A field is right only with crop windows that have the whole reach as context, so 'auto' leaves it to those who
    # chose neither overlap nor window.
    own = request.overlap is not None or not crop
    (card, reach), insists = known, wanted in ("field", "whole")
    # A model that has a halo mixes nothing over the whole image, as far as is known, so there is nothing to fix.
    if wanted == "tile" or card.halo is not None or (own and not insists):
        return known, None
    if not crop:
        given = setting(window_shape=request.window_shape)
        raise UsageError(f"{setting(statistics=wanted)} needs crop windows, not {given}")
    try:
        found, values = _operations(model, request.tta)
    except TilepipeError as problem:
        if insists:
            raise UsageError(f"statistics {wanted} is not possible for {model.name}: {problem}") from None
        # If the model could not be measured, the reach in `known` gives this reason already.
        return known if isinstance(problem, ProbeError) else (card, _explained(reach, problem)), None
    if not values:
        return known, None
    frozen = found.frozen_halo
    assert frozen is not None
    # Tiles have the same overlap on all sides, so the side with the largest reach decides.
    fixed = card.model_copy(update={"stride": found.stride, "halo": max(frozen)})
    tile, size = tile_size(fixed, request), max(shape)
    if not insists and size <= tile_size(card, request):
        return known, None  # one tile covers the image, so nothing is cut
    # Patches are tiles of a grid of their own, so their side must be a multiple of the stride too.
    patch = -(-_patch_side(card) // fixed.stride) * fixed.stride
    chosen = Statistics("field", patch, values) if wanted != "whole" else Statistics("whole", 0, values)
    if not insists and size > tile:
        # With the statistics fixed the model sees as far as its convolutions, so its tiles need all of this context.
        cost = cost_factor(tile, Sides(*4 * (max(frozen),)))
        cut = request.tile is not None or request.grid != "image"  # into tiles, by the user
        if cost > request.max_cost and (cut or not can_be_banded(model, fixed, request, chosen)):
            takes = f"take {cost:.1f} times the work of one pass" if math.isfinite(cost) else "leave no tile a core"
            return (card, _explained(reach, f"holding that fixed would {takes}")), None
    return (fixed, Reach(found.frozen_reach, MEASURED, frozen=named_layers(found))), chosen


def _explained(reach: Reach, why: object) -> Reach:
    """Return the reach together with the reason why the statistics of its global layers are not fixed."""
    return replace(reach, known=f"{reach.known}; {why}")


def _operations(model: Model, tta: str) -> tuple[Probe, tuple[int, ...]]:
    """Return the probe of a model and the number of statistics of each global operation; a local model has none.

    Raises `ProbeError` if the model cannot be measured, `ModelError` if its operations cannot be replaced.
    """
    # This import opens torch, which a plan with a bundled model does without (tests/promises/test_light_imports.py).
    from tilepipe.models.probe.certificate_file import known_probe

    if model.members:
        raise ModelError("statistics are not fixed for the mean of several models")
    try:
        found = known_probe(model)
    except TilepipeError as problem:
        raise ProbeError(str(problem)) from None
    except Exception as problem:  # a foreign module may raise anything for the unusual input of a probe
        raise ProbeError(f"it cannot be measured ({type(problem).__name__} in the model)") from None
    if found.local:
        return found, ()
    if tta != "none":
        # Statistics that are put in lie at places of the tile, and a turned tile would get them at the wrong ones.
        raise ModelError(f"statistics are not fixed for the turned tiles of {setting(tta=tta)}")
    from tilepipe.inference.statistics.trial import operations

    return found, operations(model.module, model.card.bands, found)


def _patch_side(card: ModelCard) -> int:
    """Return twice the side (pixels) of the crops that a model was trained on: one crop gives statistics too noisy."""
    record = card.training.get("configuration")
    crop = record.get("crop") if isinstance(record, dict) else None
    # The record in a card is free: another program may have written anything under this name.
    return 2 * crop if isinstance(crop, int) and crop > 0 else PATCH
