"""The error map: where labels and truth agree, and where they do not, in tiles of the screen."""

from __future__ import annotations

import numpy as np

from tilepipe.arrays import Labels
from tilepipe.view.map_tiles import MapTiles

ERRORS = "errors"
"""Name of the layer."""
RIGHT, WRONG, UNKNOWN = 0, 1, 255
"""Values of the layer; a pixel is unknown if labels or truth say nothing about it."""


def error_tile(labels: MapTiles, truth: MapTiles, level: int, row: int, column: int) -> bytes | None:
    """Return the values of a tile of the error map, as `MapTiles.tile` does; None if all of it is unknown.

    At full size every pixel is compared. Further out the smaller versions of both maps are compared, whose pixels
    have the labels that most of their parts have.
    """
    one, other = labels.values(level, row, column), truth.values(level, row, column)
    if one is None or other is None:
        return None
    found = compared(one, labels.map.legend.nodata, other, truth.map.legend.nodata)
    return None if (found == UNKNOWN).all() else found.tobytes()


def compared(one: Labels, one_nodata: int, other: Labels, other_nodata: int) -> Labels:
    """Return `RIGHT`, `WRONG` or `UNKNOWN` for each pixel of two maps of one shape, uint8."""
    known = (one != one_nodata) & (other != other_nodata)
    return np.where(known, np.where(one == other, RIGHT, WRONG), UNKNOWN).astype(np.uint8)
