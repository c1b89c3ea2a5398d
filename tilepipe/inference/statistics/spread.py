"""Spread: a pooled vector as a map, a vector per pixel, on its way through layers that are made for vectors.

Where a model pools to (B, C), statistics of a field give (B, C, H, W). A linear layer is a 1x1 convolution there, and
what turns a vector into a 1 x 1 map and back leaves the map as it is, until it meets the features of the tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses
from torch.utils._pytree import tree_leaves, tree_map_only

from tilepipe.models.torch_calls import Call


class Spread(Tensor):
    """(B, C, H, W) where the model has (B, C) or (B, C, 1, 1)."""

    # A mark and no more: torch's own handler would hand the class on to every result, also where a map meets the
    # features of a tile.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


def run(call: Call) -> object:
    """Make a call, of whose arguments any may be a `Spread`; the result is one until it meets features."""
    given = [leaf for leaf in tree_leaves((call.arguments, call.keywords)) if isinstance(leaf, Tensor)]
    if not any(isinstance(tensor, Spread) for tensor in given):
        return call()
    out = replace(call, function=_FOR_VECTORS.get(call.function, call.function))()
    if any(tensor.ndim == 4 and not isinstance(tensor, Spread | nn.Parameter) for tensor in given):
        return out
    return tree_map_only(Tensor, lambda tensor: tensor.as_subclass(Spread), out)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight[:, :, None, None], bias)


def _same(x: Tensor, *shape: object, **others: object) -> Tensor:
    return x


def _item(x: Tensor, index: Any) -> Tensor:
    kept = tuple(one for one in index if one is not None) if isinstance(index, tuple) else index
    return x[kept]


_FOR_VECTORS: dict[Callable[..., object], Callable[..., Tensor]] = {
    F.linear: _linear,
    Tensor.__getitem__: _item,
    **dict.fromkeys((Tensor.view, Tensor.reshape, Tensor.flatten, Tensor.squeeze, Tensor.unsqueeze), _same),
    **dict.fromkeys((torch.reshape, torch.flatten, torch.squeeze, torch.unsqueeze), _same),
}
"""What stands for functions that are made for vectors, or make maps of 1 x 1 pixels of them and back."""
