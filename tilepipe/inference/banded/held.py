"""Held: norms and poolings over the whole image in bands, with statistics that are held fixed.

Such an operation becomes one node of the graph, `tilepipe::held`. In a pass each of its rows gets the statistics of its
place in the image, as a tile there would get them (`inference/statistics`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tilepipe.inference.banded.rules import Rule
from tilepipe.inference.statistics.capture import Mode, Nodes, put_in
from tilepipe.inference.statistics.operations import Operation

NAME = "tilepipe::held"
"""Name of the operation in a graph."""
Under = Callable[[int, int], Nodes]
"""Returns the statistics at rows [first, last) of a plane, counted from its top at full resolution."""


@torch.library.custom_op(NAME, mutates_args=())
def held(
    x: Tensor, first: int, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 0.0
) -> Tensor:
    """Stand for an operation in a graph, see `Operation`; `first` is the number of its first statistics."""
    raise RuntimeError("held operations are computed by their rule")


@held.register_fake
def _(
    x: Tensor, first: int, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 0.0
) -> Tensor:
    return torch.empty_like(x)


class Marked(nn.Module):
    """A module whose operations over the whole image are `held` in the graph that torch exports of it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output for (B, bands, H, W)."""
        with _Marking():
            found: Tensor = self.module(x)
        return found


class _Marking(Mode):
    """Puts `held` in the place of every operation that has statistics, in order of call."""

    def __init__(self) -> None:
        super().__init__()
        self.used = 0

    def meet(self, met: Operation, live: Callable[[], Tensor]) -> Tensor:
        first, self.used = self.used, self.used + met.values
        marked: Tensor = held(met.x, first, met.groups, met.weight, met.bias, met.eps)
        return marked if met.groups else self.spread.mark(marked)


class Held(Rule):
    """An operation with fixed statistics. It keeps no rows."""

    def __init__(self, operation: Callable[[Tensor], Operation], first: int) -> None:
        """Take what makes the operation on some rows, and the number of its first statistics."""
        self.operation, self.first = operation, first
        self.under: Under | None = None
        self.stride, self.row = 1, 0

    def begin(self, under: Under, stride: int) -> None:
        """Say where the pass gets statistics, and how many rows of the plane a row of this operation stands for."""
        self.under, self.stride = under, stride

    def push(self, arrived: list[Tensor | None], last: bool) -> Tensor | None:
        """Return the rows with the statistics of their places."""
        if (x := arrived[0]) is None:
            return None
        assert self.under is not None, "a pass over a network with held statistics needs them"
        top = self.row * self.stride
        self.row += x.shape[2]
        return put_in(self.operation(x), [self.under(top, self.row * self.stride)], self.first)
