"""Terms: how a prediction and the truth are compared."""

from __future__ import annotations

from dataclasses import dataclass

from tilepipe.errors import UsageError

COARSE_WIDTH = 8.0
"""Tolerance in pixels of the second boundary F1 that the slope is taken from."""


@dataclass(frozen=True)
class Terms:
    """What is asked of `evaluate`. Raises `UsageError` if a value cannot be."""

    classes: tuple[str, ...]
    """Class names by label value, from 0."""
    ignore: int | None = 255
    """Value of the truth that is not scored; None scores every pixel."""
    nodata: int | None = 255
    """Value of the prediction where there is none; None if it covers everything."""
    width: float = 2.0
    """Width in pixels of boundary F1, Boundary IoU and trimap IoU, 1 to 64."""
    smallest: int = 16
    """Pixels below which a component counts as small."""
    feature_stride: int = 16
    """Stride in pixels of the ideal coarse map, 1 to 64."""
    strides: tuple[int, ...] = (2, 4, 8, 16)
    """Up-sampling strides whose checkerboard is looked for."""
    tile: int | None = None
    """Tile side of the prediction, for the seam test; None leaves it out."""
    step: int | None = None
    """Distance of its tile origins; None: the tile side (no overlap)."""

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
        """Every boundary width that is counted, ascending."""
        return tuple(sorted({1.0, float(self.width), COARSE_WIDTH}))
