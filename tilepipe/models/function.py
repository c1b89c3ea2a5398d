"""A plain function as a model: what scores numpy tiles runs through the same tiled pipeline as a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model

Scores = Callable[[NDArray[np.float32]], ArrayLike]
"""From a tile (bands, H, W) to scores (classes, H, W)."""


class Function(nn.Module):
    """(B, bands, H, W) -> (B, classes, H, W) by a function of one tile, computed on the CPU."""

    single = "functions, which compute in the precision that they are written in"

    def __init__(self, scores: Scores, identity: str) -> None:
        """`scores` maps (bands, H, W) to (classes, H, W); `identity` is text that says which function it is."""
        super().__init__()
        self.scores = scores
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of every tile as float32, on the device of `x`."""
        tiles = x.cpu().numpy()
        scored = np.stack([np.asarray(self.scores(tile), np.float32) for tile in tiles])
        return torch.from_numpy(scored).to(x.device)


def from_function(scores: Scores, card: ModelCard, identity: str) -> Model:
    """Return a model that calls `scores` on each tile, (bands, H, W) float32 -> (classes, H, W).

    `identity` becomes part of the run key: runs resume only with the same text. The scores go through a softmax where
    tiles are blended.
    """
    return Model.owning(Function(scores, identity), card, name=card.name)
