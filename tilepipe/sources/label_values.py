"""Reads label values from any raster: whole numbers of every type, and the class that is nodata."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Source

MOST = 2.0**53
"""Largest label; whole numbers up to this are exact in float64."""


def whole_numbers(source: Source, box: Box) -> NDArray[np.int64]:
    """Return the values of the first band of `box`, (height, width); 0 where a float is not finite.

    Raises `InputError` if a value is a fraction.
    """
    values = source.read(box)[0]
    if values.dtype.kind != "f":
        return np.asarray(values, np.int64)
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    wrong = (values != np.round(values)) | (np.abs(values) > MOST)
    if wrong.any():
        raise InputError(
            f"{source.name} holds the value {values[wrong][0]:.6g}; labels are whole numbers, so give a label raster "
            "and no probabilities"
        )
    return np.asarray(values, np.int64)


def nodata_class(source: Source, classes: int) -> int | None:
    """Return the class whose value is a raster's nodata value (many tools use 0); None if there is no such class."""
    nodata = getattr(source, "nodata", None)
    return next((k for k in range(classes) if k == nodata), None)
