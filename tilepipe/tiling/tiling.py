"""Tiling: cuts the prediction grid into tiles and blocks, and computes the cost of overlapping tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from tilepipe.box import Sides
from tilepipe.tiling.grid import Axis, Grid, make_axis

SMALL = 1.5
"""Largest work over a region, as a multiple of the work over the whole image, before the region is called small."""


@dataclass(frozen=True)
class Bands:
    """How a column of tiles is computed in bands of rows. All numbers are multiples of `height`, counted in pixels."""

    height: int
    """Rows of a band."""
    lead: int
    """Rows above a row, from which on a pass must run to have at this row the bits of a pass from the top."""
    rows: int
    """Rows that a tile, which is a block too, keeps; more than `lead`."""


@dataclass(frozen=True)
class Tiling:
    """How the prediction grid is cut into tiles and blocks, in pixels."""

    tile: int
    """Tile size (T), before it is cut to a smaller image."""
    overlap: int
    """Pixels that neighbouring tiles share."""
    window: str
    """Window: 'crop', 'constant', 'gaussian', 'hann' or 'linear'."""
    stride: int
    """Total stride of the model (S)."""
    halo: int | None
    """Reach of the model, rounded up to its stride; None if the reach is unknown or unbounded."""
    block: int
    """Wanted size of a block; a zone is at least as large as this and as a tile. Bands have blocks of their own."""
    bands: Bands | None = None
    """How tiles are computed in bands of rows; `tile` is their width then. None if each tile is computed at once."""

    @property
    def columns(self) -> Bands | None:
        """The bands, if tiles lie in columns down which a pass goes on from tile to tile.

        Blended tiles have each a pass of its own.
        """
        return self.bands if self.window == "crop" else None

    def grid(self, shape: tuple[int, int]) -> Grid:
        """Return tiles and blocks of an image of `shape` (height, width)."""
        return _grid(self, shape)


# A plan asks for its grid again and again, and its axes check themselves each time that they are made.
@lru_cache(maxsize=256)
def _grid(tiling: Tiling, shape: tuple[int, int]) -> Grid:
    if tiling.columns is not None:
        return Grid(_rows_in_bands(shape[0], tiling.columns, tiling.stride), _columns(shape[1], tiling))
    y, x = (
        make_axis(
            size, tiling.tile, tiling.overlap, stride=tiling.stride, crop=tiling.window == "crop", zone=tiling.block
        )
        for size in shape
    )
    return Grid(y, x)


def _columns(size: int, tiling: Tiling) -> Axis:
    """Return the axis of columns that are as wide as a tile."""
    stride, lead, width = tiling.stride, tiling.overlap // 2, tiling.tile
    padded = -(-size // stride) * stride
    if padded <= width:
        return Axis(size, padded, padded, 0, stride, 1, crop=True)
    # Two columns need context on one side each, more columns on both.
    step = width - lead if padded <= 2 * (width - lead) else width - 2 * lead
    return Axis(size, width, step, lead, stride, 1, crop=True)


def _rows_in_bands(size: int, bands: Bands, stride: int) -> Axis:
    """Return the axis of blocks of rows; a tile there is what a pass sees that begins at a block and ends with it."""
    padded, tall = -(-size // stride) * stride, bands.rows + 2 * bands.lead
    if padded <= tall:
        return Axis(size, padded, padded, 0, stride, 1, crop=True)
    return Axis(size, tall, bands.rows, bands.lead, stride, 1, crop=True)


def fitting_width(size: int, widest: int, lead: int, stride: int) -> int:
    """Return the width of the fewest equal columns of at most `widest` pixels that cover `size` pixels.

    Each column sees `lead` pixels beyond what it keeps. Returns 0 if columns of `widest` pixels would keep less than
    `lead` of them.
    """
    padded = -(-size // stride) * stride
    if padded <= widest:
        return padded
    if (two := -(-padded // (2 * stride)) * stride + lead) <= widest:
        return two
    most = (widest - 2 * lead) // stride * stride  # what a column can keep
    if most <= lead:
        return 0
    count = -(-(padded - lead) // most)
    step = -(-(padded - lead) // (count * stride)) * stride
    return step + 2 * lead if step > lead else 0


def cost_factor(tile: int, halo: Sides) -> float:
    """Return F = T^2 / ((T - left - right) (T - top - bottom)): the work as a multiple of one pass over the image.

    F is infinite if the halo leaves no core.
    """
    core = max(0, tile - halo.left - halo.right) * max(0, tile - halo.top - halo.bottom)
    return tile**2 / core if core else math.inf
