"""Each architecture can learn one real crop by heart: houses of Banepa (aerial, 0.15 m, labels of OpenStreetMap)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tilepipe.models.nets.zoo import build

DATA = Path(os.environ.get("TILEPIPE_DATA", Path(__file__).parents[4] / "shared" / "data")) / "aerial_banepa"
ARCHS: list[dict[str, Any]] = [
    {"name": "unet", "width": 8},
    {"name": "unet", "width": 8, "up": "unpool"},
    {"name": "linknet", "width": 16},
    {"name": "segnet", "width": 16},
    {"name": "fcn", "width": 16, "finest": 8},
    {"name": "deeplab", "width": 8, "depth": 4, "output_stride": 8, "rate": 2},
    {"name": "unet", "encoder": "resnet18", "depth": 4, "width": 8},
]


def crop() -> tuple[Tensor, Tensor]:
    """Image (1, 3, 128, 128), about -2 to 2, and its labels (1, 128, 128)."""
    window = Window(1200, 1400, 128, 128)
    with rasterio.open(DATA / "banepa_rgb.tif") as image, rasterio.open(DATA / "banepa_buildings.tif") as label:
        x, y = image.read(window=window), label.read(1, window=window)
    return torch.from_numpy(x.astype(np.float32))[None] / 64 - 2, torch.from_numpy(y.astype(np.int64))[None]


@pytest.mark.long
@pytest.mark.skipif(not DATA.exists(), reason="TILEPIPE_DATA has no aerial_banepa")
@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: "-".join(str(value) for value in arch.values()))
def test_learns_one_crop_by_heart(arch: dict[str, Any]) -> None:
    torch.manual_seed(0)
    x, y = crop()
    assert 0.2 < y.double().mean() < 0.8
    net = build(arch, 3, 2)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    iou = 0.0
    for step in range(1, 601):
        loss = F.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 25 == 0:
            iou = building_iou(net, x, y)
            net.train()
            if iou > 0.95:
                break
    assert iou > 0.95, f"IoU {iou:.3f} after {step} steps"


@torch.no_grad()
def building_iou(net: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    predicted = net.eval()(x).argmax(1)
    return float(((predicted == 1) & (y == 1)).sum() / ((predicted == 1) | (y == 1)).sum())
