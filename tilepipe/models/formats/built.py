"""The network that a card's arch names, with weights from a file: one of ours, or of a package in the allow-list."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats import monai, smp
from tilepipe.models.nets.zoo import build
from tilepipe.models.output import wrapped
from tilepipe.models.torch_calls import Call, Calls


def network(card: ModelCard, name: str, tensors: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]) -> nn.Module:
    """Return the network of a card, with the weights that `tensors` gives for its state dict. Raises `ModelError`."""
    with torch.device("meta"), _Unfilled():  # the meta device holds shapes only: nothing is allocated yet
        skeleton = _network(card, name)
    weights = tensors(skeleton.state_dict())
    with torch.random.fork_rng(devices=[]):  # random start values must not disturb the caller's
        module = _network(card, name)
    module.load_state_dict(weights, strict=True)
    return wrapped(module.requires_grad_(False), card)


class _Unfilled(Calls):
    """Leaves out start values: on the meta device there are none, and torch imports its compiler to draw some there."""

    def made(self, call: Call) -> object:
        return call.argument(0, "self") if call.name in ("normal_", "uniform_") else call()


def _network(card: ModelCard, name: str) -> nn.Module:
    make = smp.build if smp.names(card.arch) else monai.build if monai.names(card.arch) else build
    try:
        return make(card.arch or {}, card.bands, len(card.classes))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{name}: the architecture {card.arch} cannot be built: {error}") from None
