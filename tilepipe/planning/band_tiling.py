"""This module cuts an image into columns that are computed in bands of rows, where that saves work or keeps labels
exact."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tilepipe.box import Sides
from tilepipe.planning.memory import Load, format_bytes
from tilepipe.planning.receptive_field import Reach
from tilepipe.planning.settings import Request
from tilepipe.planning.tile_size import CLEARLY, ROOM
from tilepipe.tiling.statistics_grid import Statistics
from tilepipe.tiling.tiling import Bands, Tiling, cost_factor, fitting_width

if TYPE_CHECKING:
    from tilepipe.models.card import ModelCard
    from tilepipe.models.model import Model

SAVED = 8_000_000
"""Least number of pixels that the model must not see for bands to pay: exporting a network takes seconds."""
BLENDED = (4096, 3072, 2048, 1536, 1280, 1024, 768)
"""Largest sides of the blended tiles that are tried in bands (pixels); those with the least work that fit are taken."""
KEPT = (4096, 3072, 2048, 1536, 1024, 768, 512)
"""Widths that a column keeps at most, the first that fits into memory (pixels). Wider ones save little."""
SCATTERED = 1024
"""Largest such width with a tissue mask: wide columns see much glass between pieces of tissue (pixels)."""
AREA, TALLEST = 160 << 10, 256
"""Pixels and rows of a band, at most: larger bands leave the processor's cache."""
LEAST = 2
"""Rows of a band where the network has subsampled them most, at least, even beyond `AREA`: a convolution of one row
takes much longer than half of two (measured: docs/one_pass.md)."""
ROWS = 1024
"""Least number of rows of a block: what a process that is killed loses is a block (pixels)."""
PRECISIONS = ("fp32", "tf32", "fp64")
"""Precisions that bands are used in."""


def in_bands(
    model: Model, reach: Reach, request: Request, usual: Tiling, load: Load, statistics: Statistics | None = None
) -> tuple[Tiling, Load] | str:
    """Return a tiling in bands and the load with what bands need; '' if tiles do as well, or why bands are no way.

    `usual` is the tiling in tiles. Bands are used if the reach was measured, nobody chose the tiles, and the model
    would see many pixels more in tiles, or tiles would not be exact. Who asks for blended windows gets larger tiles,
    each in bands. `statistics` of norms and poolings over the whole image are held fixed. The choice depends on the
    whole image only.
    """
    chosen = request.tile is not None or request.grid != "image" or model.answers_often
    # Statistics of the whole image are summed over tiles, one pass for each operation.
    if chosen or usual.halo is None or not reach.measured or (statistics and statistics.kind != "field"):
        return ""
    if load.compute.precision not in PRECISIONS:
        return ""
    if usual.window != "crop":
        return _blended(model, request, usual, load)
    return "" if request.overlap is not None else _in_columns(model, request, usual, load, statistics)


def _in_columns(
    model: Model, request: Request, usual: Tiling, load: Load, statistics: Statistics | None
) -> tuple[Tiling, Load] | str:
    """Return the tiling in columns of exact tiles; '' if tiles do as well, or why bands are no way."""
    halo, stride, work = usual.halo or 0, usual.stride, _in_tiles(usual, request, load)
    if (work - 1) * math.prod(load.predicted) < SAVED:
        return ""
    # This import opens torch, which a plan with a bundled model does without, if that can be.
    from tilepipe.inference.profile.bands import known_bands

    # A limit that nobody has set must not depend on the number of processes.
    counted = load if request.memory else replace(load, compute=replace(load.compute, workers=0))
    room = request.memory or ROOM + counted.promise(usual).image
    for kept in KEPT:
        width = fitting_width(load.predicted[1], kept + 2 * halo, halo, stride)
        if not width:
            break
        bands = bands_of(width, halo, stride)
        tiling = replace(usual, tile=width, overlap=2 * halo, window="crop", bands=bands)
        if work_of(tiling, load) > max(1.0, CLEARLY * work):
            break
        if kept > SCATTERED and request.mask == "tissue":
            continue
        found = known_bands(model, bands, stride, load.compute, statistics)
        if found.why_not:
            return f"tiles are computed whole: {found.why_not}"
        needs = load.needs._replace(band=found.width)
        if replace(counted, needs=needs).promise(tiling).total <= room:
            return tiling, replace(load, needs=needs)
    return f"tiles are computed whole: bands of them take more than {format_bytes(room)} of memory, or more work"


