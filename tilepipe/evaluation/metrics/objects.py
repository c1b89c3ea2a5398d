"""This module compares objects: F1 and panoptic quality of two maps in which each object has a number.

A predicted and a true object match if their intersection over union (IoU) is above the threshold. If the threshold is
0.5 or more, each object has at most one match, so no assignment is needed (Kirillov 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, UsageError


@dataclass(frozen=True)
class ObjectScores:
    """The scores of objects: how many were found, and how well. Scores of several images can be added."""

    matched: int
    """Number of predicted objects that match a true object."""
    predicted: int
    """Number of predicted objects."""
    true: int
    """Number of true objects."""
    iou: float
    """Sum of the IoU of all matches."""
    threshold: float = 0.5
    """IoU above which objects match."""

    @property
    def precision(self) -> float:
        """Share of the predicted objects that match; nan if there are no predicted objects."""
        return self.matched / self.predicted if self.predicted else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true objects that match; nan if there are no true objects."""
        return self.matched / self.true if self.true else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, which is the detection quality; nan if there are no objects."""
        objects = self.predicted + self.true
        return 2 * self.matched / objects if objects else float("nan")

    @property
    def segmentation_quality(self) -> float:
        """Mean IoU of the matches; nan if there are no matches."""
        return self.iou / self.matched if self.matched else float("nan")

    @property
    def panoptic_quality(self) -> float:
        """F1 times the mean IoU of the matches; nan if there are no objects."""
        objects = self.predicted + self.true
        return 2 * self.iou / objects if objects else float("nan")

    def __add__(self, other: ObjectScores) -> ObjectScores:
        """Return the scores of both images together. Raises `UsageError` if their thresholds differ."""
        if self.threshold != other.threshold:
            raise UsageError(f"objects matched above {self.threshold:g} and {other.threshold:g} do not add up")
        return ObjectScores(
            self.matched + other.matched,
            self.predicted + other.predicted,
            self.true + other.true,
            self.iou + other.iou,
            self.threshold,
        )


def object_scores(prediction: NDArray[np.integer], truth: NDArray[np.integer], threshold: float = 0.5) -> ObjectScores:
    """Return the scores of two maps (height, width) of object numbers, in which 0 means no object.

    Raises `InputError` if the shapes differ or numbers are not whole, `UsageError` if the threshold is below 0.5.
    """
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise InputError(f"objects {prediction.shape} and {truth.shape} are not two maps of one (height, width)")
    if prediction.dtype.kind not in "ui" or truth.dtype.kind not in "ui":
        raise InputError(f"object numbers are whole, not {prediction.dtype} and {truth.dtype}")
    if not 0.5 <= threshold < 1:
        raise UsageError(f"objects match above an IoU from 0.5 to 1, not {threshold:g}: below, one could match several")
    p, t = prediction.ravel(), truth.ravel()
    (p_numbers, p_sizes), (t_numbers, t_sizes) = (np.unique(m[m != 0], return_counts=True) for m in (p, t))
    both = (p != 0) & (t != 0)
    pairs, common = np.unique(
        np.stack([p[both].astype(np.int64), t[both].astype(np.int64)]), axis=1, return_counts=True
    )
    union = p_sizes[np.searchsorted(p_numbers, pairs[0])] + t_sizes[np.searchsorted(t_numbers, pairs[1])] - common
    iou = common / union
    # At an IoU of exactly 0.5 an object could match two others.
    matches = iou > threshold
    return ObjectScores(int(matches.sum()), len(p_numbers), len(t_numbers), float(iou[matches].sum()), threshold)
