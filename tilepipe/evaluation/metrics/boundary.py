"""This module measures how well outlines fit: boundary F1, Boundary IoU, trimap IoU.

Distances are Euclidean, in pixels. The *band* of width d of a class is the set of its pixels that lie within d of a
pixel of another class. The *outline* of a class is its band of width 1. Image borders and pixels without a label are no
outline. If each block has the margin `margin(width)` around it, the counts of blocks add up to exactly the counts of
the whole map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.confusion import Confusion, confusion_of, mean_present
from tilepipe.evaluation.metrics.pair import Pair

Mask = NDArray[np.bool_]
Core = tuple[slice, slice]
"""Slices (rows, columns) of a block whose pixels are counted; the other pixels are margin."""


@dataclass(frozen=True)
class Boundary:
    """The counts of outline and band pixels, each a tuple over classes. Sums of blocks equal the whole."""

    width: float
    """Tolerance and band width (pixels)."""
    predicted: tuple[int, ...]
    """Number of pixels of the predicted outline."""
    predicted_near: tuple[int, ...]
    """Number of pixels of the predicted outline within `width` of the true outline."""
    true: tuple[int, ...]
    """Number of pixels of the true outline."""
    true_near: tuple[int, ...]
    """Number of pixels of the true outline within `width` of the predicted outline."""
    common: tuple[int, ...]
    """Number of pixels in both the predicted and the true band."""
    either: tuple[int, ...]
    """Number of pixels in the predicted or the true band."""
    trimap: Confusion
    """Confusion of the pixels inside the true bands of all classes."""

    def __add__(self, other: Boundary) -> Boundary:
        if self.width != other.width:
            raise UsageError(f"boundaries of width {self.width:g} and {other.width:g} cannot be added")
        return Boundary(
            self.width,
            _plus(self.predicted, other.predicted),
            _plus(self.predicted_near, other.predicted_near),
            _plus(self.true, other.true),
            _plus(self.true_near, other.true_near),
            _plus(self.common, other.common),
            _plus(self.either, other.either),
            self.trimap + other.trimap,
        )

    @property
    def f1(self) -> tuple[float, ...]:
        """Boundary F1 per class at `width` (Csurka 2013), 0 to 1; nan if neither map has an outline."""
        counts = zip(self.predicted, self.predicted_near, self.true, self.true_near, strict=True)
        return tuple(_f1(*count) for count in counts)

    @property
    def iou(self) -> tuple[float, ...]:
        """Boundary IoU per class at `width` (Cheng 2021, with the band defined above), 0 to 1; nan if neither map has a
        band."""
        return tuple(c / e if e else float("nan") for c, e in zip(self.common, self.either, strict=True))

    @property
    def mean_f1(self) -> float:
        """Mean of `f1` over classes with an outline; nan if no class has an outline."""
        return mean_present(self.f1)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over classes with a band; nan if no class has a band."""
        return mean_present(self.iou)


def margin(width: float) -> int:
    """Return the margin (pixels) that a block needs on every side so that sums of blocks equal the whole map's
    counts."""
    # Pixels up to `width` away count, and whether they are outline depends on one pixel more.
    return int(width) + 1


def boundary_of(maps: Pair, width: float = 2, core: Core | None = None) -> Boundary:
    """Return the boundary counts at `width` pixels of a pair; for a block with a margin only its `core` is counted.

    Raises `UsageError` if the width is below 1 pixel.
    """
    if width < 1:
        raise UsageError(f"a boundary width of {width:g} pixels: give 1 or more")
    # A pixel that one map leaves out must not make an outline in the other.
    maps = maps.masked()
    core = core or (slice(None), slice(None))
    scored = maps.scored()
    trimap = np.zeros(scored.shape, bool)
    counts = []
    for label in range(maps.classes):
        of_class, true_band = _class_counts(maps.prediction == label, maps.truth == label, scored, width, core)
        counts.append(of_class)
        # A pixel near two borders lies in the bands of several classes, but counts once.
        trimap |= true_band
    inside = Pair(maps.prediction, np.where(trimap, maps.truth, np.uint16(maps.classes)), maps.classes).crop(*core)
    a, b, c, d, e, f = zip(*counts, strict=True)
    return Boundary(width, a, b, c, d, e, f, confusion_of(inside))


def _class_counts(
    prediction: Mask, truth: Mask, scored: Mask, width: float, core: Core
) -> tuple[tuple[int, int, int, int, int, int], Mask]:
    """Return the six counts of one class, in the order of `Boundary`, and the true band."""
    p_outline, t_outline = band(prediction, scored, 1), band(truth, scored, 1)
    p_near, t_near = p_outline & dilate(t_outline, width), t_outline & dilate(p_outline, width)
    p_band, t_band = band(prediction, scored, width), band(truth, scored, width)
    masks = p_outline, p_near, t_outline, t_near, p_band & t_band, p_band | t_band
    a, b, c, d, e, f = (int(np.count_nonzero(mask[core])) for mask in masks)
    return (a, b, c, d, e, f), t_band


def band(mask: Mask, scored: Mask, width: float) -> Mask:
    """Return the pixels of `mask` within `width` pixels of a scored pixel outside `mask`, (height, width)."""
    return np.asarray(mask & dilate(scored & ~mask, width))


def dilate(mask: Mask, radius: float) -> Mask:
    """Return the pixels within Euclidean distance `radius` of a pixel of `mask`; outside the array there are none.

    The disc is applied row by row: each vertical distance has a widest horizontal run that still fits. For the small
    radius of outlines this is much faster than a distance transform.
    """
    if not mask.any():
        return mask
    out = np.zeros_like(mask)
    # From the farthest row to the middle one the runs only grow, so each row widens what the row before has made.
    wide, reach = mask.copy(), 0
    for dy in range(min(int(radius), mask.shape[0] - 1), -1, -1):
        run = int(np.sqrt(radius * radius - dy * dy))
        while reach < run:
            reach += 1
            wide[:, reach:] |= mask[:, :-reach]
            wide[:, :-reach] |= mask[:, reach:]
        out[dy:] |= wide[: wide.shape[0] - dy]
        if dy:
            out[:-dy] |= wide[dy:]
    return out


def _plus(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _f1(predicted: int, predicted_near: int, true: int, true_near: int) -> float:
    """Return F1 of precision and recall; 0 if only one map has an outline, nan if neither has."""
    if not predicted and not true:
        return float("nan")
    precision = predicted_near / predicted if predicted else 0.0
    recall = true_near / true if true else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
