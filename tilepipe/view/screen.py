"""The tiles of a picture at full size and at every power of two below it."""

from __future__ import annotations

from dataclasses import dataclass

from tilepipe.box import Box

TILE = 512
"""Side of a tile on the screen in pixels."""


@dataclass(frozen=True)
class Screen:
    """An image of `shape` at levels 0, 1, 2 ...: a pixel of level k is 2**k image pixels wide and high."""

    shape: tuple[int, int]
    """Shape (height, width) of the image at full resolution in pixels."""

    @property
    def last(self) -> int:
        """Number of the smallest level: the first that fits one tile."""
        return max(0, (max(self.shape) - 1).bit_length() - (TILE - 1).bit_length())

    def size(self, level: int) -> tuple[int, int]:
        """Return the shape (height, width) of a level in its own pixels."""
        height, width = self.shape
        return -(-height >> level), -(-width >> level)

    def box(self, level: int, row: int, column: int) -> Box | None:
        """Return the box of a tile in pixels of its level; None if there is no such tile."""
        if not 0 <= level <= self.last or min(row, column) < 0:
            return None
        return Box(row * TILE, column * TILE, (row + 1) * TILE, (column + 1) * TILE) & Box.of_shape(*self.size(level))
