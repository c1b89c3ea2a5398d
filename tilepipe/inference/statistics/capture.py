"""Capture: takes or replaces the statistics of operations that mix a whole tile (instance and group norm, pooling).

Torch functions are caught when they are called, so any module can be run like this. `Recorder` takes the statistics of
live tiles. `FixedStatistics` replaces them by the statistics of a field, interpolated at each feature pixel; so a
pooled vector becomes a map (see `spread`). `Summer` adds up what one operation sees and stops there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilepipe.box import Box
from tilepipe.errors import ModelError
from tilepipe.inference.statistics.operations import PIECE, Operation, operation, statistics
from tilepipe.inference.statistics.spread import Spread
from tilepipe.models.torch_calls import Call, Calls
from tilepipe.tiling.grid import Grid
from tilepipe.tiling.statistics_grid import Taps, taps


class Mode(Calls):
    """Hands every operation of a model, in order of call, to `meet`."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = Spread()

    def made(self, call: Call) -> object:
        """Make the call, or its replacement."""
        met = operation(call)
        return self.spread.run(call) if met is None else self.meet(met, call)

    def meet(self, met: Operation, live: Callable[[], Tensor]) -> Tensor:
        """Return the output of an operation; `live` gives the output for the tile itself."""
        raise NotImplementedError


class Recorder(Mode):
    """Runs a model as it is and keeps the statistics of its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        """Statistics of each operation so far, (B, values) float64."""

    def meet(self, met: Operation, live: Callable[[], Tensor]) -> Tensor:
        """Keep the statistics of an operation and return its own output."""
        count = met.shared * met.x.shape[2] * met.x.shape[3]
        self.found.append(statistics(met.moments(), count, norm=met.groups > 0))
        return live()

    def values(self) -> NDArray[np.float64]:
        """Return all statistics, (B, values of all operations)."""
        return torch.cat(self.found, 1).cpu().numpy()


@dataclass(frozen=True)
class Nodes:
    """Statistics around one tile."""

    tile: Box
    """Place of the tile on the prediction grid."""
    patches: Grid
    """Patches in which statistics were taken."""
    at: Box
    """Rows and columns of the patches in `values`: at least the patches that decide the tile."""
    values: NDArray[np.floating]
    """Statistics (rows, columns, values of all operations + 1), in float32 or, for a model in fp64, in float64.

    The last value is the weight of the patch, above 0.
    """

    def interpolated(self, first: int, count: int, size: tuple[int, int], device: torch.device) -> Tensor:
        """Return `count` statistics from number `first` on at every pixel of a map of `size`, (count, H, W).

        Raises `ModelError` if the size of the map does not divide the tile.
        """
        # A patch counts by the share of its pixels that hold image data. Weights are interpolated like the weighted
        # values, and their quotient is the statistics.
        weight = self.values[:, :, -1:]
        weighted = self.values[:, :, first : first + count] * weight
        nodes = np.concatenate((weighted, weight), 2).transpose(2, 0, 1)  # (count + 1, rows, columns)
        rows, columns = self._taps(size)
        maps = torch.from_numpy(np.ascontiguousarray(nodes)).to(device)
        # Element by element, in a fixed order, from places in the image: no bit depends on the tile.
        for axis, (below, above, share) in ((2, columns), (1, rows)):
            shape = [1, -1, 1] if axis == 1 else [1, 1, -1]
            near, far = (
                torch.from_numpy(s.astype(self.values.dtype)).to(device).view(shape) for s in (1 - share, share)
            )
            index = [torch.from_numpy(k).to(device) for k in (below, above)]
            maps = maps.index_select(axis, index[0]) * near + maps.index_select(axis, index[1]) * far
        return maps[:-1] / maps[-1:]

    def _taps(self, size: tuple[int, int]) -> list[Taps]:
        """Return rows and columns of taps, counted from the first patch in `values`."""
        tile, axes, found = self.tile, (self.patches.y, self.patches.x), []
        spans = ((tile.y0, tile.height, self.at.y0), (tile.x0, tile.width, self.at.x0))
        for axis, (start, length, first), count in zip(axes, spans, size, strict=True):
            if length % count:
                raise ModelError(f"a feature map of {count} for {length} px: statistics have no place in such a model")
            below, above, share = taps(axis, start, count, length // count)
            found.append(Taps(below - first, above - first, share))
        return found


class FixedStatistics(Mode):
    """Runs a model with the statistics of a field in place of its tiles' own; one `Nodes` per tile of the batch."""

    def __init__(self, tiles: Sequence[Nodes]) -> None:
        super().__init__()
        self.tiles = tiles
        self.used = 0
        """Number of statistics put in so far."""

    def meet(self, met: Operation, live: Callable[[], Tensor]) -> Tensor:
        """Return the operation's output from the field, (B, C, H, W); zeros for tiles that only fill the batch."""
        first, self.used = self.used, self.used + met.values
        out = put_in(met, self.tiles, first)
        # A norm gives a map in the original model too. Pooling gave a vector, so what follows must be told that this is
        # a map.
        return out if met.groups else self.spread.mark(out)


