"""Every architecture and up-sampling of ours: the reach is what cutting the image shows, or global layers are named."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import nn

from tilepipe.box import Sides
from tilepipe.models.nets.arch import Norm, Up
from tilepipe.models.nets.linknet import LinkNetArch
from tilepipe.models.nets.zoo import build
from tilepipe.models.probe.procedure import probe

SMALL = {"width": 4, "depth": 2}
LOCAL = [
    *({"name": "unet", **SMALL, "up": up} for up in ("bilinear", "deconv3", "shuffle", "unpool")),
    {"name": "unet", **SMALL, "down": "blur"},
    {"name": "linknet", **SMALL},
    {"name": "segnet", "width": 4, "depth": 2},
    {"name": "fcn", "width": 4, "depth": 3},
    {"name": "deeplab", "width": 2, "depth": 3, "output_stride": 8, "rate": 1},
]
NORMS = get_args(Norm)
FCN_UPS = ("deconv", "bilinear")
LINKNET_UPS = get_args(LinkNetArch.model_fields["up"].annotation)
FAMILY = [  # width 8 for LinkNet, whose decoder has a quarter of the channels: one alone may be dead
    *({"name": "unet", **SMALL, "up": up} for up in get_args(Up)),
    *(
        {"name": "linknet", "width": 8, "depth": 2, "up": up}
        for up in get_args(LinkNetArch.model_fields["up"].annotation)
    ),
    {"name": "segnet", **SMALL},
    *(
        {"name": "fcn", "width": 4, "depth": 5, "finest": k, "up": up}
        for k in (8, 16, 32)
        for up in ("deconv", "bilinear")
    ),
    {"name": "deeplab", "width": 2, "depth": 3, "output_stride": 8, "rate": 1},
    {"name": "deeplab", "width": 2, "depth": 3, "output_stride": 8, "rate": 1, "image_pool": True},
]
DEEP = [
    {"name": "unet", "width": 4, "depth": 4},
    {"name": "unet", "width": 4, "depth": 5, "encoder": "resnet18"},
    {"name": "linknet", "width": 4, "depth": 5, "encoder": "resnet18"},
    {"name": "fcn", "width": 4, "depth": 5, "encoder": "resnet18"},
    {"name": "linknet", "width": 4, "depth": 4},
    {"name": "segnet", "width": 4, "depth": 4},
    {"name": "fcn", "width": 4, "depth": 5},
    {"name": "deeplab", "width": 2, "depth": 4, "output_stride": 16},
    {"name": "deeplab", "width": 2, "depth": 5, "output_stride": 16, "encoder": "resnet18"},
]


def name(arch: dict[str, Any]) -> str:
    return "-".join(str(value) for value in arch.values())


def network(arch: dict[str, Any]) -> nn.Module:
    """Random weights with signs that keep every path alive, and batch norm that does something."""
    torch.manual_seed(3)
    net = build(arch, 3, 3).eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            nn.init.uniform_(layer.running_mean, -0.5, 0.1)
    return net


def check(arch: dict[str, Any], truth: Any, half: int) -> None:
    net = network(arch)
    found = probe(net, 3)
    assert found.stride == net.stride
    assert found.reach is not None
    assert max(found.reach) < half
    assert found.reach == truth(net, 3, rows=96, half=half)


LONG = {"bilinear", "deconv3", "shuffle", "deeplab", "fcn", "linknet"}
"""Architectures, or layers of them, that the long tests measure; a U-Net and SegNet are left."""


@pytest.mark.parametrize(
    "arch",
    [pytest.param(a, id=name(a), marks=pytest.mark.long if LONG & {*a.values()} else []) for a in LOCAL],
)
def test_reach_is_what_cutting_the_image_shows(arch: dict[str, Any], truth: Any) -> None:
    check(arch, truth, 96)


@pytest.mark.long
@pytest.mark.parametrize("arch", DEEP, ids=name)
def test_reach_of_deep_networks_too(arch: dict[str, Any], truth: Any) -> None:
    check(arch, truth, 768)


@pytest.mark.long
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("arch", FAMILY, ids=name)
def test_the_whole_family(arch: dict[str, Any], norm: str, truth: Any) -> None:
    """Every architecture, up-sampling and normalisation: the truth per side, or every global layer and no other."""
    arch = {**arch, "norm": norm}
    layers = _global_layers(network(arch))
    if not layers:
        check(arch, truth, 192 if arch["name"] == "fcn" else 96)
        return
    found = probe(network(arch), 3)
    local = {**arch, "norm": "batch", "image_pool": False} if arch["name"] == "deeplab" else {**arch, "norm": "batch"}
    rest = probe(network(local), 3)
    assert set(found.global_layers) == layers
    assert (found.reach, found.stride, found.frozen_reach) == (None, rest.stride, rest.reach)


def _global_layers(net: nn.Module) -> set[tuple[str, str]]:
    """Layers and kinds by their classes, which the probe does not know."""
    kinds = {nn.InstanceNorm2d: "instance norm", nn.GroupNorm: "group norm"}
    layers = {(name, kinds[type(layer)]) for name, layer in net.named_modules() if type(layer) in kinds}
    return layers | ({("pyramid", "image pooling")} if getattr(net.arch, "image_pool", False) else set())


@pytest.mark.long
@pytest.mark.parametrize(("norm", "kind"), [("instance", "instance norm"), ("group", "group norm")])
def test_norms_of_the_tile_are_named(norm: str, kind: str) -> None:
    local = probe(network({"name": "unet", **SMALL}), 3)
    found = probe(network({"name": "unet", **SMALL, "norm": norm}), 3)
    norms = [layer for layer, which in found.global_layers if which == kind]
    assert found.reach is None
    assert len(norms) == len(found.global_layers) == 10
    assert (found.stride, found.frozen_reach) == (local.stride, local.reach)


@pytest.mark.long
def test_image_pooling_is_named() -> None:
    arch = {"name": "deeplab", "width": 2, "depth": 3, "output_stride": 8, "rate": 1}
    found = probe(network({**arch, "image_pool": True}), 3)
    assert found.global_layers == (("pyramid", "image pooling"),)
    assert found.frozen_reach == probe(network(arch), 3).reach != Sides(0, 0, 0, 0)