def _blended(model: Model, request: Request, usual: Tiling, load: Load) -> tuple[Tiling, Load] | str:
    """Return the tiling whose blended tiles overlap with the least work, each in bands; '' or a reason if none does."""
    from tilepipe.inference.profile.bands import known_bands

    stride, halo, work = usual.stride, usual.halo or 0, work_of(usual, load)
    counted = load if request.memory else replace(load, compute=replace(load.compute, workers=0))
    room = request.memory or ROOM + counted.promise(usual).image
    sides = {_just_fitting(side, usual, load.predicted) for side in BLENDED if side > usual.overlap}
    larger = [replace(usual, tile=side) for side in sides if side > usual.tile]
    for whole in sorted(larger, key=lambda each: (work_of(each, load), each.tile)):
        less = work_of(whole, load)
        if less > CLEARLY * work or (work - less) * math.prod(load.predicted) < SAVED:
            break
        bands = replace(bands_of(whole.tile, halo, stride), rows=whole.tile)
        found = known_bands(model, bands, stride, load.compute)
        if found.why_not:
            return f"tiles are computed whole: {found.why_not}"
        needs, tiling = load.needs._replace(band=found.width), replace(whole, bands=bands)
        # Smaller blocks change no label, so the smallest ones count where memory was given.
        least = replace(tiling, block=tiling.tile) if request.memory else tiling
        if replace(counted, needs=needs).promise(least).total <= room:
            return tiling, replace(load, needs=needs)
    return ""


def _just_fitting(most: int, usual: Tiling, shape: tuple[int, int]) -> int:
    """Return the side of the smallest square tiles that are as few on each axis as those of side `most` would be."""
    stride, overlap = usual.stride, usual.overlap
    counts = [max(1, -(-(size - overlap) // (most // stride * stride - overlap))) for size in shape]
    sides = [-(-(size - overlap) // count) + overlap for size, count in zip(shape, counts, strict=True)]
    return min(most // stride, -(-max(sides) // stride)) * stride


def can_be_banded(model: Model, card: ModelCard, request: Request, statistics: Statistics) -> bool:
    """Return whether a model can be computed in bands with `statistics` held fixed; `card` has the halo for that."""
    # This import opens torch, which a plan with a bundled model does without, if that can be.
    from tilepipe.inference.profile.bands import known_bands

    compute, halo = request.compute(model), card.halo or 0
    if compute.precision not in PRECISIONS or statistics.kind != "field":
        return False
    width = -(-(KEPT[-1] + 2 * halo) // card.stride) * card.stride
    return not known_bands(model, bands_of(width, halo, card.stride), card.stride, compute, statistics).why_not


def bands_of(width: int, halo: int, stride: int) -> Bands:
    """Return the bands of a column of this width."""
    height = max(LEAST, min(TALLEST, AREA // width) // stride) * stride
    # The first band of a pass is cut in another way than those below it, and what it gives is kept by no tile.
    lead = (-(-halo // height) + 1) * height
    # A block keeps more rows than a pass that begins anew must see above it.
    return Bands(height, lead, -(-max(ROWS, lead + 1) // height) * height)


def work_of(tiling: Tiling, load: Load) -> float:
    """Return the pixels that the model sees over those of the image, if passes go on from block to block."""
    grid = tiling.grid(load.predicted)
    rows = grid.y.padded if tiling.columns else grid.y.count * grid.y.tile
    return rows * grid.x.count * grid.x.tile / math.prod(load.predicted)


def _in_tiles(usual: Tiling, request: Request, load: Load) -> float:
    """Return the work in tiles; infinity if tiles would not be exact, or less exact than asked for."""
    halo, tile = usual.halo or 0, usual.tile
    if max(load.predicted) <= tile:
        return 1.0
    factor = cost_factor(tile, Sides(halo, halo, halo, halo))
    if factor > request.max_cost and request.tolerance != 0:
        return math.inf
    return work_of(usual, load)
