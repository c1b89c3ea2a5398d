"""segmentation-models-pytorch through our adapter: the reach is what cutting shows, or the global layers are named."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.smp_nets import network
from torch import nn

from tilepipe.box import Sides
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.probe.procedure import probe
from tilepipe.models.probe.result import Probe

FIRST_LEVELS = {"encoder_name": "resnet18", "encoder_depth": 2, "decoder_channels": [8, 4]}
LOCAL = {  # stride 2 convolutions of kernel 3 and 7 reach further up and left
    ("Unet", "resnet18"): Sides(287, 255, 287, 255),
    ("Unet", "resnet34"): Sides(543, 511, 543, 511),
    ("UnetPlusPlus", "resnet18"): Sides(287, 255, 287, 255),
    ("Linknet", "resnet18"): Sides(255, 223, 255, 223),
    ("Linknet", "resnet34"): Sides(511, 479, 511, 479),
}


def probed(net: nn.Module) -> Probe:
    return probe(Model.from_torch(net, ModelCard(bands=3, classes=["a", "b"], stride=net.stride)))


@pytest.mark.long
def test_the_first_levels_of_a_unet(smp: Any, truth: Any) -> None:
    net = network("Unet", **FIRST_LEVELS)
    found = probed(net)
    assert (found.stride, found.global_layers) == (4, ())
    assert found.reach == truth(net, 3, rows=32, half=96)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "encoder"), LOCAL)
def test_local_networks(kind: str, encoder: str, smp: Any, truth: Any) -> None:
    net, reach = network(kind, encoder_name=encoder), LOCAL[kind, encoder]
    found = probed(net)
    assert (found.stride, found.reach, found.global_layers) == (32, reach, ())
    assert truth(net, 3, rows=32, half=-(-max(reach) // 32) * 32 + 32) == reach


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("FPN", {"encoder_name": "resnet18"}),
        ("PSPNet", {"encoder_name": "resnet18"}),
        ("DeepLabV3Plus", {"encoder_name": "resnet18", "decoder_atrous_rates": [1, 2, 3]}),
    ],
)
def test_global_networks_are_named_layer_by_layer(kind: str, options: dict[str, Any], smp: Any) -> None:
    net = network(kind, **options)
    found = probed(net)
    assert found.reach is None
    assert set(found.global_layers) == set(expected(net))
    kinds = {which for _, which in found.global_layers}
    assert {"FPN": "group norm", "PSPNet": "adaptive pooling", "DeepLabV3Plus": "image pooling"}[kind] in kinds


def expected(net: nn.Module) -> list[tuple[str, str]]:
    """Global layers by the classes that the package has them in, as (layer, kind)."""
    layers = []
    for name, layer in net.named_modules():
        what = type(layer).__name__
        if what == "GroupNorm":
            layers.append((name, "group norm"))
        if what == "AdaptiveAvgPool2d":
            layers.append((name, "image pooling" if layer.output_size in (1, (1, 1)) else "adaptive pooling"))
        aligned = isinstance(layer, nn.Upsample) and layer.align_corners
        if aligned or what == "PSPBlock" or (what == "Conv3x3GNReLU" and layer.upsample):
            layers.append((name, "align_corners=True"))
    return layers
