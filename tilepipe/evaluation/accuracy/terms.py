"""This module defines the terms: how a prediction and the truth are compared."""

from __future__ import annotations

from dataclasses import dataclass

from tilepipe.errors import UsageError

COARSE_WIDTH = 8.0
"""Tolerance of the second boundary F1, from which the slope is computed (pixels)."""


@dataclass(frozen=True)
class Terms:
    """The terms of a comparison. Raises `UsageError` if a value is not allowed."""

    classes: tuple[str, ...]
    """Class names by label value, from 0."""
    ignore: int | None = 255
    """Value of the truth that is not scored; None scores every pixel."""
    nodata: int | None = 255
    """Value of the prediction for pixels without a prediction; None if the prediction covers everything."""
    width: float = 2.0
    """Width of boundary F1, Boundary IoU and trimap IoU (pixels, 1 to 64)."""
    smallest: int = 16
    """Size below which a component counts as small (pixels)."""
    feature_stride: int = 16
    """Stride of the ideal coarse map (pixels, 1 to 64)."""
    strides: tuple[int, ...] = (2, 4, 8, 16)
    """Up-sampling strides (pixels) at which a checkerboard is looked for."""
    tile: int | None = None
    """Side of the prediction's tiles, for the seam test (pixels); None leaves out the test."""
    step: int | None = None
    """Distance of the origins of tiles (pixels); None means the tile side, that is no overlap."""

    def __post_init__(self) -> None:
        if not self.classes:
            raise UsageError("no classes: name them all, in the order of their label values")
        if not 1 <= self.width <= 64:
            raise UsageError(f"a boundary width of {self.width:g} pixels: give 1 to 64")
        if not 1 <= self.feature_stride <= 64:
            raise UsageError(f"a feature stride of {self.feature_stride} pixels: give 1 to 64")
        if self.tile is None and self.step is not None:
            raise UsageError(f"a step of {self.step} without a tile size: give both")

    @property
    def widths(self) -> tuple[float, ...]:
        """All boundary widths that are counted (pixels), ascending."""
        return tuple(sorted({1.0, float(self.width), COARSE_WIDTH}))
