"""Held: statistics of a model's global operations as a run holds them fixed, made up where no image is at hand."""

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
    """Where they were taken."""
    values: NDArray[np.floating]
    """(rows, columns, values + 1) of the patches; the last is what they weigh."""

    def under(self, places: Sequence[Box]) -> FixedStatistics:
        """Return what puts them into tiles at these places."""
        every = Box.of_shape(*self.values.shape[:2])
        return FixedStatistics([Nodes(place, self.patches, every, self.values) for place in places])


def hold(statistics: Statistics, found: NDArray[np.floating], shape: tuple[int, int], stride: int) -> Held:
    """Return the patches that a run would have over an image of `shape`, with the statistics `found` in turn.

    `found` is (tiles, values); each patch weighs 1.
    """
    patches = statistics.patches(shape, stride)
    rows, columns = patches.y.count, patches.x.count
    values = found[np.arange(rows * columns) % len(found)].reshape(rows, columns, -1)
    return Held(patches, np.concatenate((values, np.ones((rows, columns, 1), found.dtype)), 2))
