"""This module defines a pair: a predicted and a true label map in the form that measures need, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, UsageError

ClassNumbers = NDArray[np.integer | np.bool_]
"""A label map, (height, width), of any integer dtype or bool."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The two label maps, of one shape; the value `classes` means "no label" in both. `pair` makes it."""

    prediction: NDArray[np.uint16]
    """Predicted labels, (height, width), 0 to `classes`."""
    truth: NDArray[np.uint16]
    """True labels, (height, width), 0 to `classes`."""
    classes: int
    """Number of classes."""

    def scored(self) -> NDArray[np.bool_]:
        """Return a bool array (height, width): True if both maps hold a label at a pixel."""
        return np.asarray((self.prediction < self.classes) & (self.truth < self.classes))

    def masked(self) -> Pair:
        """Return the pair with "no label" in both maps at each pixel that has no label in one of them."""
        scored = self.scored()
        if scored.all():
            return self
        nodata = np.uint16(self.classes)
        return Pair(np.where(scored, self.prediction, nodata), np.where(scored, self.truth, nodata), self.classes)

    def crop(self, rows: slice, columns: slice) -> Pair:
        """Return the part of both maps in `rows` and `columns`."""
        return Pair(self.prediction[rows, columns], self.truth[rows, columns], self.classes)


def pair(
    prediction: ClassNumbers, truth: ClassNumbers, classes: int, *, ignore: int | None = 255, nodata: int | None = 255
) -> Pair:
    """Return the two maps as a `Pair`.

    `prediction` and `truth` are (height, width) integers in [0, classes). A pixel whose truth is `ignore` or whose
    prediction is `nodata` holds no label. Raises `InputError` if shapes, dtypes or values are others.
    """
    if not 1 <= classes < 2**16:
        raise UsageError(f"{classes} classes: give a number from 1 to 65535")
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise InputError(
            f"prediction {prediction.shape} and truth {truth.shape} are not two maps of one (height, width)"
        )
    return Pair(_codes(prediction, classes, nodata, "prediction"), _codes(truth, classes, ignore, "truth"), classes)


def _codes(labels: ClassNumbers, classes: int, nodata: int | None, what: str) -> NDArray[np.uint16]:
    if labels.dtype.kind not in "uib":
        raise InputError(f"{what} holds {labels.dtype}, not class numbers; give an integer label map")
    empty = np.zeros(labels.shape, bool) if nodata is None else labels == nodata
    wrong = ~empty & ((labels < 0) | (labels >= classes))
    if wrong.any():
        raise InputError(
            f"{what} holds the value {int(labels[wrong][0])}, but there are {classes} classes (0 to {classes - 1}); "
            "name all classes, or name the value as ignore (truth) or nodata (prediction)"
        )
    # "No label" is the number after the last class, so both maps need no mask beside them.
    return np.where(empty, np.uint16(classes), labels.astype(np.uint16))
