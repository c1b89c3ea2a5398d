"""This module measures coarseness: what a decoder loses against the best map that is constant on feature-stride cells.

The ideal map takes the commonest true class of every stride x stride cell. Cells start at pixel (0, 0). No other map
that is constant on these cells agrees with the truth in more pixels. So the ideal map bounds a decoder without skip
connections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.boundary import Boundary
from tilepipe.evaluation.metrics.confusion import Confusion
from tilepipe.evaluation.metrics.pair import Pair


@dataclass(frozen=True)
class Coarseness:
    """The coarseness of a prediction at one feature stride."""

    stride: int
    """Feature stride (pixels)."""
    ideal_iou: float
    """Mean IoU of the ideal map at this stride, 0 to 1."""
    achieved_iou: float
    """Mean IoU of the prediction, 0 to 1."""
    f1_slope: float
    """Boundary F1 gained per pixel of tolerance from 1 to 8 pixels; it is large if outlines are nearly right."""

    @property
    def loss(self) -> float:
        """Ideal minus achieved mean IoU; below 0 if the prediction is better than every map of this stride."""
        return self.ideal_iou - self.achieved_iou


def ideal(maps: Pair, stride: int) -> Pair:
    """Return the pair with the ideal map at `stride` as prediction; ties go to the lowest class.

    The pair begins at a multiple of `stride` of the whole map. Only scored pixels vote and are predicted. Raises
    `UsageError` if the stride is below 1.
    """
    if stride < 1:
        raise UsageError(f"a feature stride of {stride} pixels: give 1 or more")
    truth, nodata = maps.masked().truth, np.uint16(maps.classes)
    rows, columns = np.arange(0, truth.shape[0], stride), np.arange(0, truth.shape[1], stride)
    most = np.zeros((rows.size, columns.size), np.int64)
    winner = np.zeros((rows.size, columns.size), np.uint16)
    for label in range(maps.classes):
        votes = _cell_sums(truth == label, rows, columns)
        # Only more votes win, so ties stay with the lower class.
        winner[votes > most] = label
        np.maximum(votes, most, out=most)
    fine = winner.repeat(stride, 0).repeat(stride, 1)[: truth.shape[0], : truth.shape[1]]
    return Pair(np.where(truth < nodata, fine, nodata), truth, maps.classes)


def coarseness(
    stride: int, ideal_confusion: Confusion, achieved: Confusion, at_1px: Boundary, at_8px: Boundary
) -> Coarseness:
    """Return the coarseness, from the confusions of the ideal map and of the prediction, and from two boundary
    counts."""
    slope = (at_8px.mean_f1 - at_1px.mean_f1) / (at_8px.width - at_1px.width)
    return Coarseness(stride, ideal_confusion.mean_iou, achieved.mean_iou, slope)


def _cell_sums(mask: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.int64]:
    # Without a type numpy adds bools as a logical or.
    down = np.add.reduceat(mask, rows, axis=0, dtype=np.int64)
    return np.asarray(np.add.reduceat(down, columns, axis=1))
