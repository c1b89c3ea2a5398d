"""This module computes whole tiles in bands of rows, each tile in a pass of its own: large tiles in little memory."""

from __future__ import annotations

import torch
from torch import Tensor

from tilepipe.inference.banded.network import Pass
from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.bands import CompiledBands, CompiledPass, usable_bands, usable_network
from tilepipe.inference.runtimes.base import TORCH
from tilepipe.models.model import Model
from tilepipe.tiling.tiling import Bands


class WholeTiles:
    """Runs one model over tiles, band by band. Not for several threads at once."""

    def __init__(self, model: Model, bands: Bands, stride: int, compute: Compute) -> None:
        """Bring the model to the device of `compute`. Raises `ModelError` if it cannot be computed in bands."""
        self._network = usable_network(model, stride, compute)
        self._model, self._compute, self._height = model, compute, bands.height
        self._compiled: CompiledBands | None = None

    def __call__(self, tiles: Tensor) -> Tensor:
        """Return the logits (n, classes, height, width) of normalised tiles (n, bands, height, width).

        Raises `ModelError` if the runtime of `compute` cannot compute the bands.
        """
        logits = [self._of(tile[None]) for tile in tiles]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _of(self, tile: Tensor) -> Tensor:
        going, (height, width) = self._begin(tile.shape[3]), tile.shape[2:]
        logits, done = tile.new_empty((1, len(self._model.card.classes), height, width)), 0
        for top in range(0, height, self._height):
            # Convolutions are fastest in this order of memory, in which rows lie side by side too.
            rows = tile[:, :, top : top + self._height].contiguous(memory_format=torch.channels_last)
            for part in going.parts(rows, last=top + self._height >= height):
                logits[:, :, done : done + part.shape[2]] = part
                done += part.shape[2]
        return logits

    def _begin(self, width: int) -> Pass | CompiledPass:
        if self._compute.runtime == TORCH:
            return self._network.begin()
        if self._compiled is None:
            self._compiled = usable_bands(self._network, self._model, self._compute, (self._height, width))
        return self._compiled.begin(top=True)
