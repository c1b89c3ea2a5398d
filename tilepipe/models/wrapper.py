"""Wrapper: a network that calls another network, and has its stride and its precision."""

from __future__ import annotations

import torch
from torch import nn


class Wrapper(nn.Module):
    """The base of networks that change what goes into one network, or what comes out of it."""

    def __init__(self, network: nn.Module) -> None:
        """Keep the network."""
        super().__init__()
        self.network = network
        self.opaque = isinstance(network, torch.jit.ScriptModule) or bool(getattr(network, "opaque", False))

    @property
    def single(self) -> str:
        """Kind of the network, in words, if its precision is fixed; else ''."""
        return str(getattr(self.network, "single", ""))

    @property
    def stride(self) -> object:
        """The network's own total stride, if it has one."""
        return getattr(self.network, "stride", None)
