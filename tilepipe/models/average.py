"""Average: networks that are asked several times about a tile, and answer with the mean of the probabilities.

`Average` asks one network about a tile in several positions. The eight positions 'd4' are the four quarter turns of the
tile and of its mirror image; each answer is turned back. `joint.Joint` asks several networks.

The probabilities of each answer are rounded once to 24 bits, and the sum is exact: it does not depend on the order of
the answers. So a turned tile gets exactly the turned labels, and the order of networks does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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


class Mean(nn.Module):
    """Maps (B, bands, H, W) to the logarithm of mean probabilities, (B, classes, H, W), as logits."""

    answers_often = True
    """Says that the network is a mean, for those who must not import this module (`Model.answers_often`)."""

    def answers(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the logits (B, classes, H, W) of each answer, one after the other."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms of `probabilities` in the type of `x`; a softmax gives the probabilities back."""
        # A probability of 0 has no logarithm.
        return self.probabilities(x).clamp_min(torch.finfo(torch.float32).tiny).log().to(x.dtype)

    def probabilities(self, x: Tensor) -> Tensor:
        """Return mean probabilities (B, classes, H, W) float64; equal sums give equal means."""
        total, count = torch.zeros((), dtype=torch.float64, device=x.device), 0
        for rounded in self._rounded(x):
            total, count = total + rounded.double(), count + 1
        return total / (count << BITS)

    def informed(self, x: Tensor) -> Tensor:
        """Return mean probabilities and, as one more channel, the mutual information, (B, classes + 1, H, W) float64.

        The mutual information is the entropy of the mean minus the mean of the answers' entropies, over the logarithm
        of the number of classes: 0 if all answers are the same, and never above 1.
        """
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        entropies, count = total, 0
        for rounded in self._rounded(x):
            total, count = total + rounded.double(), count + 1
            # Entropies are rounded to whole numbers too, so that their sum does not depend on the order of answers.
            entropies = entropies + _entropy(rounded / (1 << BITS)).double().mul(1 << BITS).round()
        mean = total / (count << BITS)
        information = (_entropy(mean) - entropies / (count << BITS)).clamp(0, 1)
        return torch.cat((mean, information), 1)

    def _rounded(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the probabilities of each answer, times 2**24 and rounded, in the type of `x`."""
        for logits in self.answers(x):
            if x.dtype == torch.float64 != logits.dtype:
                raise ModelError(
                    f"it gives {str(logits.dtype).removeprefix('torch.')} for float64 (fp64): part of it computes in "
                    "another precision; use precision fp32"
                )
            # Half precision inside the network ends here: its logits are widened before anything is summed.
            yield logits.to(x.dtype).softmax(1).mul(1 << BITS).round()


def _entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy over the channels, (B, 1, H, W), divided by that of an even choice between them."""
    total: Tensor = torch.special.entr(probabilities).sum(1, keepdim=True)
    return total / math.log(max(2, probabilities.shape[1]))


class Average(Wrapper, Mean):
    """Maps (B, bands, H, W) to the logarithm of mean probabilities over several positions of the tiles.

    Height and width may differ: the network is then also called with both exchanged.
    """

    def __init__(self, network: nn.Module, tta: str) -> None:
        """Keep the network, which gives logits, and the positions, a key of `POSITIONS`."""
        super().__init__(network)
        self.tta = tta  # every attribute becomes part of the network's identity

    def answers(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the logits (B, classes, H, W) of each position, turned back."""
        for position in POSITIONS[self.tta]:
            yield position.back(self.network(position.put(x)))


def averaged(model: Model, tta: str) -> Model:
    """Return a model that averages over the positions `tta`; the model itself for 'none'.

    Raises `ModelError` for a model that gives labels, which have no mean.
    """
    if tta == "none":
        return model
    if model.card.output == "labels":
        raise ModelError(f"{model.name} gives labels and no probabilities, so they have no mean; leave `tta` out")
    return Model(model.card, Average(model.module, tta).eval(), model.name, model.certificate)
