"""The architecture of a network is its layers and their settings without the weights.

Stride and reach follow from it, since a weight can only hide a part of what the layers do: zeros in a fresh layer, a
channel that is dead. So a network of known layers is measured with drawn weights, once, and the result holds for each
state of a training. A network whose code is not known, or whose code reads values of tensors, is measured itself.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math

import torch
from torch import nn

from tilepipe.models.contents import Contents
from tilepipe.models.torch_calls import Call, Calls

READS = (
    *("item", "__bool__", "__float__", "__int__", "__index__", "tolist", "numpy", "__array__"),
    *("equal", "allclose", "is_nonzero", "nonzero", "unique"),
)
"""Functions through which Python code reads the values of a tensor, and so may go another way for other weights."""


def architecture_of(module: nn.Module) -> str | None:
    """Return a hash of the layers and their settings; None if these do not say all that the network does."""
    contents = Contents(module, weights=False)
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in module.parameters())
    if not contents.written or not finite:
        return None
    return hashlib.sha256(json.dumps(sorted(contents.parts.items())).encode()).hexdigest()


def with_drawn_weights(module: nn.Module) -> nn.Module:
    """Return a copy of a module whose weights, and whose statistics of batch norms, are drawn: none of them is zero."""
    drawn, random = copy.deepcopy(module), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in drawn.modules():
            for name, tensor in layer.named_parameters(recurse=False):
                _draw(tensor, name, random)
            if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
                layer.running_mean.copy_(0.1 * torch.randn(layer.running_mean.shape, generator=random))
                assert layer.running_var is not None
                layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape, generator=random))
    return drawn


def _draw(tensor: torch.Tensor, name: str, random: torch.Generator) -> None:
    if not tensor.is_floating_point():
        return
    values = torch.randn(tensor.shape, generator=random)
    if tensor.ndim > 1:
        values *= math.sqrt(2 / max(1, tensor[0].numel()))  # as large as keeps the size of what passes through
    elif name == "bias":
        values *= 0.1
    else:
        values = 0.5 + torch.rand(tensor.shape, generator=random)
    tensor.copy_(values)


def reads_values(module: nn.Module, x: torch.Tensor) -> bool:
    """Return whether the code of a module reads values of tensors when it is called on `x` (B, bands, H, W)."""
    with torch.no_grad(), _ReadValues() as read:
        module(x)
    return bool(read.found)


class _ReadValues(Calls):
    """Notes whether code reads the values of a tensor while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def made(self, call: Call) -> object:
        """Make the call, and note it if it reads values."""
        self.found = self.found or call.name in READS
        return call()
