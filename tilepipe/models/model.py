"""Model: a network and its card, ready to be called on tiles."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard, Output
from tilepipe.models.copying import own_copy
from tilepipe.models.output import readable

_WORDS_FOR_PEOPLE = {"band_names", "description", "license", "name", "tile", "training"}
"""Fields of a card that change no label; they are not part of a model's identity."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its card. Can be pickled when its module can."""

    card: ModelCard
    """What it reads and what its classes mean."""
    module: nn.Module
    """(B, bands, H, W) float32, normalised -> logits (B, classes, H, W); in eval mode, float32, on the CPU."""
    name: str = "python"
    """What messages call it: the directory it was loaded from, or 'python'."""
    certificate: str | None = None
    """Text of certificate.json beside the network, not judged (`probe.certified` does it); None where it is not."""

    @classmethod
    def from_torch(
        cls,
        module: nn.Module,
        card: ModelCard,
        name: str = "python",
        *,
        output: Output | None = None,
        key: str | int | None = None,
    ) -> Model:
        """Wrap a copy of any torch module, in eval mode and float32 on the CPU; what you gave stays as it is.

        So later changes of the module do not change the model: wrap it again. What cannot be copied (a session of a
        runtime, an open file) is shared. `output` says what the module gives ('logits', 'probabilities' or 'labels'),
        `key` under which name or at which place of a dict, tuple or object; where they are left out, here and in the
        card, one made-up tile shows it. Raises `ModelError` when it is no module, when a parameter has no values, when
        the card's stride does not fit the module's own `stride`, when the card names one class only, and for outputs
        that cannot be read.
        """
        if not isinstance(module, nn.Module):
            raise ModelError(f"a {type(module).__name__} is not a torch.nn.Module; wrap a function in a module first")
        if output is not None or key is not None:
            said = {"output": output or card.output, "key": card.key if key is None else key}
            card = ModelCard(**{**card.model_dump(), **said})
        model = cls.owning(own_copy(module), card, name)
        if type(module).__module__.startswith("tilepipe."):
            return model
        read, gives = readable(model.module, card, name)
        return cls(card if gives == "logits" else card.model_copy(update={"output": gives}), read, name)

    @classmethod
    def owning(cls, module: nn.Module, card: ModelCard, name: str = "python") -> Model:
        """Wrap a module that nobody else holds; it is switched to eval mode and moved to float32 on the CPU.

        Raises `ModelError` when the card's stride does not fit the module's own `stride`, or names one class only.
        """
        stride = getattr(module, "stride", None)
        if isinstance(stride, int) and card.stride % stride:
            raise ModelError(
                f"the card says stride {card.stride}, the network subsamples by {stride}; give the card stride={stride}"
            )
        refuse_one_class(card)
        return cls(card, module.to("cpu", torch.float32).eval(), name)

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(p.numel() for p in self.module.parameters())

    def normalise(self, tiles: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return (x - mean) / std in `dtype` of tiles (B, bands, H, W) in the source's own units, on their device."""
        x = tiles.to(dtype)
        if self.card.mean:
            x = x - _per_band(self.card.mean, x)
        if self.card.std:
            x = x / _per_band(self.card.std, x)
        return x

    def sha256(self) -> str:
        """Return the hash of weights, layers, their settings, and the card but for words for people.

        It names a file's content. What a module of somebody else does may not be in it: `identity.model_identity` is.
        """
        return network_sha256(self.module, self._card())

    def card_sha256(self) -> str:
        """Return the hash of the card but for words for people."""
        return hashlib.sha256(self._card().encode()).hexdigest()

    def _card(self) -> str:
        return json.dumps(self.card.model_dump(mode="json", exclude=_WORDS_FOR_PEOPLE), sort_keys=True)


def refuse_one_class(card: ModelCard) -> None:
    """Raise `ModelError` for a card of one class, which every pixel would get."""
    if len(card.classes) == 1:
        raise ModelError(
            f"the card of {card.name} names one class, so every pixel would be {card.classes[0]!r}; name the "
            f"background too: classes: [background, {card.classes[0]}] (one output channel is the second class then)"
        )


def network_sha256(module: nn.Module, first: str = "") -> str:
    """Return the hash of a network's layers, their settings and weights, after that of a text."""
    digest = hashlib.sha256(first.encode())
    for name, layer in module.named_modules():
        digest.update(f"{name}:{type(layer).__module__}.{type(layer).__qualname__}:{_settings(layer)};".encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _per_band(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def _settings(layer: nn.Module) -> list[tuple[str, Any]]:
    """Return the plain values that a layer was made with (kernel size, a constant, ...), sorted by name."""
    plain = (bool, int, float, str, tuple)
    return sorted((k, v) for k, v in vars(layer).items() if isinstance(v, plain) and k != "training")
