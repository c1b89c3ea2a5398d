"""This module defines two types. A box is a half-open pixel rectangle, y before x. Sides are a width for each side
(pixels)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import index

from tilepipe.errors import UsageError


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A rectangle of pixels: rows y0 to y1 and columns x0 to x1. The last row and the last column are not included.

    Rows come before columns everywhere. A box is never empty. It may lie partly or wholly outside an image.

    Raises:
        UsageError: The box would be empty, or a number is not whole.

    Example:
        >>> import tilepipe as tp
        >>> box = tp.Box(0, 10, 100, 210)
        >>> box.shape, box.area
        ((100, 200), 20000)
        >>> box & tp.Box(50, 0, 400, 60)
        Box(y0=50, x0=10, y1=100, x1=60)
    """

    y0: int
    """First row."""
    x0: int
    """First column."""
    y1: int
    """Row after the last."""
    x1: int
    """Column after the last."""

    def __post_init__(self) -> None:
        # Numbers of numpy may overflow, and JSON does not take them. The test is quick, since a run makes many boxes.
        if not type(self.y0) is type(self.x0) is type(self.y1) is type(self.x1) is int:
            self._make_whole()
        if self.y1 <= self.y0 or self.x1 <= self.x0:
            raise UsageError(
                f"region has no pixels: rows {self.y0} to {self.y1}, columns {self.x0} to {self.x1}; "
                "give it at least one row and one column"
            )

    def _make_whole(self) -> None:
        """Turn whole numbers of numpy into Python's."""
        for name in ("y0", "x0", "y1", "x1"):
            try:
                # A frozen dataclass can only be completed like this.
                object.__setattr__(self, name, index(getattr(self, name)))
            except TypeError:
                raise UsageError(
                    f"region {name} {getattr(self, name)!r} is no whole number; rows and columns are counted in pixels"
                ) from None

    @classmethod
    def of_shape(cls, height: int, width: int) -> Box:
        """Return the box of a whole image of `height` x `width` pixels."""
        return cls(0, 0, height, width)

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.x1 - self.x0

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (height, width) in pixels."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def __and__(self, other: Box) -> Box | None:
        """Return the box that both boxes cover, or None if they do not meet."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        y1, x1 = min(self.y1, other.y1), min(self.x1, other.x1)
        return Box(y0, x0, y1, x1) if y0 < y1 and x0 < x1 else None

    def contains(self, other: Box) -> bool:
        """Return whether every pixel of `other` lies in this box."""
        return self.y0 <= other.y0 and self.x0 <= other.x0 and other.y1 <= self.y1 and other.x1 <= self.x1

    def pad(self, margin: int) -> Box:
        """Return the box grown by `margin` pixels on every side."""
        return Box(self.y0 - margin, self.x0 - margin, self.y1 + margin, self.x1 + margin)

    def shift(self, dy: int, dx: int) -> Box:
        """Return the box moved by (dy, dx) pixels."""
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def on_grid(self, shape: tuple[int, int], grid: tuple[int, int]) -> Box:
        """Return the pixels of `grid` that touch this box, which lies on a grid of `shape`; both are (height,
        width)."""
        (full_height, full_width), (height, width) = shape, grid
        y0, x0 = self.y0 * height // full_height, self.x0 * width // full_width
        # Whole numbers only: a quotient of floats could fall on the wrong side of a pixel's border.
        return Box(y0, x0, -(-self.y1 * height // full_height), -(-self.x1 * width // full_width))

    def slices_in(self, outer: Box) -> tuple[slice, slice]:
        """Return this box as (rows, columns) slices of an array that covers `outer`."""
        return (
            slice(self.y0 - outer.y0, self.y1 - outer.y0),
            slice(self.x0 - outer.x0, self.x1 - outer.x0),
        )

    def to_list(self) -> list[int]:
        """Return [y0, x0, y1, x1], the form used in JSON."""
        return [self.y0, self.x0, self.y1, self.x1]


@dataclass(frozen=True)
class Sides:
    """The widths on the four sides of an output pixel, in pixels of the prediction grid, each at least 0."""

    top: int
    """Width towards smaller y."""
    bottom: int
    """Width towards larger y."""
    left: int
    """Width towards smaller x."""
    right: int
    """Width towards larger x."""

    def up_to(self, stride: int) -> Sides:
        """Return every side rounded up to a multiple of `stride`."""
        top, bottom, left, right = (-(-side // stride) * stride for side in self)
        return Sides(top, bottom, left, right)

    def __iter__(self) -> Iterator[int]:
        return iter((self.top, self.bottom, self.left, self.right))
