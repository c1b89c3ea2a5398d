"""This module calls a network as its card says: order of bands, layout of axes, padding and class threshold.

A card states the convention by the fields `channels`, `layout`, `pad` and `threshold`. The network is called with tiles
that are scaled already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from tilepipe.models.card import ModelCard


class CallingConvention(NamedTuple):
    """How a network is called; the defaults are tiles and maps (B, channels, H, W) of one size."""

    reverse: bool = False
    """Whether the network reads the bands in the opposite order."""
    last: bool = False
    """Whether bands and classes are the last axis."""
    pad: int = 0
    """Width of the zeros around a tile, in pixels."""
    threshold: float | None = None
    """Probability above which a pixel is of the second of two classes, and below which it is of the first of more."""

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        """Return the convention that a card states."""
        return cls(card.channels == "BGR", card.layout == "NHWC", card.pad, card.threshold)

    def call(self, network: Callable[[Tensor], object], x: Tensor) -> object:
        """Return a network's output for tiles (B, bands, H, W), its tensors as (B, classes, H, W) or (B, H, W).

        A dict, tuple or object becomes a dict if its tensors must be turned or cut.
        """
        given = x.flip(1) if self.reverse else x
        given = pad(given, (self.pad,) * 4) if self.pad else given
        returned = network(given.permute(0, 2, 3, 1).contiguous() if self.last else given)
        if not self.last and not self.pad:
            return returned
        if isinstance(returned, Tensor):
            return self._placed(returned, x)
        return {k: self._placed(y, x) if isinstance(y, Tensor) else y for k, y in parts_of(returned).items()}

    def decided(self, logits: Tensor) -> Tensor:
        """Return logits (B, classes, H, W) whose largest one is that of the class which the threshold decides for.

        The second of two classes needs a probability above it. Of more classes the largest needs as much, or the first
        is taken.
        """
        if self.threshold is None:
            return logits
        if logits.shape[1] > 2:
            best = logits.amax(1, keepdim=True)
            unsure = logits.softmax(1).amax(1, keepdim=True) < self.threshold
            return torch.cat((torch.where(unsure, best + 1, logits[:, :1]), logits[:, 1:]), 1)
        # The softmax of two logits is above t exactly if their difference is above log(t / (1 - t)).
        limit = math.log(self.threshold / (1 - self.threshold))
        return torch.cat((logits[:, :1], logits[:, 1:] - limit), 1)

    def _placed(self, y: Tensor, x: Tensor) -> Tensor:
        """Return a map with the classes in front, cut evenly to the size of `x` if it is larger."""
        if self.last and y.ndim == 4:
            y = y.permute(0, 3, 1, 2)
        if y.ndim in (3, 4) and self.pad:
            rows, columns = y.shape[-2] - x.shape[-2], y.shape[-1] - x.shape[-1]
            # A map with an odd margin has no middle. It stays as it is, and the check of its shape refuses it.
            if rows >= 0 and columns >= 0 and rows % 2 == columns % 2 == 0:
                top, left = rows // 2, columns // 2
                y = y[..., top : top + x.shape[-2], left : left + x.shape[-1]]
        return y


def parts_of(returned: object) -> dict[Any, object]:
    """Return the values in a dict, tuple, named tuple, dataclass or object, by name or place."""
    if isinstance(returned, Mapping):
        return {key if isinstance(key, int) else str(key): value for key, value in returned.items()}
    if isinstance(returned, list | tuple):
        return dict(zip(getattr(returned, "_fields", range(len(returned))), returned, strict=True))
    if is_dataclass(returned) or isinstance(returned, SimpleNamespace) or hasattr(returned, "__dict__"):
        return dict(vars(returned))
    return {}
