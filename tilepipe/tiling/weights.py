"""Weights: give a tile's pixels integer weights in the blend, which sum to exactly 2**12 at every pixel of an axis.

Weights are the profile's values at a pixel, divided among the tiles that cover the pixel and rounded by the
largest-remainder method. So no pixel gains or loses weight, also at image borders and under the last tile, which is
pulled back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tilepipe.tiling.grid import Axis

UNITY = 1 << 12
"""Sum of the weights of all tiles at every pixel, per axis."""

Profile = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# Each profile maps positions in (-1, 1), with 0 in the centre of the tile, to a weight above 0.
PROFILES: dict[str, Profile] = {
    "constant": np.ones_like,
    "gaussian": lambda t: np.asarray(np.exp(-0.5 * (4.0 * t) ** 2)),  # sigma = tile / 8, as nnU-Net
    "hann": lambda t: np.asarray(np.cos(0.5 * np.pi * t) ** 2),
    "linear": lambda t: 1.0 - np.abs(t),
}


@lru_cache(maxsize=256)
def weights(axis: Axis, k: int, shape: str) -> NDArray[np.int64]:
    """Return the weights of tile k, (axis.tile,) int64 in [0, 2**12]; over all tiles they sum to 2**12 at each pixel.

    `shape` is a key of `PROFILES` or 'crop' (2**12 on the kept pixels, 0 elsewhere).
    """
    origin = axis.origin(k)
    if shape == "crop":
        result = np.zeros(axis.tile, np.int64)
        start, stop = axis.kept(k)
        result[start - origin : stop - origin] = UNITY
    else:
        near = axis.tiles_over(origin, origin + axis.tile)
        result = _shares(_profiles(axis, origin, near, shape))[k - near.start]
    # The cache hands one array to all callers.
    result.flags.writeable = False
    return result


def _profiles(axis: Axis, start: int, tiles: range, shape: str) -> NDArray[np.float64]:
    """Return each tile's profile at the pixels from `start` on, (tiles, axis.tile); 0 where a tile does not cover."""
    pixels = np.arange(start, start + axis.tile)
    values = np.zeros((len(tiles), axis.tile))
    for row, k in enumerate(tiles):
        # Positions are those of the pixels' centres. At -1 and 1 'hann' and 'linear' are 0, and a pixel that one tile
        # alone covers would have no weight at all.
        position = (2.0 * (pixels - axis.origin(k)) + 1.0) / axis.tile - 1.0
        inside = np.abs(position) < 1.0
        values[row, inside] = PROFILES[shape](position[inside])
    return values


def _shares(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return integers that sum to 2**12 in every column and are nearest to the column's proportions.

    If remainders are equal, the first row gets the rest.
    """
    total = np.zeros(values.shape[1])
    for row in values:  # one fixed order of additions
        total = total + row
    quota = values * UNITY / total
    shares = np.floor(quota).astype(np.int64)
    missing = UNITY - shares.sum(axis=0)
    # The argsort of an argsort is the rank of each row in its column. A stable sort decides equal remainders by the row
    # and not by chance.
    rank = np.argsort(np.argsort(shares - quota, axis=0, kind="stable"), axis=0, kind="stable")
    return np.asarray(shares + (rank < missing))
