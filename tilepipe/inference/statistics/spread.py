"""Spread: carries a pooled vector as a map, with a vector for each pixel, through layers that are made for vectors.

If a model pools to (B, C), statistics of a field give (B, C, H, W). A linear layer then becomes a 1 x 1 convolution.
A function that turns a vector into a 1 x 1 map or back leaves the map as it is, until the map meets the features of
the tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from tilepipe.models.torch_calls import Call


class Spread:
    """The tensors of one run of a model that are maps (B, C, H, W) in place of vectors (B, C) or (B, C, 1, 1)."""

    def __init__(self) -> None:
        """Begin without maps."""
        self._maps = WeakIdKeyDictionary()

    def mark(self, tensor: Tensor) -> Tensor:
        """Note that a tensor is a map, and return it."""
        self._maps[tensor] = True
        return tensor

    def marked(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a map in place of a vector."""
        return tensor in self._maps

    def run(self, call: Call) -> object:
        """Make a call whose arguments may be maps; the result is a map too until it meets features."""
        given = [leaf for leaf in tree_leaves((call.arguments, call.keywords)) if isinstance(leaf, Tensor)]
        if not any(map(self.marked, given)):
            return call()
        out = replace(call, function=_FOR_VECTORS.get(call.function, call.function))()
        # A parameter of four axes is the kernel of a layer and no features.
        if any(each.ndim == 4 and not (self.marked(each) or isinstance(each, nn.Parameter)) for each in given):
            self._maps.pop(out, None)  # an operation in place returns the map that it has written features to
            return out
        return tree_map_only(Tensor, self.mark, out)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight[:, :, None, None], bias)


def _same(x: Tensor, *shape: object, **others: object) -> Tensor:
    return x


def _item(x: Tensor, index: Any) -> Tensor:
    # None gives a vector the axes of a map, which the map has already.
    kept = tuple(one for one in index if one is not None) if isinstance(index, tuple) else index
    return x[kept]


_FOR_VECTORS: dict[Callable[..., object], Callable[..., Tensor]] = {
    F.linear: _linear,
    Tensor.__getitem__: _item,
    **dict.fromkeys((Tensor.view, Tensor.reshape, Tensor.flatten, Tensor.squeeze, Tensor.unsqueeze), _same),
    **dict.fromkeys((torch.reshape, torch.flatten, torch.squeeze, torch.unsqueeze), _same),
}
"""Replacements for functions that are made for vectors, or that turn vectors into 1 x 1 maps and back."""
