"""Held: keeps statistics of a model's global operations fixed, as a run does, but without an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tilepipe.box import Box
from tilepipe.inference.statistics.capture import FixedStatistics, Nodes, Recorder
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
        return FixedStatistics([self.around(place) for place in places])

    def around(self, place: Box) -> Nodes:
        """Return the statistics around a box."""
        return Nodes(place, self.patches, Box.of_shape(*self.values.shape[:2]), self.values)

    def rows(self, width: int, top: int = 0) -> Callable[[int, int], Nodes]:
        """Return what gives the statistics of rows of a plane that is `width` pixels wide and begins at row `top`."""
        return lambda first, last: self.around(Box(top + first, 0, top + last, width))


def made_up(module: nn.Module, plane: Tensor, statistics: Statistics, side: int) -> Held:
    """Return statistics of the size that a plane's own have, which change from one patch of `side` pixels to the next.

    `plane` is (1, bands, H, W), and `side` divides H and W.
    """
    recorder = Recorder()
    with recorder:
        module(plane)
    own = recorder.values()[0]
    found: NDArray[np.floating] = np.stack([own, own * 1.25])
    if plane.dtype != torch.float64:
        found = found.astype(np.float32)
    height, width = plane.shape[2:]
    return hold(replace(statistics, kind="field", window=side), found, (height, width), side)


def hold(statistics: Statistics, found: NDArray[np.floating], shape: tuple[int, int], stride: int) -> Held:
    """Return the patches that a run would have over an image of `shape` (height, width), with the statistics `found`.

    `found` is (tiles, values); the patches take its rows in turn, and each patch has weight 1.
    """
    patches = statistics.patches(shape, stride)
    rows, columns = patches.y.count, patches.x.count
    values = found[np.arange(rows * columns) % len(found)].reshape(rows, columns, -1)
    return Held(patches, np.concatenate((values, np.ones((rows, columns, 1), found.dtype)), 2))
