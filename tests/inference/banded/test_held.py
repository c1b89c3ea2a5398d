"""Norms and poolings over the whole image, in bands: each row gets the statistics that a tile gets at its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.smp_nets import network as smp_network
from helpers.without_torchvision import load
from torch import Tensor, nn

from tilepipe.box import Box
from tilepipe.inference.banded.network import banded
from tilepipe.inference.statistics.held import made_up
from tilepipe.models.nets.zoo import build
from tilepipe.tiling.statistics_grid import Statistics

FIELD = Statistics("field", 64, (1,))
SMALL = {"name": "unet", "width": 4, "depth": 3}
GLOBAL = [
    {**SMALL, "norm": "instance"},
    {**SMALL, "norm": "group"},
    {"name": "deeplab", "width": 2, "depth": 3, "output_stride": 8, "rate": 1, "image_pool": True},
]


class Gate(nn.Module):
    """Squeeze-and-excitation by vectors and linear layers, as many write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        weights = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        found: Tensor = self.last(x * weights[:, :, None, None])
        return found


def check(net: nn.Module, heights: tuple[int, ...], rows: int, top: int = 0) -> None:
    """Compare a pass in bands with one pass of the module, with the same statistics put into both."""
    generator = torch.Generator().manual_seed(1)
    plane = torch.randn((1, 3, rows, 128), dtype=torch.float64, generator=generator)
    with torch.no_grad():
        held = made_up(net.double(), plane, FIELD, 64)
        with held.under([Box(top, 0, top + rows, 128)]):
            truth = net(plane)
        # What the network makes of a change in the last bit of its input: no other order of additions is nearer.
        with held.under([Box(top, 0, top + rows, 128)]):
            rounding = net(plane * (1 + 2.0**-52 * torch.randn(plane.shape, dtype=torch.float64, generator=generator)))
        own, going, parts, row = net(plane), banded(net, 3, 64, FIELD).begin(held.rows(128, top)), [], 0
        for height in heights * rows:
            stop = min(row + height, rows)
            parts += [going.feed(plane[:, :, row:stop], last=stop == rows)]
            row = stop
            if row == rows:
                break
    found = torch.cat([part for part in parts if part is not None], 2)
    assert found.shape == truth.shape
    allowed = max(1e-12 * float(truth.abs().max()), float((rounding - truth).abs().max()))
    assert float((found - truth).abs().max()) <= allowed <= 1e-11 * float(truth.abs().max())
    # The plane's own statistics give something else, or this would prove nothing.
    assert float((own - truth).abs().max()) > 1e-6 * float(truth.abs().max())


@pytest.mark.parametrize(
    "arch",
    [GLOBAL[0], *(pytest.param(arch, marks=pytest.mark.long) for arch in GLOBAL[1:])],
    ids=lambda arch: str(arch.get("norm", arch["name"])),
)
def test_our_networks(arch: dict[str, Any]) -> None:
    torch.manual_seed(0)
    check(build(arch, 3, 2).eval(), (24, 8), 192)


@pytest.mark.parametrize("top", [0, 37])
def test_vectors_of_a_stranger_in_rows_at_any_place(top: int) -> None:
    torch.manual_seed(0)
    check(Gate().eval(), (1, 13, 64), 128, top)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Unet", {"encoder_name": "efficientnet-b0"}),
        ("Unet", {"encoder_name": "se_resnet50"}),
        ("Unet", {"encoder_name": "resnet18", "decoder_attention_type": "scse"}),
        ("Unet", {"encoder_name": "tu-mobilenetv3_small_100"}),
    ],
)
def test_networks_of_smp(kind: str, options: dict[str, Any]) -> None:
    load("segmentation_models_pytorch")
    check(smp_network(kind, **options), (64,), 256)
