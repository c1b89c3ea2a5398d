"""Borders: the line segments that bound shapes on a pixel grid, kept by rows; parity decides what lies in a shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box

MOST_BANDS = 1024
"""Largest number of bands of rows that segments are kept by."""
CROSSINGS = 1 << 18
"""Largest number of crossings of borders with rows of pixels for which all rows of a row of cells are looked at."""
SOME = 32
"""Step in rows: in a cell that a border crosses, one row of so many is looked at first."""


@dataclass(frozen=True)
class Cells:
    """A row of cells, such as the tiles of a row, and the pixels of the full-resolution grid that each cell holds."""

    rows: NDArray[np.int64]
    """Rows of pixels that all cells have, from top to bottom."""
    columns: NDArray[np.int64]
    """Columns of pixels that at least one cell has, from left to right."""
    begins: NDArray[np.int64]
    """Place in `columns` of each cell's first column; never smaller than the place of the cell before."""
    ends: NDArray[np.int64]
    """Place in `columns` behind each cell's last column, in rising order too. Cells may overlap, and none is empty."""


class Borders:
    """Closed rings of shapes, in pixels of a grid, picklable.

    A point lies in a shape by the even-odd rule, and in the area if it lies in any shape. Only segments near the pixels
    that are asked for are looked at, so many vertices cost little.
    """

    def __init__(self, rings: Sequence[tuple[int, NDArray[np.float64]]]) -> None:
        """Take (number of the shape, vertices) of each ring; the rings of a shape follow one another.

        The vertices are (n, 2) as x, y [pixels].
        """
        self._lines = np.hstack([np.hstack([ring, np.roll(ring, -1, axis=0)]).T for _, ring in rings])
        self._shape_of = np.concatenate([np.full(len(ring), k) for k, ring in rings])
        (x0, y0), (x1, y1) = self._lines[:2], self._lines[2:]
        self._extents = np.minimum(x0, x1), np.minimum(y0, y1), np.maximum(x0, x1), np.maximum(y0, y1)
        _, low, _, high = self._extents
        rows, mean = high.max() - low.min(), (high - low).mean()
        bands = int(min(MOST_BANDS, 1 + 3 * rows / mean)) if mean else 1  # a segment lies in about four, or fewer
        # Shapes without height have no rows to divide by.
        self._top, self._rows, self._bands = low.min(), rows / bands or 1.0, bands
        first = self._band(low)
        count = self._band(high) - first + 1
        segment = np.repeat(np.arange(len(first)), count)
        band = first[segment] + np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
        order = np.argsort(band, kind="stable")
        self._segments = segment[order]
        self._begins = np.searchsorted(band[order], np.arange(bands + 1))

    def fill(self, box: Box) -> NDArray[np.bool_]:
        """Return True where the centre of a pixel lies in the area, (box.height, box.width).

        The crossings of borders with a row of centres are computed on the whole grid, so every box gives the same
        pixels. GDAL rounds from the corner of each box, so its pixels depend on the box.
        """
        mask = np.zeros(box.shape, np.bool_)
        edges = self._near(box.y0, box.y1)
        _, top, _, bottom = self._extents
        edges = edges[(bottom[edges] > box.y0 + 0.5) & (top[edges] <= box.y1 - 0.5)]
        for group in np.split(edges, np.flatnonzero(np.diff(self._shape_of[edges])) + 1):
            if len(group):
                _fill(mask, box, self._lines[:, group])
        return mask

    def meet(self, cells: Cells) -> NDArray[np.bool_]:
        """Return for each of a row of cells whether the centre of any of its pixels lies in the area.

        If there are few crossings of borders with the rows of pixels, all rows are looked at. If there are many, three
        rows are looked at first, which decide most cells, and then each cell that a border crosses. A shape whose
        border does not cross a cell fills the cell or none of it, so any row shows the shape.
        """
        rows, top, bottom = cells.rows, int(cells.rows[0]), int(cells.rows[-1]) + 1
        edges = self._near(top, bottom)
        _, low, _, high = self._extents
        edges = edges[(high[edges] >= top) & (low[edges] <= bottom)]
        first, stop = (np.searchsorted(rows, np.ceil(y[edges] - 0.5)) for y in self._extents[1::2])
        if int((stop - first).sum()) <= CROSSINGS:
            return self._seen(edges, cells, rows)
        found = self._seen(edges, cells, rows[[0, len(rows) // 2, len(rows) - 1]])
        left, right = self._spread(edges, top, bottom)
        from_cell = np.searchsorted(cells.columns[cells.ends - 1], left, "left")
        to_cell = np.searchsorted(cells.columns[cells.begins], right, "right")
        doubtful = _marked(from_cell, to_cell, len(found)) & ~found
        count = np.concatenate([[0], np.cumsum(doubtful)])
        known = np.unique(self._shape_of[edges[count[to_cell] > count[np.minimum(from_cell, to_cell)]]])
        # Cells come from left to right, so each segment passes to the left of them once.
        order = np.argsort(right, kind="stable")
        order = order[np.isin(self._shape_of[edges[order]], known)]
        edges, first, stop, left, right = edges[order], first[order], stop[order], left[order], right[order]
        shapes = np.searchsorted(known, self._shape_of[edges])
        turned = np.zeros((len(known), len(rows) + 1), bool)  # rows from which on segments to the left are odd or even
        passed = 0
        for cell in np.flatnonzero(doubtful):
            columns = cells.columns[cells.begins[cell] : cells.ends[cell]]
            behind = int(np.searchsorted(right, columns[0]))
            for ends in (first[passed:behind], stop[passed:behind]):
                np.logical_xor.at(turned, (shapes[passed:behind], ends), True)
            passed = behind
            near = passed + np.flatnonzero(left[passed:] <= columns[-1])
            odd = np.logical_xor.accumulate(turned, axis=1)[:, :-1]
            found[cell] = any(
                _inside(self._lines[:, edges[near]], shapes[near], odd[:, part], rows[part], columns)
                for part in (slice(None, None, SOME), slice(None))
            )
        return found

    def _near(self, y0: float, y1: float) -> NDArray[np.int64]:
        """Return the numbers of the segments that meet rows y0 to y1, in order, and of some other segments."""
        first, last = self._band(np.array([y0, y1]))
        found = self._segments[self._begins[first] : self._begins[last + 1]]
        if first == last:
            return found
        there = np.zeros(len(self._shape_of), np.bool_)
        there[found] = True
        return np.flatnonzero(there)

    def _band(self, y: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.asarray(np.clip((y - self._top) / self._rows, 0, self._bands - 1).astype(np.int64))

    def _spread(self, edges: NDArray[np.int64], top: int, bottom: int) -> NDArray[np.float64]:
        """Return the first and the last column of segments between two rows, (2, n), one column wider for rounding."""
        x0, y0, x1, y1 = self._lines[:, edges]
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = [np.clip((y - y0) / (y1 - y0), 0.0, 1.0) for y in (top, bottom)]
        begin, end = (np.where(y0 == y1, level, share) for level, share in zip((0.0, 1.0), shares, strict=True))
        xs = x0 + begin * (x1 - x0), x0 + end * (x1 - x0)
        return np.stack([np.minimum(*xs) - 1, np.maximum(*xs) + 1])

    def _seen(self, edges: NDArray[np.int64], cells: Cells, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each cell whether the centre of one of its pixels in `rows` lies in the area."""
        edge, row, right_of = _crossings(self._lines[:, edges], rows)
        column = np.searchsorted(cells.columns, right_of)
        begins, ends = _runs(row, self._shape_of[edges[edge]], column)
        first = np.searchsorted(cells.ends, begins, "right")
        return _marked(first, np.searchsorted(cells.begins, ends, "left"), len(cells.begins))


def _marked(first: NDArray[np.int64], last: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return True for those of `count` places that lie in any of the runs [first, last), (count,)."""
    some = first < last
    begun, ended = (np.bincount(ends[some], minlength=count + 1) for ends in (first, last))
    return np.asarray(np.cumsum(begun - ended)[:count] > 0)


def _inside(
    lines: NDArray[np.float64],
    shapes: NDArray[np.int64],
    odd: NDArray[np.bool_],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> bool:
    """Return whether the centre of any pixel of a cell, in `rows` and `columns`, lies in a shape that crosses it.

    `lines` and `shapes` are the segments that may cross the cell. `odd`, (shapes, rows), says whether the number of
    segments to the left of the cell is odd.
    """
    edge, row, right_of = _crossings(lines, rows)
    shape, column = shapes[edge], np.searchsorted(columns, right_of)
    near = np.unique(shapes)
    left_of, at = np.nonzero(odd[near])
    # Rings are closed, so a shape whose number is odd behind the cell crosses the row once more there.
    count = np.bincount(np.searchsorted(near, shape) * len(rows) + row, minlength=len(near) * len(rows))
    still, end = np.nonzero(odd[near] ^ (count % 2 == 1).reshape(len(near), -1))
    begins, _ = _runs(
        np.concatenate([row, at, end]),
        np.concatenate([shape, near[left_of], near[still]]),
        np.concatenate([column, np.zeros(len(at), np.int64), np.full(len(end), len(columns))]),
    )
    return len(begins) > 0


def _runs(
    row: NDArray[np.int64], shape: NDArray[np.int64], column: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the runs of columns [begin, end) that lie in a shape, found from the crossings of borders with the rows.

    Rings are closed, so they cross each row an even number of times.
    """
    wide, shapes = int(column.max(initial=0)) + 1, int(shape.max(initial=0)) + 1
    ordered = np.sort((row * shapes + shape) * wide + column) % wide
    begins, ends = ordered[::2], ordered[1::2]
    some = begins < ends
    return begins[some], ends[some]


def _crossings(
    lines: NDArray[np.float64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the crossings of segments (x0, y0, x1, y1) with the centres of `rows`, which are sorted.

    Each crossing is given by its segment, its place in `rows`, and the first column whose centre lies right of it.
    """
    ends = np.minimum(lines[1], lines[3]), np.maximum(lines[1], lines[3])
    # A segment crosses the rows whose centre lies in [top, bottom). So a point where two segments meet belongs to one
    # of them, and the parity is right.
    first, stop = (np.searchsorted(rows, np.ceil(y - 0.5)) for y in ends)
    length = stop - first
    segment = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(segment)) - np.repeat(np.cumsum(length) - length, length) + first[segment]
    x0, y0, x1, y1 = lines[:, segment]
    # A level segment crosses no row, so nothing is divided by 0.
    crossing = x0 + (rows[place] + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    return segment, place, np.ceil(crossing - 0.5)


def _fill(mask: NDArray[np.bool_], box: Box, borders: NDArray[np.float64]) -> None:
    """Add the pixels of `box` whose centre lies in one shape with borders (x0, y0, x1, y1), by the even-odd rule."""
    x0, y0, x1, y1 = borders
    first = np.maximum(np.ceil(np.minimum(y0, y1) - 0.5), box.y0).astype(np.int64) - box.y0
    stop = np.minimum(np.ceil(np.maximum(y0, y1) - 0.5), box.y1).astype(np.int64) - box.y0
    beyond = np.minimum(x0, x1) >= box.x1 + 1  # these segments lie right of every pixel, whatever is rounded
    begun, ended = (np.bincount(rows[beyond & (first < stop)], minlength=box.height + 1) for rows in (first, stop))
    to_the_right = np.cumsum(begun - ended)[: box.height, None]
    near = ~beyond & (np.maximum(x0, x1) > box.x0 - 1) & (first < stop)
    _, row, right_of = _crossings(borders[:, near], np.arange(box.y0, box.y1))
    left = np.clip(right_of - box.x0, 0, box.width).astype(np.int64)  # pixels that a crossing lies right of
    wide = box.width + 1
    count = np.bincount(row * wide + left, minlength=box.height * wide).reshape(box.height, wide)
    mask |= (count[:, :0:-1].cumsum(axis=1)[:, ::-1] + to_the_right) % 2 == 1
