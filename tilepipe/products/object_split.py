"""Touching objects: a component is split at its necks, by a watershed of the distance to its border."""

from __future__ import annotations

import math

import numpy as np
import scipy
import skimage
from numpy.typing import NDArray

THINNEST = 3.0
"""Pixels from its border that the middle of a part must lie to be an object of its own."""
CROSS = np.array([[False, True, False], [True, True, True], [False, True, False]])


def split(mask: NDArray[np.bool_], neck: float, filled: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    """Return the objects (height, width) that a component is, numbered from 1; 0 outside.

    `mask` (height, width) holds the whole component and nothing else. Two parts are two objects if the neck between
    them is narrower than `neck` (0 to 1) times the thinner part; both are measured by the largest distance to the
    border. `filled` is the component with its holes, if it has any: these are no border. Each object is 4-connected.
    """
    solid, whole = mask if filled is None else filled, mask.astype(np.int32)
    distance = scipy.ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1].astype(np.float32)
    if distance.max() < THINNEST:
        return whole
    # A ratio of distances is a difference of their logarithms: maxima that stand out by less than that are no parts.
    height = np.log(np.maximum(distance, 1))
    thick = distance >= THINNEST
    lowered = np.where(thick, height + np.float32(math.log(neck)), np.float32(0))
    raised = skimage.morphology.reconstruction(lowered, height, footprint=CROSS)
    tops = skimage.morphology.local_maxima(raised, footprint=CROSS) & thick
    markers, count = skimage.measure.label(tops, connectivity=1, return_num=True)
    if count < 2 or not (markers[mask] > 0).any():  # a ring around one hole
        return whole
    found = skimage.segmentation.watershed(-distance, markers, connectivity=1, mask=mask)
    return np.asarray(found if filled is None else skimage.measure.label(found, connectivity=1), np.int32)
