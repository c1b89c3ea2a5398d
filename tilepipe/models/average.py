"""Average: a network that is asked about a tile in several positions, and answers with the mean of the probabilities.

The eight positions 'd4' are the four quarter turns of the tile and of its mirror image. Each answer is turned back, its
probabilities are rounded once to 24 bits, and the sum is exact: it does not depend on the order of the positions. So a
turned tile gets exactly the turned labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.model import Model
from tilepipe.models.wrapper import Wrapper

BITS = 24
"""Bits to which each probability is rounded. The sums are float64, which hold whole numbers of 53 bits exactly."""


@dataclass(frozen=True)
class Position:
    """A position of a tile: mirrored or not, and then turned."""

    turns: int
    """Number of quarter turns, 0 to 3."""
    mirrored: bool
    """Whether left and right are exchanged before the turns."""

    def put(self, x: Tensor) -> Tensor:
        """Return tiles (B, C, H, W) in this position; an odd number of turns exchanges height and width."""
        # Kernels choose their way by the layout in memory, so a turned tile must lie there as any other tile does.
        return torch.rot90(x.flip(3) if self.mirrored else x, self.turns, (2, 3)).contiguous()

    def back(self, y: Tensor) -> Tensor:
        """Return maps (B, K, H, W) as they were before `put`."""
        turned = torch.rot90(y, -self.turns, (2, 3))
        return turned.flip(3) if self.mirrored else turned


POSITIONS = {
    "none": (Position(0, False),),
    "d4": tuple(Position(turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
"""Positions by the value of the setting `tta`."""


class Average(Wrapper):
    """Maps (B, bands, H, W) to the logarithm of mean probabilities, (B, classes, H, W), as logits.

    Height and width may differ: the network is then also called with both exchanged.
    """

    def __init__(self, network: nn.Module, tta: str) -> None:
        """Keep the network, which gives logits, and the positions, a key of `POSITIONS`."""
        super().__init__(network)
        self.tta = tta  # every attribute becomes part of the network's identity

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms of `probabilities` in the type of `x`; a softmax gives the probabilities back."""
        # A probability of 0 has no logarithm.
        return self.probabilities(x).clamp_min(torch.finfo(torch.float32).tiny).log().to(x.dtype)

    def probabilities(self, x: Tensor) -> Tensor:
        """Return mean probabilities (B, classes, H, W) float64; equal sums give equal means."""
        positions = POSITIONS[self.tta]
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for position in positions:
            logits = position.back(self.network(position.put(x)))
            if x.dtype == torch.float64 != logits.dtype:
                raise ModelError(
                    f"it gives {str(logits.dtype).removeprefix('torch.')} for float64 (fp64): part of it computes in "
                    "another precision; use precision fp32"
                )
            # Half precision inside the network ends here: its logits are widened before anything is summed.
            total = total + logits.to(x.dtype).softmax(1).mul(1 << BITS).round().double()
        return total / (len(positions) << BITS)


def averaged(model: Model, tta: str) -> Model:
    """Return a model that averages over the positions `tta`; the model itself for 'none'.

    Raises `ModelError` for a model that gives labels, which have no mean.
    """
    if tta == "none":
        return model
    if model.card.output == "labels":
        raise ModelError(f"{model.name} gives labels and no probabilities, so they have no mean; leave `tta` out")
    return Model(model.card, Average(model.module, tta).eval(), model.name, model.certificate)
