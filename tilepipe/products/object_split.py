"""Touching objects are separated: a watershed of the distance to the border splits a component at its necks."""

from __future__ import annotations

import numpy as np
import scipy
import skimage
from numpy.typing import NDArray

from tilepipe.arrays import Array

THINNEST = 3.0
"""Least distance in pixels from the border to the middle of a part that becomes an object of its own."""
DENT = 1.0
"""Depth in pixels of a dent that is no neck: a thin object's border may have dents of one pixel."""
CROSS = np.array([[False, True, False], [True, True, True], [False, True, False]])


def split(mask: NDArray[np.bool_], neck: float, filled: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    """Return the objects of a component, numbered from 1, as (height, width) numbers; pixels outside are 0.

    `mask` (height, width) holds the whole component and nothing else. Two parts are two objects if the neck between
    them is narrower than `neck` (0 to 1) times the thinner part, and thinner by more than `DENT`. Width is measured as
    the largest distance to the border. `filled` is the component with its holes filled, if it has holes: the edge of a
    hole is no border. Each object is 4-connected.
    """
    solid, whole = mask if filled is None else filled, mask.astype(np.int32)
    # Beyond the box lies no object: without this edge, pixels at the edge of the box would count as deep inside.
    distance = scipy.ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1].astype(np.float32)
    if distance.max() < THINNEST:
        return whole
    # A maximum that rises less above its neighbours than a neck needs is no part.
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
    """Return objects without holes; if holes cut an object, its largest piece stays and the rest joins neighbours."""
    pieces = skimage.measure.label(np.where(mask, found, 0), connectivity=1)
    sizes, owner = np.bincount(pieces.ravel()), np.zeros(int(pieces.max()) + 1, np.int64)
    owner[pieces[mask]] = found[mask]
    order = np.lexsort((-sizes, owner))
    order = order[owner[order] > 0]
    largest = order[np.flatnonzero(np.diff(owner[order], prepend=0))]
    number = np.zeros(len(sizes), np.int32)
    number[largest] = np.arange(1, len(largest) + 1)
    return np.asarray(skimage.segmentation.watershed(-distance, number[pieces], connectivity=1, mask=mask))