class Summer(FixedStatistics):
    """Runs a model with fixed statistics up to the first operation without them, and adds up its moments over cores."""

    def __init__(self, tiles: Sequence[Nodes], cores: Sequence[Box]) -> None:
        super().__init__(tiles)
        self.cores = cores
        self.known = tiles[0].values.shape[2] - 1
        self.found: list[NDArray[np.float64]] = []
        """Sums of each core, (values + 2,): moments, the number of values, and 1 for a norm or 0 for pooling."""

    def meet(self, met: Operation, live: Callable[[], Tensor]) -> Tensor:
        """Put statistics in; if there are none for the operation, add up its moments and raise `Reached`."""
        if self.used < self.known:
            return super().meet(met, live)
        for item, (nodes, core) in enumerate(zip(self.tiles, self.cores, strict=True)):
            # Cores are given in pixels of the tile; the map of this layer may be smaller.
            strides = [long // short for long, short in zip(nodes.tile.shape, met.x.shape[2:], strict=True)]
            rows, columns = (
                slice(part.start // stride, part.stop // stride)
                for part, stride in zip(core.slices_in(nodes.tile), strides, strict=True)
            )
            moments = replace(met, x=met.x[item : item + 1]).moments(rows, columns)[0].cpu().numpy()
            count = met.shared * (rows.stop - rows.start) * (columns.stop - columns.start)
            self.found.append(np.append(moments, (count, met.groups > 0)))
        raise Reached


class Reached(Exception):  # noqa: N818 - it is no error
    """Signal that a pass has reached the operation it was made for; the rest of the model is not needed."""


def put_in(met: Operation, tiles: Sequence[Nodes], first: int) -> Tensor:
    """Return the output (B, C, H, W) of an operation with fixed statistics, from number `first` on.

    There is one `Nodes` per tile; tiles that have none, and only fill the batch, are zeros.
    """
    channels, height, width = met.x.shape[1:]
    out = torch.zeros_like(met.x)
    step = max(1, PIECE // (height * width))
    for item, nodes in enumerate(tiles):
        for start in range(0, channels, step):
            part = slice(start, min(start + step, channels))
            out[item, part] = met.applied(_maps(met, nodes, first, part), part, item)
    return out


def _maps(met: Operation, nodes: Nodes, first: int, channels: slice) -> Tensor:
    """Return the statistics of some channels of an operation at every pixel, as `Operation.applied` takes them."""
    size = met.x.shape[2], met.x.shape[3]
    count = channels.stop - channels.start
    if not met.groups:
        return nodes.interpolated(first + channels.start, count, size, met.x.device)
    # The statistics of a norm are the means of all groups and then their variances.
    shared = met.x.shape[1] // met.groups
    group = slice(channels.start // shared, (channels.stop - 1) // shared + 1)
    maps = [
        nodes.interpolated(first + of + group.start, group.stop - group.start, size, met.x.device)
        for of in (0, met.groups)
    ]
    index = torch.arange(channels.start, channels.stop, device=met.x.device) // shared - group.start
    return torch.stack([part.index_select(0, index) if shared > 1 else part for part in maps])
