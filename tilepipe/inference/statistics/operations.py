"""Operations: recognises the calls of torch that mix a whole tile, which are instance norm, group norm and pooling."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.models.torch_calls import Call

Dims = int | Sequence[int] | None
"""Axes of a mean, as torch takes them."""
PIECE = 1 << 19
"""Number of values of a feature map that are read or replaced at once, so that no second map lies whole in memory."""


@dataclass(frozen=True)
class Operation:
    """A call that mixes the pixels of each tile of its input."""

    x: Tensor
    """Input (B, C, H, W)."""
    groups: int
    """Number of groups of channels that share mean and variance; 0 for mean pooling to (B, C, 1, 1) or (B, C)."""
    weight: Tensor | None = None
    """Weight of a norm, (C,)."""
    bias: Tensor | None = None
    """Bias of a norm, (C,)."""
    eps: float = 0.0
    """Number that is added to the variance."""

    @property
    def values(self) -> int:
        """Number of statistics per tile: mean and variance of each group, or the mean of each channel."""
        return 2 * self.groups or self.x.shape[1]

    @property
    def shared(self) -> int:
        """Number of channels that share statistics."""
        return self.x.shape[1] // (self.groups or self.x.shape[1])

    def moments(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """Return sums over part of the map, (B, values) float64: of values, and of squares for a norm."""
        # Sums are float64, since the variance is a difference of two of them: float32 would lose it if the mean is
        # large.
        part, found = self.x[:, :, rows, columns], []
        pieces = part.split(max(1, PIECE // max(1, part[:, 0].numel())), 1)
        room = torch.empty_like(pieces[0], dtype=torch.float64)  # one for all: threads' heaps keep what they have had
        for power in (1, 2) if self.groups else (1,):
            # Rows are summed first: no sum is divided among threads, so no sum depends on the number of threads.
            sums = [room[:, : piece.shape[1]].copy_(piece).pow_(power).sum(3).sum(2) for piece in pieces]
            found.append(torch.cat(sums, 1))
        return torch.cat([one.unflatten(1, (-1, self.shared)).sum(2) for one in found], 1)

    def applied(self, statistics: Tensor, channels: slice, item: int) -> Tensor:
        """Return the operation's output for some channels of one tile, from their statistics at every pixel.

        `statistics` is (C, H, W) for pooling, (2, C, H, W) for a norm.
        """
        if not self.groups:
            return statistics
        mean, variance = statistics
        y: Tensor = (self.x[item, channels].to(mean.dtype) - mean) / (variance + self.eps).sqrt()
        if self.weight is not None:
            y.mul_(self.weight[channels, None, None])
        return y if self.bias is None else y.add_(self.bias[channels, None, None])


def operation(call: Call) -> Operation | None:
    """Return the operation that a call is; None if the call is local or of an unknown kind."""
    known = _KNOWN.get(call.function)
    found = known(*call.arguments, **call.keywords) if known else None
    return found if found is not None and found.x.ndim == 4 else None


def statistics(moments: Tensor, count: int, *, norm: bool) -> Tensor:
    """Return (B, values) float64 from (B, values) moments over `count` values each: mean and variance, or the mean."""
    found = moments / count
    if not norm:
        return found
    mean, square = found.chunk(2, 1)
    # In a flat area the difference of two nearly equal numbers may be rounded below zero.
    return torch.cat((mean, (square - mean.square()).clamp_min(0)), 1)


def added_up(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the statistics (values,) of one operation from the sums of `Summer` for all cores, (cores, values + 2)."""
    *moments, count, norms = sums.sum(0).tolist()
    return statistics(torch.tensor([moments], dtype=torch.float64), int(count), norm=norms > 0)[0].numpy()


def _instance_norm(*args: object, **kwargs: object) -> Operation | None:
    given = inspect.signature(F.instance_norm).bind(*args, **kwargs)
    given.apply_defaults()
    of = given.arguments
    x: Tensor = of["input"]
    # With running statistics a norm is the same at every pixel and mixes nothing.
    return Operation(x, x.shape[1], of["weight"], of["bias"], of["eps"]) if of["use_input_stats"] else None


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Operation:
    return Operation(x, num_groups, weight, bias, eps)


def _adaptive(x: Tensor, output_size: object) -> Operation | None:
    # Pooling to more than one cell depends on where the cells of a tile lie, which no statistics per pixel replace.
    return Operation(x, 0) if output_size in (1, (1, 1), [1, 1]) else None


def _mean(
    x: Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None, **others: object
) -> Operation | None:
    asked = dim if axis is None else axis
    dims = (asked,) if isinstance(asked, int) else tuple(asked or ())
    # The axes of a mean may be counted from the end.
    return Operation(x, 0) if x.ndim == 4 and sorted(d % 4 for d in dims) == [2, 3] else None


_KNOWN: dict[Callable[..., Tensor], Callable[..., Operation | None]] = {
    F.instance_norm: _instance_norm,
    F.group_norm: _group_norm,
    torch.group_norm: _group_norm,
    F.adaptive_avg_pool2d: _adaptive,
    torch.mean: _mean,
    Tensor.mean: _mean,
}
