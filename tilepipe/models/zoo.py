"""Zoo: every architecture by the name that stands in a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tilepipe.errors import ModelError
from tilepipe.models.arch import unknown
from tilepipe.models.unet import UNet

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "unet": UNet,
}


def build(arch: Mapping[str, Any], bands: int, classes: int) -> nn.Module:
    """Return a new network, random weights, from a card's `arch` such as {"name": "unet", "width": 16}.

    It maps (B, bands, H, W) float to logits (B, classes, H, W) and has `stride`, the total stride S.
    Raises `ModelError` naming the nearest where a name or a value is unknown.
    """
    parameters = dict(arch)
    name = str(parameters.pop("name", ""))
    if name not in ARCHITECTURES:
        raise ModelError(unknown("architecture", name, ARCHITECTURES))
    return ARCHITECTURES[name](bands, classes, **parameters)
