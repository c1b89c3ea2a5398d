"""A plain function as a model: a function that scores numpy tiles runs in the same tiled pipeline as a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model

Scores = Callable[[NDArray[np.float32]], ArrayLike]
"""Function from a tile (bands, H, W) float32 to scores (classes, H, W)."""


class Function(nn.Module):
    """Maps (B, bands, H, W) to (B, classes, H, W) by a function of one tile, which is called on the CPU."""

    single = "functions, which compute in the precision that they are written in"

    def __init__(self, scores: Scores, identity: str) -> None:
        """Keep `scores`: (bands, H, W) -> (classes, H, W). `identity` is a text that says which function it is."""
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

    `identity` becomes part of the run key: runs resume only with the same text. The scores go through a softmax if
    tiles are blended.
    """
    return Model.owning(Function(scores, identity), card, name=card.name)
