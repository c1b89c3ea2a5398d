"""A network as it computes on a device, in a precision. It is made once and kept while the network is unchanged."""

from __future__ import annotations

import torch
from torch import nn

from tilepipe.models.precision import on_device
from tilepipe.models.unchanged import while_unchanged


def prepared(module: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """Return what `on_device` returns; it is made once, and kept while the module is unchanged."""

    def copied_there() -> nn.Module | None:
        there = on_device(module, device, precision)
        return None if there is module else there

    return while_unchanged(module, ("prepared", str(device), precision), copied_there) or module
