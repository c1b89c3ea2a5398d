"""This module counts how often each class is taken for each other class; IoU, Dice and accuracy follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.pair import ClassNumbers, Pair, pair


@dataclass(frozen=True)
class Confusion:
    """The number of pixels by true and predicted class. Sums of blocks equal the whole: `whole = left + right`."""

    counts: tuple[tuple[int, ...], ...]
    """Counts: `counts[t][p]` is the number of scored pixels of true class t that were predicted as p."""
    unpredicted: int = 0
    """Number of pixels with a true label but without a prediction; they are in no score."""

    @classmethod
    def zero(cls, classes: int) -> Confusion:
        """Return the confusion of no pixels."""
        return cls(((0,) * classes,) * classes)

    def __add__(self, other: Confusion) -> Confusion:
        if len(self.counts) != len(other.counts):
            raise UsageError(f"confusions of {len(self.counts)} and {len(other.counts)} classes cannot be added")
        total = self.matrix + other.matrix
        return Confusion(_tuples(total), self.unpredicted + other.unpredicted)

    @property
    def matrix(self) -> NDArray[np.int64]:
        """Counts as an array, (true class, predicted class)."""
        return np.array(self.counts, np.int64)

    @property
    def pixels(self) -> int:
        """Number of scored pixels."""
        return int(self.matrix.sum())

    @property
    def iou(self) -> tuple[float, ...]:
        """Intersection over union per class, 0 to 1; nan for a class in neither map (Jaccard)."""
        m = self.matrix
        return _ratio(np.diag(m), m.sum(0) + m.sum(1) - np.diag(m))

    @property
    def dice(self) -> tuple[float, ...]:
        """Dice coefficient (F1) per class, 0 to 1; nan for a class in neither map."""
        m = self.matrix
        return _ratio(2 * np.diag(m), m.sum(0) + m.sum(1))

    @property
    def precision(self) -> tuple[float, ...]:
        """Share of the pixels predicted as a class that are of this class; nan if no pixels were predicted as the
        class."""
        return _ratio(np.diag(self.matrix), self.matrix.sum(0))

    @property
    def recall(self) -> tuple[float, ...]:
        """Share of a class's true pixels that were predicted as this class; nan if the class has no true pixels."""
        return _ratio(np.diag(self.matrix), self.matrix.sum(1))

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur in either map; nan if there are no pixels."""
        return mean_present(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean of `dice` over the classes that occur in either map; nan if there are no pixels."""
        return mean_present(self.dice)

    @property
    def accuracy(self) -> float:
        """Share of scored pixels whose class is right; nan if there are no pixels."""
        return _ratio(np.trace(self.matrix)[None], self.matrix.sum()[None])[0]

    def majority(self) -> Confusion:
        """Return the confusion of the trivial baseline, which predicts the commonest true class everywhere."""
        truth = self.matrix.sum(1)
        trivial = np.zeros_like(self.matrix)
        trivial[:, truth.argmax()] = truth
        return Confusion(_tuples(trivial))


def confusion_matrix(
    prediction: ClassNumbers, truth: ClassNumbers, classes: int, *, ignore: int | None = 255, nodata: int | None = 255
) -> Confusion:
    """Return the confusion of two label maps, (height, width) integers in [0, classes).

    A pixel whose truth is `ignore` is not scored. A pixel whose prediction is `nodata` is not scored, but counted in
    `unpredicted`. Raises `InputError` if shapes, dtypes or values are others.
    """
    return confusion_of(pair(prediction, truth, classes, ignore=ignore, nodata=nodata))


def confusion_of(maps: Pair) -> Confusion:
    """Return the confusion of a checked pair."""
    size = maps.classes + 1
    # Each pair of classes is one number, so a single count is enough.
    joint = np.bincount((maps.truth.astype(np.intp) * size + maps.prediction).ravel(), minlength=size * size)
    # The last row and column stand for no label in the truth and in the prediction.
    table = joint.reshape(size, size)[:-1]
    return Confusion(_tuples(table[:, :-1]), int(table[:, -1].sum()))


def mean_present(values: tuple[float, ...]) -> float:
    """Return the mean of the values that are not nan; nan if all values are nan."""
    present = [value for value in values if not np.isnan(value)]
    return sum(present) / len(present) if present else float("nan")


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> tuple[float, ...]:
    return tuple(int(p) / int(w) if w else float("nan") for p, w in zip(part, whole, strict=True))


def _tuples(matrix: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(value) for value in row) for row in matrix)
