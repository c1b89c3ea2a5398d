"""Held: keeps statistics of a model's global operations fixed, as a run does, but without an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.inference.statistics.capture import FixedStatistics, Nodes
from tilepipe.tiling.grid import Grid
from tilepipe.tiling.statistics_grid import Statistics


@dataclass(frozen=True)
class Held:
    """Statistics of the patches of a grid."""

    patches: Grid
    """Patches in which the statistics were taken."""
    values: NDArray[np.floating]
    """Statistics of the patches, (rows, columns, values + 1); the last value is the weight of the patch."""

    def under(self, places: Sequence[Box]) -> FixedStatistics:
        """Return the mode that puts the statistics into tiles at these places."""
        every = Box.of_shape(*self.values.shape[:2])
        return FixedStatistics([Nodes(place, self.patches, every, self.values) for place in places])


def hold(statistics: Statistics, found: NDArray[np.floating], shape: tuple[int, int], stride: int) -> Held:
    """Return the patches that a run would have over an image of `shape` (height, width), with the statistics `found`.

    `found` is (tiles, values); the patches take its rows in turn, and each patch has weight 1.
    """
    patches = statistics.patches(shape, stride)
    rows, columns = patches.y.count, patches.x.count
    values = found[np.arange(rows * columns) % len(found)].reshape(rows, columns, -1)
    return Held(patches, np.concatenate((values, np.ones((rows, columns, 1), found.dtype)), 2))
