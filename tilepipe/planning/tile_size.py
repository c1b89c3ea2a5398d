"""This module chooses the tile size. Larger tiles repeat less context; they are taken if that pays and memory allows.

The choice depends on the whole image, the model, the settings, and speeds that were measured once and kept. It never
depends on the region or the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tilepipe.box import Sides
from tilepipe.errors import UsageError
from tilepipe.inference.profile.speed import Speeds, speeds, takes
from tilepipe.models.card import ModelCard
from tilepipe.planning.memory import Load, Memory, format_bytes
from tilepipe.planning.settings import Request
from tilepipe.tiling.tiling import Tiling, cost_factor

if TYPE_CHECKING:
    from tilepipe.models.model import Model

DEFAULT_TILE = 512
LARGEST_TILE = 2048
"""Largest side of a tile that is chosen to make an exact overlap cheap (pixels). Tolerance 0 has no such limit."""

WORTH = 8_000_000
"""Number of pixels of an image from which on the speed is measured; smaller images gain little."""
CLEARLY = 0.95
"""Fraction of the smaller tile's time below which a larger tile is chosen; smaller gains are within measurement
noise."""
ROOM = 2 << 30
"""Memory promise of one process, without an image that lies in memory, up to which larger tiles are taken if no
`memory` is set (bytes)."""
LEAST = 256
"""Smallest side of a tile that is made to save memory if the model's reach is not known (pixels)."""
UNIT = 32
"""Smallest step between the sizes that are compared (pixels)."""
RATIOS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""Tile sizes whose speed is measured if they fit, as multiples of the usual size; speeds in between are
interpolated."""


@dataclass(frozen=True)
class Cut:
    """Tilings of one image that differ in their tile size only."""

    usual: Tiling
    """Tiling with the usual tile size."""
    load: Load
    """Everything besides the tiling that decides the memory."""

    def of(self, tile: int) -> Tiling:
        """Return the tiling with another tile size and the same overlap."""
        return replace(self.usual, tile=tile)

    def work(self, tile: int) -> float:
        """Return F: the pixels that the model sees, edges included, over the pixels of the image."""
        grid = self.of(tile).grid(self.load.predicted)
        return grid.y.count * grid.y.tile * grid.x.count * grid.x.tile / math.prod(self.load.predicted)


def choose_tiling(model: Model, card: ModelCard, request: Request, load: Load) -> tuple[Tiling, str]:
    """Return the tiling, and a short reason for its tile size; the reason is '' if the user decided the size.

    A tile larger than usual is chosen only if no label changes: the model's reach is known, and the overlap is twice
    the reach. Smaller tiles are chosen if `memory` is too small. Raises `UsageError`.
    """
    usual, limit = usual_tiling(card, request), request.memory
    if request.tile is not None:
        return usual, ""
    check_tiling(usual)
    if limit is None:  # the limit must not depend on the number of processes
        load = replace(load, compute=replace(load.compute, workers=0))
        # This is a fixed number and not a share of the free memory: the same command must choose the same tiles
        # tomorrow.
        return _larger(model, Cut(usual, load), ROOM + load.promise(usual).image)
    if _fits(load, usual, limit):
        return _larger(model, Cut(usual, load), limit)
    smaller = _smaller(model, card, request, load, limit)
    return smaller, f"tile {smaller.tile}: the largest for the memory given"


def _fits(load: Load, tiling: Tiling, limit: int) -> bool:
    """Return whether a tiling with the smallest blocks takes at most `limit` bytes."""
    # Smaller blocks change no label, so they are made smaller before tiles are.
    return load.promise(replace(tiling, block=tiling.tile)).total <= limit


def _smaller(model: Model, card: ModelCard, request: Request, load: Load, limit: int) -> Tiling:
    """Return the tiling with the largest tiles below the usual size that fit; if none fit, the smallest tiles tried."""
    most, halo = math.inf if request.tolerance == 0 else request.max_cost, card.halo
    least = usual_tiling(card, request)
    for tile in range(least.tile - card.stride, 0, -card.stride):
        # With a known halo the cost tells when tiles are too small; without one nothing does, so a fixed size ends the
        # search.
        if tile < LEAST if halo is None else cost_factor(tile, Sides(halo, halo, halo, halo)) > most:
            break
        try:
            check_tiling(smaller := usual_tiling(card, replace(request, tile=tile)))
        except UsageError:  # the tile is too small for the overlap that the user gave
            break
        least = smaller
        # Some models take only tiles of certain sizes (a file with a fixed input, for example); a size is tried before
        # it is chosen.
        if _fits(load, least, limit) and takes(model, tile, load.compute):
            break
    return least


def _larger(model: Model, cut: Cut, room: int) -> tuple[Tiling, str]:
    """Return the tiling with the smallest tiles that no larger tiles clearly beat, and the reason for this size."""
    usual, stride = cut.usual.tile, cut.usual.stride
    reason = ""
    unit = -(-UNIT // stride) * stride
    sizes = range(usual, LARGEST_TILE + 1, unit) if _matters(cut) else ()
    fitting = [tile for tile in sizes if cut.load.promise(cut.of(tile)).total <= room]
    chosen = usual
    # Measuring takes seconds, so the code first checks whether even the least work could pay.
    if fitting and min(map(cut.work, fitting)) <= CLEARLY * cut.work(usual):
        tried = {usual + round((ratio - 1) * usual / unit) * unit for ratio in RATIOS}
        found = speeds(model, (usual, *sorted(tried.intersection(fitting))), cut.load.compute)
        time = times(cut, fitting, found)
        for tile in time:
            # Each step must clearly beat the one before: otherwise noise in the clock would choose another size on
            # every machine.
            chosen = tile if time[tile] < CLEARLY * time[chosen] else chosen
        reason = ", larger ones are not clearly faster" if len(time) > 1 else ", larger ones take too long to measure"
        if chosen > usual:
            reason = f", {time[chosen] / time[usual]:.2f} of the time of tile {usual}"
    return cut.of(chosen), f"tile {chosen}: {cut.work(chosen):.2f} x one pass{reason}"


def _matters(cut: Cut) -> bool:
    """Return whether the size may change without changing a label, and the image is large enough to gain by it."""
    how = cut.usual
    exact = how.window == "crop" and how.halo is not None and how.overlap >= 2 * how.halo
    return exact and max(cut.load.predicted) > how.tile and math.prod(cut.load.predicted) >= WORTH


def times(cut: Cut, sizes: Sequence[int], found: Speeds) -> dict[int, float]:
    """Return the seconds per pixel of the image by tile size, in ascending order: the work over the measured speed.

    Sizes beyond the measured ones are left out.
    """
    known = sorted(found)
    return {
        size: cut.work(size) * float(np.interp(size, known, [found[k] for k in known]))
        for size in sorted(sizes)
        if known and known[0] <= size <= known[-1]
    }


def tile_size(card: ModelCard, request: Request) -> int:
    """Return the tile size asked for, or a size that makes an exact overlap cost no more than an overlap of half a
    tile."""
    stride = card.stride
    usual = -(-(card.tile or DEFAULT_TILE) // stride) * stride
    # A tile of four halos overlaps its neighbour by half, which costs four passes: what max_cost accepts by default.
    exact, largest = 4 * (card.halo or 0), max(usual, LARGEST_TILE // stride * stride)
    return request.tile or max(usual, exact if request.tolerance == 0 else min(exact, largest))


def usual_tiling(card: ModelCard, request: Request) -> Tiling:
    """Return the tile, overlap and window shape as asked for, or as usual for the model card; they are not checked."""
    stride, halo = card.stride, card.halo
    tile, overlap, window = tile_size(card, request), request.overlap, request.window_shape
    if overlap is None:
        overlap = 2 * halo if halo is not None else tile // 2 // stride * stride
    if window == "auto":
        window = "crop" if halo is not None and overlap >= 2 * halo else "gaussian"
    if window == "crop" and request.overlap is None:
        overlap = overlap // (2 * stride) * 2 * stride  # half of the overlap lies on each side
    return Tiling(tile, overlap, window, stride, halo, request.block)


def check_tiling(cut: Tiling) -> None:
    """Raise `UsageError` if an image cannot be cut with this tiling."""
    _check_multiple("tile", cut.tile, cut.stride, "the model's total stride")
    twice = 2 if cut.window == "crop" else 1
    # At least a 32nd of a tile must be new. With less, a pixel would lie under more than a thousand tiles.
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


def fit_memory(tiling: Tiling, load: Load, limit: int | None) -> tuple[Tiling, Memory]:
    """Return the tiling and its memory promise; blocks are smaller if the limit asks for it. Raises `UsageError`."""
    if tiling.columns is None:  # a column that spans the image may be narrower than its overlap
        check_tiling(tiling)
    while (memory := load.promise(tiling)).total > (limit or math.inf):
        if tiling.columns or tiling.block <= tiling.tile:
            raise UsageError(
                f"memory {format_bytes(limit or 0)} cannot be kept: the least for tiles of {tiling.tile} px and "
                f"{load.compute.workers} worker processes is {format_bytes(memory.total)}; "
                "give that much, a smaller `tile` or fewer `workers`"
            )
        # Smaller blocks change no label; smaller tiles could.
        tiling = replace(tiling, block=max(tiling.tile, tiling.block // 2))
    return tiling, memory
