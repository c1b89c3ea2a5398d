"""Footprints: bytes of a forward pass against a computation by hand, and what is assumed where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tilepipe.inference.profile.footprint import COPIES, UNKNOWN_CHANNELS, footprint
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.nets import zoo


def wrap(module: nn.Module, bands: int = 3, stride: int = 1) -> Model:
    return Model.from_torch(module, ModelCard(bands=bands, classes=["a", "b"], stride=stride))


def test_a_chain_of_convolutions() -> None:
    """Live at the peak: the input (3 channels), the first layer's output (8) and that of the ReLU (8), in float32."""
    chain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    weights, peak = footprint(wrap(chain))
    assert weights == 4 * (8 * 3 * 9 + 8 + 2 * 8 + 2)
    assert peak == int(4 * (3 + 8 + 8) * COPIES) + 1


def test_layers_at_half_the_size_count_a_quarter() -> None:
    """The input (3), 16 channels on half the grid, then 2 channels on that grid and on the full one."""
    chain = nn.Sequential(nn.Conv2d(3, 16, 2, stride=2), nn.Conv2d(16, 2, 1), nn.Upsample(scale_factor=2))
    _, peak = footprint(wrap(chain, stride=2))
    assert peak == int(4 * max(3 + 16 / 4 + 2 / 4, 3 + 2 / 4 + 2) * COPIES) + 1


def test_a_skip_stays_alive() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            skip = self.first(x)
            deep = self.second(self.second(skip))
            return torch.cat([skip, deep], 1)[:, :2]

    _, peak = footprint(wrap(Skip()))
    assert peak == int(4 * (3 + 4 + 4 + 8) * COPIES) + 1


@pytest.mark.parametrize(
    "arch",
    [
        {"name": "unet", "width": 4, "depth": 3},
        {"name": "unet", "width": 4, "depth": 2, "norm": "group"},
        {"name": "unet", "width": 4, "depth": 2, "norm": "instance", "up": "bilinear"},
        {"name": "linknet"},
    ],
    ids=str,
)
def test_shapes_that_are_known_are_those_of_torch(arch: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    net = zoo.build(arch, 3, 2)
    found = footprint(wrap(net, stride=net.stride))
    monkeypatch.setattr("tilepipe.inference.profile.footprint._known_shape", lambda *_: None)
    assert footprint(wrap(net, stride=net.stride)) == found


def test_sums_and_joins_of_other_shapes_are_left_to_torch() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            wide = self.first(x) + torch.zeros(1, 4, 1, 1, device=x.device, dtype=torch.float64)
            return torch.cat([wide, x], dim=-3)[:, :2]

    # Live at the peak: the input, the sum (4 channels in float64) and the join of both (7 channels in float64).
    _, peak = footprint(wrap(Mixed()))
    assert peak == int((4 * 3 + 8 * 4 + 8 * 7) * COPIES) + 1


@pytest.mark.parametrize("tile", [100, 256, 512])
def test_bytes_per_pixel_hardly_depend_on_the_tile(tile: int) -> None:
    net = zoo.build({"name": "unet", "width": 8, "depth": 3}, 3, 2)
    model = wrap(net, stride=8)
    assert footprint(model, tile)[1] == pytest.approx(footprint(model)[1], rel=0.02)


def test_in_fp64_numbers_are_twice_as_long_and_convolutions_unfold() -> None:
    """Beside the same layers: the columns of the first convolution, 3 bands of 3 x 3 pixels at every place."""
    chain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    weights, peak = footprint(wrap(chain), dtype="float64")
    assert weights == 2 * footprint(wrap(chain))[0]
    assert peak == int(8 * (3 + 8 + 8) * COPIES + 8 * 3 * 9) + 1
    half = nn.Sequential(nn.Conv2d(3, 16, 2, stride=2), nn.ConvTranspose2d(16, 2, 2, stride=2))
    columns = 8 * max(3 * 4, 2 * 4) / 4
    assert footprint(wrap(half, stride=2), dtype="float64")[1] == int(8 * (3 + 4 + 2) * COPIES + columns) + 1


class Looks(nn.Module):
    """Decides by the values, which are not there on the meta device."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] if float(x.mean()) > 0 else x[:, 1:3]


class Foreign(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.from_numpy(x.numpy()[:, :2] * 1.0)


@pytest.mark.parametrize("module", [Looks(), Foreign()])
def test_a_network_that_needs_values_is_assumed_to_be_large(module: nn.Module) -> None:
    assert footprint(wrap(module)) == (0, int(4 * (UNKNOWN_CHANNELS + 3 + 2) * COPIES) + 1)


def test_the_model_is_left_as_it_was() -> None:
    net = nn.Conv2d(3, 2, 1)
    before = net.weight.detach().clone()
    footprint(wrap(net))
    assert net.weight.device.type == "cpu"
    assert (net.weight == before).all()


def test_maps_of_pooled_vectors_count() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 64, 1), nn.Conv2d(64, 2, 1))
    assert footprint(wrap(net))[1] < footprint(wrap(net), values=4)[1]
    assert footprint(wrap(net), values=4)[1] >= COPIES * 4 * (64 + 2)
