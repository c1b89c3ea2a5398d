"""Junctions are the pixel corners at which three or more borders meet. A border between two has one neighbour.

A corner is a junction if at least three of the four pixel edges at it lie between different regions, or between a
region and no region. Corners inside a block are known when the block is read. Corners on lines between blocks are known
when the next block is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.products.outline import Floats, Ints, Outline

Bools = NDArray[np.bool_]


class Junctions:
    """Knows the junctions on the rings of outlines, once it has seen the blocks that they lie in."""

    def __init__(self, shape: tuple[int, int], block: int) -> None:
        """Begin a map of `shape` (height, width); `block` is the side in pixels of the blocks in which it is read."""
        self._shape, self._block = shape, block
        height, width = shape
        # These say whether each corner along a line between blocks is a junction.
        self._rows = np.zeros((len(range(block, height, block)), width + 1), bool)
        self._columns = np.zeros((len(range(block, width, block)), height + 1), bool)
        self._above, self._top, self._below = (np.zeros(width + 2, np.int64) for _ in range(3))
        self._left = np.zeros(0, np.int64)
        self._inside, self._corner = np.zeros((0, 0), bool), (0, 0)

    def see(self, box: Box, values: Ints) -> None:
        """Find the junctions in a block and on the line to its left; at the end of a row, also on the line above."""
        height, width = self._shape
        # Outside of the map there is no region, so zeros stand for it.
        inside = _meeting(np.pad(values, 1))
        for row, line in ((0, box.y0), (-1, box.y1)):
            if 0 < line < height:
                inside[row] = False
        for column, line in ((0, box.x0), (-1, box.x1)):
            if 0 < line < width:
                inside[:, column] = False
        self._inside, self._corner = inside, (box.y0, box.x0)
        if box.x0 > 0:
            sides = np.pad(np.column_stack((self._left, values[:, 0])), ((1, 1), (0, 0)))
            # A corner where two such lines cross is left to the line between rows of blocks.
            ends = slice(box.y0 if box.y0 == 0 else box.y0 + 1, box.y1 + 1 if box.y1 == height else box.y1)
            self._columns[box.x0 // self._block - 1, ends] = _meeting(sides)[
                ends.start - box.y0 : ends.stop - box.y0, 0
            ]
        self._left = values[:, -1]
        self._top[box.x0 + 1 : box.x1 + 1] = values[0]
        if box.x1 == width and box.y0 > 0:
            self._rows[box.y0 // self._block - 1] = _meeting(np.stack((self._above, self._top)))[0]
        self._below[box.x0 + 1 : box.x1 + 1] = values[-1]
        if box.x1 == width:
            self._above, self._below = self._below, self._above

    def marks(self, polygons: Sequence[Sequence[Floats]]) -> list[Ints]:
        """Return the junctions on the rings of each polygon of the block seen last, as codes.

        Junctions on lines between blocks are left out.
        """
        found = corners([ring for rings in polygons for ring in rings])
        owner = np.repeat(np.arange(len(polygons)), [len(rings) for rings in polygons])[found.ring]
        x, y = (found.points - self._corner[::-1]).T
        there = self._inside[y, x]
        counts = np.bincount(owner[there], minlength=len(polygons))
        return np.split(self._codes(found.points[there]), np.cumsum(counts)[:-1])

    def on(self, outlines: Sequence[Outline]) -> Corners:
        """Return the corners at which the rings of finished outlines turn, and the junctions on the rings."""
        found = corners([ring for one in outlines for ring in one.rings])
        owner = np.repeat(np.arange(len(outlines)), [len(one.rings) for one in outlines])[found.ring]
        corner_count = (self._shape[0] + 1) * (self._shape[1] + 1)  # codes are below this number
        marked = [one.marks + k * corner_count for k, one in enumerate(outlines) if one.marks is not None]
        at = (
            np.isin(self._codes(found.points) + owner * corner_count, np.concatenate(marked))
            if marked
            else found.junction
        )
        for axis, lines in ((1, self._rows), (0, self._columns)):
            line, rest = np.divmod(found.points[:, axis], self._block)
            there = (rest == 0) & (line > 0) & (line <= len(lines))
            at[there] |= lines[line[there] - 1, found.points[there, 1 - axis]]
        keep = found.turning | at
        return Corners(found.points[keep], found.ring[keep], at[keep])

    def _codes(self, points: Ints) -> Ints:
        return np.asarray(points[:, 1] * (self._shape[1] + 1) + points[:, 0])


@dataclass(frozen=True)
class Corners:
    """Pixel corners along many rings, ring by ring, each corner once."""

    points: Ints
    """Corners (N, 2) as (x, y)."""
    ring: Ints
    """Number of each corner's ring, (N,)."""
    junction: Bools
    """Whether each corner is known to be a junction, (N,)."""

    @property
    def starts(self) -> Ints:
        """Index of the corner at which each ring begins."""
        return np.flatnonzero(np.diff(self.ring, prepend=-1))

    @property
    def turning(self) -> Bools:
        """Whether the ring turns at each corner."""
        place, starts = np.arange(len(self.ring)), self.starts
        ends = np.append(starts[1:], len(self.ring)) - 1
        before, after = place - 1, place + 1
        before[starts], after[ends] = ends, starts
        steps = self.points - self.points[before], self.points[after] - self.points
        return np.asarray((steps[0] != steps[1]).any(1))


def corners(rings: Sequence[Floats]) -> Corners:
    """Return every pixel corner along closed rings (N, 2); none of them is known to be a junction."""
    sizes = np.array([len(ring) for ring in rings])
    points = np.concatenate(rings).astype(np.int64)
    number = np.repeat(np.arange(len(rings)), sizes)
    last = np.cumsum(sizes) - 1  # there is no edge from one ring to the next
    start, end, number = np.delete(points, last, 0), np.delete(points, last - sizes + 1, 0), np.delete(number, last)
    lengths = np.abs(end - start).sum(1)
    along = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    found = np.repeat(start, lengths, 0) + along[:, None] * np.repeat(np.sign(end - start), lengths, 0)
    return Corners(found, np.repeat(number, lengths), np.zeros(len(found), bool))


def _meeting(values: Ints) -> Bools:
    """Return whether three or more borders meet at each corner between four values: (h, w) -> (h - 1, w - 1)."""
    a, b, c, d = values[:-1, :-1], values[:-1, 1:], values[1:, :-1], values[1:, 1:]
    borders = (a != b).astype(np.int8) + (c != d) + (a != c) + (b != d)
    return np.asarray(borders >= 3)
