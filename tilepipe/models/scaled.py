"""A network for other programs: it takes pixels as the image has them, because it scales them itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tilepipe.models.card import ModelCard


class Scaled(nn.Module):
    """A network behind the scaling of its card: pixels (B, bands, H, W) become logits (B, classes, H, W)."""

    def __init__(self, module: nn.Module, card: ModelCard) -> None:
        """Take a network and the card that says how pixels are scaled."""
        super().__init__()
        self.module = module
        self.mean, self.std = card.mean, card.std

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of pixels in the image's own units."""
        scaled: Tensor = self.module(normalised(x, self.mean, self.std, torch.float32))
        return scaled


def normalised(
    tiles: Tensor, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype | None = None
) -> Tensor:
    """Return a copy (x - mean) / std of tiles (B, bands, H, W) as `dtype`, by default float32.

    An empty mean stands for 0, an empty std for 1.
    """
    x = tiles.to(dtype or torch.float32, copy=True)
    if mean:
        x -= x.new_tensor(mean).view(1, -1, 1, 1)
    if std:
        x /= x.new_tensor(std).view(1, -1, 1, 1)
    return x
