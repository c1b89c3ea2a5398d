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
    would see many pixels more in tiles, or tiles would not be exact. `statistics` of norms and poolings over the whole
    image are held fixed. The choice depends on the whole image only.
    """
    halo, stride = usual.halo, usual.stride
    chosen = request.tile is not None or request.overlap is not None or request.window_shape not in ("auto", "crop")
    if chosen or request.grid != "image" or halo is None or not reach.measured or model.answers_often:
        return ""
    if statistics and statistics.kind != "field":  # these are summed over tiles, one pass for each operation
        return ""
    work = _in_tiles(usual, request, load)
    if (work - 1) * math.prod(load.predicted) < SAVED or load.compute.precision not in PRECISIONS:
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
    rows = grid.y.padded if tiling.bands else grid.y.count * grid.y.tile
    return rows * grid.x.count * grid.x.tile / math.prod(load.predicted)


def _in_tiles(usual: Tiling, request: Request, load: Load) -> float:
    """Return the work in tiles; infinity if tiles would not be exact, or less exact than asked for."""
    halo, tile = usual.halo or 0, usual.tile
    if max(load.predicted) <= tile:
        return 1.0
    factor = cost_factor(tile, Sides(halo, halo, halo, halo))
    if usual.window != "crop" or (factor > request.max_cost and request.tolerance != 0):
        return math.inf
    return work_of(usual, load)
