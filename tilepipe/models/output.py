"""Output: which tensor of a network's output holds the scores, and how logits, probabilities or labels become logits.

Networks of others return a dict, a tuple or an object, one channel for two classes, the result of a sigmoid or softmax,
or finished labels. One made-up tile or the card (`output`, `key`) shows the form; an unknown form is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.calling_convention import CallingConvention, parts_of
from tilepipe.models.card import ModelCard, Output
from tilepipe.models.wrapper import Wrapper

NAMES = ("out", "logits")
"""Names of the tensor that holds the scores, in torchvision and in transformers."""
SURE = 100.0
"""Logit of the class that a label names; all other classes have 0, so that a softmax gives exactly 1 and 0."""


class Scores(Wrapper):
    """Maps (B, bands, H, W) to logits (B, classes, H, W) by a network that returns something else."""

    convention = CallingConvention()
    """How the network takes tiles; the default is the usual way."""

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        output: Output = "logits",
        key: str | int | None = None,
        convention: CallingConvention = convention,
    ) -> None:
        """Keep the network and how to read its output; `Form` explains `output` and `key`."""
        super().__init__(network)
        self.classes = classes
        self.output = output
        self.key = key
        if convention != self.convention:  # every attribute becomes part of the network's identity
            self.convention = convention

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W). Raises `ModelError` for labels that the card does not name."""
        y = tensor_of(self.convention.call(self.network, x), x, self.classes, self.key)
        return self.convention.decided(as_logits(y, self.classes, self.output))


def bare(module: nn.Module) -> nn.Module:
    """Return the network inside a `Scores`; any other module is returned itself."""
    return module.network if isinstance(module, Scores) else module


def wrapped(module: nn.Module, card: ModelCard) -> nn.Module:
    """Return a network that takes tiles as its card says; the module itself if that is the usual way."""
    convention = CallingConvention.of(card)
    return module if convention == CallingConvention() else Scores(module, len(card.classes), convention=convention)


def tensor_of(
    returned: object, x: Tensor, classes: int, key: str | int | None = None, name: str = "the model"
) -> Tensor:
    """Return the tensor that holds the scores: the one under `key`, `out` or `logits`, or the only one that fits.

    Raises `ModelError` that lists the tensors if none can be chosen.
    """
    if isinstance(returned, Tensor) and key is None:
        return returned
    parts = parts_of(returned)
    tensors = {part: value for part, value in parts.items() if isinstance(value, Tensor)}
    if key is not None and key in tensors:
        return tensors[key]
    fitting = [part for part, value in tensors.items() if _fits(value, x, classes)]
    named = [part for part in NAMES if part in tensors]
    if key is None and (named or len(fitting) == 1):
        return tensors[(named or fitting)[0]]
    listed = ", ".join(f"{part!r} {_kind(value)}" for part, value in list(parts.items())[:8]) or "nothing"
    asked = f"no tensor {key!r} in it" if key is not None else f"{len(fitting) or 'none'} with a score per class"
    raise ModelError(
        f"{name} returns a {type(returned).__name__} ({listed}), {asked}; name the tensor that holds the scores "
        f"(B, {classes}, H, W): key={(fitting or list(tensors) or ['out'])[0]!r} in tilepipe.Model.from_torch, or in "
        "model.json"
    )


def as_logits(y: Tensor, classes: int, output: Output = "logits") -> Tensor:
    """Return logits (B, classes, H, W) made of logits, probabilities or labels with one or more channels.

    A single channel for two classes belongs to the second class: the logit of the first class is 0 then. Probabilities
    become their logarithms, so that a softmax gives them back; independent sigmoids are scaled to a sum of 1. Raises
    `ModelError` for labels that are no class.
    """
    if output == "labels":
        return _of_labels(y, classes)
    if y.ndim == 3:
        y = y.unsqueeze(1)
    single = y.shape[1] == 1 and classes == 2
    if output == "logits":
        y = y if y.is_floating_point() else y.float()
        return torch.cat((torch.zeros_like(y), y), 1) if single else y
    least = torch.finfo(torch.float32).tiny
    y = y if y.dtype == torch.float64 else y.float()
    y = torch.cat((1 - y, y), 1) if single else y
    # A probability of 0 has no logarithm.
    return y.clamp_min(least).log()


def misfit(shape: tuple[int, ...], given: tuple[int, ...], classes: int, output: Output = "logits") -> str:
    """Return why an output of `shape` is no map of scores for an input `given` (B, bands, H, W); '' if it is one."""
    size = given[2:]
    flat = shape == (given[0], *size)
    if flat and (output == "labels" or classes == 2):
        return ""
    if len(shape) != 4 or shape[0] != given[0]:
        return f"{shape} is no map of scores (batch, classes, height, width)"
    return _misfit(shape, size, 1 if output == "labels" else classes)


def _misfit(shape: tuple[int, ...], size: tuple[int, ...], classes: int) -> str:
    if shape[1:3] == size and shape[3] in (classes, 1) and shape[2:] != size:
        return "its classes are on the last axis (NHWC); end it with y.permute(0, 3, 1, 2)"
    if shape[2:] != size:
        return (
            f"its maps have {shape[2]} x {shape[3]} px for tiles of {size[0]} x {size[1]} px; end it with an "
            "up-sampling to the size of its input, and pad its convolutions"
        )
    if shape[1] != classes and (shape[1], classes) != (1, 2):
        return f"it gives {shape[1]} channels and the card names {classes} classes; name as many"
    return ""


def _of_labels(y: Tensor, classes: int) -> Tensor:
    labels = (y[:, 0] if y.ndim == 4 else y).long()
    # A pass over shapes alone (torch's meta device) has no values.
    if not labels.is_meta and labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ModelError(
            f"the model gives labels from {int(labels.min())} to {int(labels.max())} and the card names {classes} "
            f"classes, 0 to {classes - 1}; name all of them in the card"
        )
    planes = [(labels == k).to(y.dtype if y.is_floating_point() else torch.float32) for k in range(classes)]
    return SURE * torch.stack(planes, 1)


def _fits(value: Tensor, x: Tensor, classes: int) -> bool:
    output: Output = "logits" if value.is_floating_point() else "labels"
    return misfit(tuple(value.shape), tuple(x.shape), classes, output) == ""


def _kind(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
