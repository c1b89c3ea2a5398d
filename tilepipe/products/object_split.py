"""Touching objects: a component is split at its necks, by a watershed of the distance to its border."""

from __future__ import annotations

import numpy as np
import scipy
import skimage
from numpy.typing import NDArray

from tilepipe.arrays import Array

THINNEST = 3.0
"""Pixels from its border that the middle of a part must lie to be an object of its own."""
DENT = 1.0
"""Pixels: a dent of one pixel in the border of a thin object is no neck."""
CROSS = np.array([[False, True, False], [True, True, True], [False, True, False]])


def split(mask: NDArray[np.bool_], neck: float, filled: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    """Return the objects (height, width) that a component is, numbered from 1; 0 outside.

    `mask` (height, width) holds the whole component and nothing else. Two parts are two objects if the neck between
    them is narrower than `neck` (0 to 1) times the thinner part; both are measured by the largest distance to the
    border, and they differ by more than `DENT`. `filled` is the component with its holes, if it has any: these are no
    border. Each object is 4-connected.
    """
    solid, whole = mask if filled is None else filled, mask.astype(np.int32)
    distance = scipy.ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1].astype(np.float32)
    if distance.max() < THINNEST:
        return whole
    # Maxima that stand out by less than a neck does are no parts.
    thick = distance >= THINNEST
    lowered = np.where(thick, np.minimum(distance * np.float32(neck), distance - np.float32(DENT)), np.float32(0))
    raised = skimage.morphology.reconstruction(lowered, distance, footprint=CROSS)
    tops = skimage.measure.label(skimage.morphology.local_maxima(raised, footprint=CROSS), connectivity=1)
    wanted = np.unique(tops[thick & (tops > 0)])
    if len(wanted) < 2:
        return whole
    markers = np.where(np.isin(tops, wanted), tops, 0)
    found = skimage.segmentation.watershed(-distance, markers, connectivity=1, mask=solid)
    return np.asarray(found if filled is None else _without_holes(found, mask, distance), np.int32)


def _without_holes(found: NDArray[np.integer], mask: NDArray[np.bool_], distance: NDArray[np.floating]) -> Array:
    """Return objects without the holes that cut them: what is cut off the largest piece of each goes to neighbours."""
    pieces = skimage.measure.label(np.where(mask, found, 0), connectivity=1)
    sizes, owner = np.bincount(pieces.ravel()), np.zeros(int(pieces.max()) + 1, np.int64)
    owner[pieces[mask]] = found[mask]
    order = np.lexsort((-sizes, owner))
    order = order[owner[order] > 0]
    largest = order[np.flatnonzero(np.diff(owner[order], prepend=0))]
    number = np.zeros(len(sizes), np.int32)
    number[largest] = np.arange(1, len(largest) + 1)
    return np.asarray(skimage.segmentation.watershed(-distance, number[pieces], connectivity=1, mask=mask))
