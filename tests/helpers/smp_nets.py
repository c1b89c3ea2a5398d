"""Networks of segmentation-models-pytorch with random weights, built without its torchvision."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tilepipe.models.formats.smp import build


def network(kind: str, **options: Any) -> nn.Module:
    """Random weights, and batch norm whose statistics keep most channels alive."""
    torch.manual_seed(2)
    net = build({"name": f"smp.{kind}", **options}, 3, 2).eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return net
