"""Tiling: cuts the prediction grid into tiles and blocks, and computes the cost of overlapping tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilepipe.box import Sides
from tilepipe.tiling.grid import Grid, make_axis

SMALL = 1.5
"""Largest work over a region, as a multiple of the work over the whole image, before the region is called small."""


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
    """Wanted size of a block; a zone is at least as large as this and as a tile."""

    def grid(self, shape: tuple[int, int]) -> Grid:
        """Return tiles and blocks of an image of `shape` (height, width)."""
        crop = self.window == "crop"
        y, x = (
            make_axis(size, self.tile, self.overlap, stride=self.stride, crop=crop, zone=self.block) for size in shape
        )
        return Grid(y, x)


def cost_factor(tile: int, halo: Sides) -> float:
    """Return F = T^2 / ((T - left - right) (T - top - bottom)): the work as a multiple of one pass over the image.

    F is infinite if the halo leaves no core.
    """
    core = max(0, tile - halo.left - halo.right) * max(0, tile - halo.top - halo.bottom)
    return tile**2 / core if core else math.inf
