"""Borders: the line segments that bound shapes on a pixel grid, kept by rows; parity decides what lies in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box

MOST_BANDS = 1024
"""Bands of rows that segments are kept by."""


class Borders:
    """Closed rings of shapes, in pixels of a grid; a point lies in a shape by even and odd, in the area by any shape.

    Picklable. Only segments near what is asked for are looked at, so many vertices cost little.
    """

    def __init__(self, rings: Sequence[tuple[int, NDArray[np.float64]]]) -> None:
        """Take (number of the shape, (vertices, 2) as x, y) of each ring, the rings of a shape one after another."""
        self._lines = np.hstack([np.hstack([ring, np.roll(ring, -1, axis=0)]).T for _, ring in rings])
        self._shape_of = np.concatenate([np.full(len(ring), k) for k, ring in rings])
        (x0, y0), (x1, y1) = self._lines[:2], self._lines[2:]
        self._extents = np.minimum(x0, x1), np.minimum(y0, y1), np.maximum(x0, x1), np.maximum(y0, y1)
        _, low, _, high = self._extents
        rows, mean = high.max() - low.min(), (high - low).mean()
        bands = int(min(MOST_BANDS, 1 + 3 * rows / mean)) if mean else 1  # a segment lies in about four, or fewer
        self._top, self._rows, self._bands = low.min(), rows / bands or 1.0, bands
        first = self._band(low)
        count = self._band(high) - first + 1
        segment = np.repeat(np.arange(len(first)), count)
        band = first[segment] + np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
        order = np.argsort(band, kind="stable")
        self._segments = segment[order]
        self._begins = np.searchsorted(band[order], np.arange(bands + 1))

    def uniform(self, box: Box) -> bool | None:
        """Return whether `box` lies in the area, if no border crosses it; None where one does."""
        near = self._near(box.y0, box.y1)
        left, top, right, bottom = (extent[near] for extent in self._extents)
        near = near[(left <= box.x1) & (right >= box.x0) & (top <= box.y1) & (bottom >= box.y0)]
        x0, y0, x1, y1 = self._lines[:, near]
        # a line and a rectangle meet unless their extents or the line's side part them
        corners = ((box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1))
        sides = np.sign([(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in corners])
        if (np.abs(sides.sum(axis=0)) < len(corners)).any():
            return None
        return self._holds(box.x0 + 0.5, box.y0 + 0.5)

    def fill(self, box: Box) -> NDArray[np.bool_]:
        """Return True where the centre of a pixel lies in the area, (box.height, box.width).

        Where borders cross a row of centres is computed on the whole grid, so every box gives the same pixels; GDAL
        rounds from the corner of what it is asked for.
        """
        mask = np.zeros(box.shape, np.bool_)
        edges = self._near(box.y0, box.y1)
        _, top, _, bottom = self._extents
        edges = edges[(bottom[edges] > box.y0 + 0.5) & (top[edges] <= box.y1 - 0.5)]
        for group in np.split(edges, np.flatnonzero(np.diff(self._shape_of[edges])) + 1):
            if len(group):
                _fill(mask, box, self._lines[:, group])
        return mask

    def _near(self, y0: float, y1: float) -> NDArray[np.int64]:
        """Return the segments that meet rows y0 to y1, in order; some others are among them."""
        first, last = self._band(np.array([y0, y1]))
        found = self._segments[self._begins[first] : self._begins[last + 1]]
        if first == last:
            return found
        there = np.zeros(len(self._shape_of), np.bool_)
        there[found] = True
        return np.flatnonzero(there)

    def _band(self, y: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.asarray(np.clip((y - self._top) / self._rows, 0, self._bands - 1).astype(np.int64))

    def _holds(self, x: float, y: float) -> bool:
        """Return whether a point off all borders lies in the area, by the borders of each shape to its right."""
        near = self._near(y, y)
        _, y0, _, y1 = self._lines[:, near]
        over = near[(y0 > y) != (y1 > y)]
        x0, y0, x1, y1 = self._lines[:, over]
        right = x0 + (y - y0) * (x1 - x0) / (y1 - y0) > x
        return bool((np.bincount(self._shape_of[over][right]) % 2).any())


def _fill(mask: NDArray[np.bool_], box: Box, borders: NDArray[np.float64]) -> None:
    """Add the pixels of `box` whose centre lies within the borders (x0, y0, x1, y1) of one shape, by even and odd."""
    x0, y0, x1, y1 = borders
    first = np.maximum(np.ceil(np.minimum(y0, y1) - 0.5), box.y0).astype(np.int64) - box.y0
    stop = np.minimum(np.ceil(np.maximum(y0, y1) - 0.5), box.y1).astype(np.int64) - box.y0
    beyond = np.minimum(x0, x1) >= box.x1 + 1  # right of every pixel, whatever is rounded
    begun, ended = (np.bincount(rows[beyond & (first < stop)], minlength=box.height + 1) for rows in (first, stop))
    to_the_right = np.cumsum(begun - ended)[: box.height, None]
    near = np.flatnonzero(~beyond & (np.maximum(x0, x1) > box.x0 - 1) & (first < stop))
    length = stop[near] - first[near]
    edge = np.repeat(near, length)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(length) - length, length) + first[edge]
    crossing = x0[edge] + (row + box.y0 + 0.5 - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    left = np.clip(np.ceil(crossing - 0.5) - box.x0, 0, box.width).astype(np.int64)  # pixels that it lies right of
    wide = box.width + 1
    count = np.bincount(row * wide + left, minlength=box.height * wide).reshape(box.height, wide)
    mask |= (count[:, :0:-1].cumsum(axis=1)[:, ::-1] + to_the_right) % 2 == 1
