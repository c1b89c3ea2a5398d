"""Choice of the tile size: larger tiles compute less context twice; they are taken where that pays and memory allows.

The choice depends on the whole image, the model, the settings and the speeds that were measured once and kept, never
on the region or the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tilepipe.box import Sides
from tilepipe.errors import UsageError
from tilepipe.inference.device import Compute
from tilepipe.inference.profile.speed import Speeds, speeds, takes
from tilepipe.models.card import ModelCard
from tilepipe.planning.memory import Needs, Promise, limit_of, parse_bytes, promises
from tilepipe.planning.resolution import check_fits, predicted_shape
from tilepipe.planning.settings import MAX_COST, Settings, check_numbers
from tilepipe.sources.base import Source
from tilepipe.tiling.tiling import Tiling, cost_factor

if TYPE_CHECKING:
    from tilepipe.models.model import Model
from tilepipe.planning.memory import Memory, format_bytes
from tilepipe.planning.plan import Plan
from tilepipe.tiling.weights import PROFILES

DEFAULT_TILE = 512
LARGEST_TILE = 2048
"""Pixels above which a tile is not chosen for the sake of an exact overlap, unless the tolerance is 0."""
BLOCK = 1024
"""Wanted size of a block in pixels."""

WORTH = 8_000_000
"""Pixels of an image from which on the speed is measured; on smaller ones little can be won."""
CLEARLY = 0.95
"""Share of the time that a larger tile may take to be preferred: less is no noise."""
ROOM = 2 << 30
"""Bytes of the promise for one process, without an image that lies in memory, up to which larger tiles are taken, where
no `memory` is set."""
LEAST = 256
"""Pixels below which no tile is made for the sake of memory where the model's reach is not known."""
UNIT = 32
"""Pixels at least between the sizes that are compared."""
RATIOS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""Sizes over the usual one whose speed is measured, as far as they fit; in between it is interpolated."""


@dataclass(frozen=True)
class Cut:
    """Tiles of one size after another on one image."""

    usual: Tiling
    """With the usual size."""
    shape: tuple[int, int]
    """(height, width) of the prediction grid."""
    promise: Promise
    """Memory of a tiling."""

    def of(self, tile: int) -> Tiling:
        """Return the tiling with another tile size and the same overlap."""
        return replace(self.usual, tile=tile)

    def work(self, tile: int) -> float:
        """Return F: pixels that the model sees, edges and all, over those of the image."""
        grid = self.of(tile).grid(self.shape)
        return grid.y.count * grid.y.tile * grid.x.count * grid.x.tile / math.prod(self.shape)


def choose_tile(
    model: Model, card: ModelCard, source: Source, settings: Settings, compute: Compute, needs: Needs
) -> tuple[Settings, str]:
    """Return settings with the tile size decided, and why in a few words; as they are where the user decided it.

    Only tiles that do not change a label are larger than the usual one: those of a model with a known reach and an
    overlap of twice that. Smaller ones are made where `memory` leaves no room. Raises `UsageError`.
    """
    if settings.get("tile", "auto") != "auto":
        return settings, ""
    check_numbers(settings)
    check_fits(source, card)
    usual = choose_tiles(card, settings)
    shape = predicted_shape(source, card, settings.get("pixel_size"))
    limit = limit_of(settings)
    many = promises(source, card, settings, compute, needs)
    if limit is not None and not _fits(many, replace(usual, block=usual.tile), limit):
        tile = _smaller(usual, card, settings, lambda cut: _fits(many, cut, limit) and takes(model, cut.tile, compute))
        return {**settings, "tile": tile}, f"tile {tile}: the largest for the memory given"
    one = promises(source, card, settings, replace(compute, workers=0), needs)
    cut = Cut(usual, shape, many if limit is not None else one)
    tile, why = _larger(model, cut, ROOM + one(usual).image if limit is None else limit, compute)
    return {**settings, "tile": tile}, why


def _fits(promise: Promise, tiling: Tiling, limit: int) -> bool:
    return promise(tiling).total <= limit


def _smaller(usual: Tiling, card: ModelCard, settings: Settings, fits: Callable[[Tiling], bool]) -> int:
    """Return the largest tile size below the usual one that fits; the least that is tried where none does."""
    most = math.inf if settings.get("tolerance") == 0 else settings.get("max_cost", MAX_COST)
    least = usual
    for tile in range(usual.tile - usual.stride, 0, -usual.stride):
        halo = usual.halo
        if tile < LEAST if halo is None else cost_factor(tile, Sides(halo, halo, halo, halo)) > most:
            break
        try:
            least = choose_tiles(card, {**settings, "tile": tile})
        except UsageError:  # too small for the overlap that the user gave
            break
        if fits(replace(least, block=tile)):
            break
    return least.tile


def _larger(model: Model, cut: Cut, room: int, compute: Compute) -> tuple[int, str]:
    """Return the smallest tile size that no larger one clearly beats, and why."""
    usual, stride = cut.usual.tile, cut.usual.stride
    reason = ""
    unit = -(-UNIT // stride) * stride
    fitting = [tile for tile in range(usual, LARGEST_TILE + 1, unit) if _fits(cut.promise, cut.of(tile), room)]
    chosen = usual
    if _matters(cut) and fitting and min(map(cut.work, fitting)) <= CLEARLY * cut.work(usual):
        tried = {usual + round((ratio - 1) * usual / unit) * unit for ratio in RATIOS}
        found = speeds(model, (usual, *sorted(tried.intersection(fitting))), compute)
        time = times(cut, fitting, found)
        for tile in time:
            chosen = tile if time[tile] < CLEARLY * time[chosen] else chosen
        reason = ", larger ones are not clearly faster" if len(time) > 1 else ", larger ones take too long to measure"
        if chosen > usual:
            reason = f", {time[chosen] / time[usual]:.2f} of the time of tile {usual}"
    return chosen, f"tile {chosen}: {cut.work(chosen):.2f} x one pass{reason}"


def _matters(cut: Cut) -> bool:
    """Return whether the size may be changed without changing a label, and the image is large enough to gain by it."""
    how = cut.usual
    exact = how.window == "crop" and how.halo is not None and how.overlap >= 2 * how.halo
    return exact and max(cut.shape) > how.tile and math.prod(cut.shape) >= WORTH


def times(cut: Cut, sizes: Sequence[int], found: Speeds) -> dict[int, float]:
    """Return seconds per pixel of the image by tile size in ascending order: work, at the speed measured around it.

    Sizes beyond those measured are left out.
    """
    known = sorted(found)
    return {
        size: cut.work(size) * float(np.interp(size, known, [found[k] for k in known]))
        for size in sorted(sizes)
        if known and known[0] <= size <= known[-1]
    }


def tile_size(card: ModelCard, settings: Settings) -> int:
    """Return the tile size asked for, or one that keeps the cost of an exact overlap to that of half a tile."""
    stride, asked = card.stride, _number(settings.get("tile", "auto"))
    usual = -(-(card.tile or DEFAULT_TILE) // stride) * stride
    exact, largest = 4 * (card.halo or 0), max(usual, LARGEST_TILE // stride * stride)
    return asked or max(usual, exact if settings.get("tolerance") == 0 else min(exact, largest))


def choose_tiles(card: ModelCard, settings: Settings) -> Tiling:
    """Return tile, overlap and window shape, each as asked for or chosen from the model card. Raises `UsageError`."""
    stride, halo = card.stride, card.halo
    tile = tile_size(card, settings)
    overlap = _number(settings.get("overlap", "auto"))
    if overlap is None:
        overlap = 2 * halo if halo is not None else tile // 2 // stride * stride
    window = settings.get("window_shape", "auto")
    if window == "auto":
        window = "crop" if halo is not None and overlap >= 2 * halo else "gaussian"
    if window == "crop" and settings.get("overlap", "auto") == "auto":
        overlap = overlap // (2 * stride) * 2 * stride  # half of it on each side
    tiling = Tiling(tile, overlap, window, stride, halo, settings.get("block") or BLOCK)
    _check(tiling)
    return tiling


def _number(setting: int | str) -> int | None:
    return int(setting) if setting != "auto" else None


def _check(cut: Tiling) -> None:
    if cut.window not in ("crop", *PROFILES):
        raise UsageError(f"window shape {cut.window!r} is not known; use auto, crop, {', '.join(sorted(PROFILES))}")
    _check_multiple("tile", cut.tile, cut.stride, "the model's total stride")
    twice = 2 if cut.window == "crop" else 1
    least = -(-cut.overlap * 32 // (31 * cut.stride)) * cut.stride
    most = cut.tile * 31 // 32 // (twice * cut.stride) * twice * cut.stride
    if cut.overlap > most:
        raise UsageError(
            f"overlap {cut.overlap} leaves too little of tile {cut.tile}; "
            f"use an overlap of at most {most} or a tile of at least {least}"
        )
    _check_multiple("overlap", cut.overlap, twice * cut.stride, f"{twice} x the model's total stride", least=0)


def _check_multiple(name: str, size: int, unit: int, what: str, least: int = 1) -> None:
    if size < least or size % unit:
        below, above = size // unit * unit, (size // unit + 1) * unit
        use = f"{below} or {above}" if below >= least else str(max(above, least * unit))
        raise UsageError(f"{name} {size} is not a multiple of {unit} ({what}); use {use}")


def with_workers(plan: Plan, compute: Compute, promise: Promise, limit: str | int | None) -> Plan:
    """Return a plan for another number of worker processes. Raises `UsageError` where `limit` cannot be kept so."""
    memory = promise(plan.tiling)
    if limit is not None and memory.total > parse_bytes(limit):
        raise UsageError(
            f"memory {format_bytes(parse_bytes(limit))} cannot be kept by the run that was interrupted with "
            f"{compute.workers} worker processes, which take {format_bytes(memory.total)}; give fewer --workers"
        )
    return replace(plan, compute=compute, memory=memory)


def fit_memory(card: ModelCard, settings: Settings, promise: Promise) -> tuple[Tiling, Memory]:
    """Return the tiling and its memory promise, with smaller blocks where the `memory` setting asks for it."""
    tiling = choose_tiles(card, settings)
    limit = limit_of(settings)
    while (memory := promise(tiling)).total > (limit or math.inf):
        if tiling.block <= tiling.tile:
            raise UsageError(
                f"memory {format_bytes(limit or 0)} cannot be kept: the least for tiles of {tiling.tile} px and "
                f"{settings.get('workers') or 0} worker processes is {format_bytes(memory.total)}; "
                "give that much, a smaller --tile or fewer --workers"
            )
        tiling = replace(tiling, block=max(tiling.tile, tiling.block // 2))
    return tiling, memory
