"""Statistics grid: places the patches in which statistics of global operations are taken, and weighs them at a pixel.

Statistics belong to the centres of patches that lie side by side from pixel (0, 0) of the prediction grid on. The last
patch is pulled back to the edge. At a pixel, statistics are interpolated linearly per axis between the centres around
it; beyond the outermost centres they stay constant. So they depend on the pixel's place in the image, and not on the
tile in which the pixel is computed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.tiling.grid import Axis, Grid, make_axis


@dataclass(frozen=True)
class Statistics:
    """The source of the statistics of a model's global operations in a run."""

    kind: Literal["field", "whole"]
    """Kind: 'field' takes patches of a fixed grid; 'whole' takes the whole image, with one pass for each operation."""
    window: int
    """Pixels per side of a patch, a multiple of the stride; 0 for 'whole'."""
    values: tuple[int, ...]
    """Number of statistics of each operation, in order of call."""

    def patches(self, shape: tuple[int, int], stride: int) -> Grid:
        """Return the patches over an image of `shape` (height, width); for 'whole', one patch covers all of it."""
        return patches_of(shape, self.window or -(-max(shape) // stride) * stride, stride)


class Taps(NamedTuple):
    """Patches and shares along one axis: a place takes `(1 - share) * value[below] + share * value[above]`."""

    below: NDArray[np.int64]
    """Patch at or before each place."""
    above: NDArray[np.int64]
    """Patch after each place; at the last patch, the same patch."""
    share: NDArray[np.float64]
    """Share of the patch after each place, 0 to 1."""


def patches_of(shape: tuple[int, int], patch: int, stride: int) -> Grid:
    """Return the patches over an image of `shape` (height, width); `patch` is a multiple of `stride`."""
    y, x = (make_axis(size, patch, 0, stride=stride, crop=True, zone=patch) for size in shape)
    return Grid(y, x)


def nodes_of(patches: Grid, box: Box) -> Box:
    """Return the rows and columns of patches whose statistics decide the pixels of `box`."""
    rows, columns = _nodes(patches.y, box.y0, box.y1), _nodes(patches.x, box.x0, box.x1)
    return Box(rows[0], columns[0], rows[1], columns[1])


def taps(axis: Axis, start: int, count: int, stride: int) -> Taps:
    """Return the taps of `count` feature pixels of `stride` pixels each, the first of which begins at pixel `start`."""
    centres = np.array(_centres(axis), np.int64)
    last = len(centres) - 1
    place = 2 * start + (2 * np.arange(count, dtype=np.int64) + 1) * stride
    # Before the first centre and behind the last one the nearest pair is taken; the share below stays within 0 and 1.
    below = np.clip(np.searchsorted(centres, place, "right") - 1, 0, max(last - 1, 0))
    above = np.minimum(below + 1, last)
    # A single patch is both: its distance to itself is no divisor.
    apart = np.maximum(centres[above] - centres[below], 1)
    return Taps(below, above, np.clip((place - centres[below]) / apart, 0.0, 1.0))


def _nodes(axis: Axis, start: int, stop: int) -> tuple[int, int]:
    centres = _centres(axis)
    last = axis.count - 1
    first = max(0, min(bisect_right(centres, 2 * start) - 1, last - 1))
    return first, min(max(bisect_left(centres, 2 * stop), first + 1), last) + 1


def _centres(axis: Axis) -> list[int]:
    """Return twice the middle of each patch, in pixels."""
    # Twice the middle is a whole number also if a patch has an odd number of pixels, so places are compared exactly.
    return [2 * axis.origin(k) + axis.tile for k in range(axis.count)]
