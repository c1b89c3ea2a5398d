"""Every architecture, up-sampling and normalisation builds, learns, and comes back from its weights the same."""

from itertools import cycle
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.models.model import Model
from tilepipe.models.nets.arch import Down, Norm, Up
from tilepipe.models.nets.linknet import LinkNetArch
from tilepipe.models.nets.zoo import ARCHITECTURES, build, describe

NORMS = get_args(Norm)
LINK_UPS = get_args(LinkNetArch.model_fields["up"].annotation)
TINY = {"width": 2, "depth": 2}

PLAIN: list[dict[str, Any]] = [
    *({"name": "unet", "up": up, "norm": norm, **TINY} for up in get_args(Up) for norm in NORMS),
    *({"name": "linknet", "up": up, "norm": norm, "width": 8, "depth": 2} for up in LINK_UPS for norm in NORMS),
    *({"name": "segnet", "norm": norm, **TINY} for norm in NORMS),
    *({"name": "fcn", "up": up, "norm": norm, "finest": 2, **TINY} for up in ("deconv", "bilinear") for norm in NORMS),
    *({"name": "fcn", "width": 2, "finest": finest} for finest in (8, 16, 32)),
    *({"name": "deeplab", "norm": norm, "width": 1, "depth": 3, "output_stride": 8, "rate": 1} for norm in NORMS),
    {"name": "deeplab", "width": 1, "depth": 4, "output_stride": 8, "image_pool": True, "dropout": 0.1},
    *({"name": "unet", "down": down, **TINY} for down in get_args(Down)),
    *({"name": "unet", "dropout": 0.5, "dropout_kind": kind, **TINY} for kind in ("element", "channel")),
]
RESNETS: list[dict[str, Any]] = [
    {"name": "unet", "encoder": "resnet18", "depth": 2, "width": 2},
    {"name": "unet", "encoder": "resnet18", "depth": 2, "width": 2, "norm": "none", "up": "deconv4"},
    {"name": "linknet", "encoder": "resnet34", "depth": 2, "width": 4, "norm": "group"},
    {"name": "fcn", "encoder": "resnet18", "depth": 3, "finest": 4},
    {"name": "deeplab", "encoder": "resnet50", "depth": 3, "width": 2, "output_stride": 8},
]


def _id(arch: dict[str, Any]) -> str:
    return "-".join(str(value) for value in arch.values())


@pytest.mark.parametrize("arch", PLAIN + RESNETS, ids=_id)
def test_builds_learns_and_comes_back(arch: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build(arch, bands=2, classes=3)
    size = 2 * net.stride
    x, y = torch.randn(2, 2, size, 2 * size), torch.randint(0, 3, (2, size, 2 * size))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-2)
    for _ in range(2):
        logits = net(x)
        assert logits.shape == (2, 3, size, 2 * size)
        loss = F.cross_entropy(logits, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert torch.isfinite(loss)
    unmoved = [name for name, p in net.named_parameters() if torch.equal(p, before[name])]
    assert not [name for name in unmoved if "conv" not in name or "bias" not in name]

    card = ModelCard(bands=2, classes=("a", "b", "c"), stride=net.stride, arch=describe(net))
    again = load_model(save_model(Model.from_torch(net, card), tmp_path / "x.model"))
    with torch.no_grad():
        assert torch.equal(again.module(x), net.eval()(x))
    assert again.card == card
    assert describe(again.module) == describe(net)


SMALL: list[dict[str, Any]] = [
    *({"name": "unet", "up": up, **TINY} for up in get_args(Up)),
    *({"name": "unet", "down": down, **TINY} for down in get_args(Down)),
    {"name": "linknet", **TINY},
    {"name": "segnet", **TINY},
    {"name": "fcn", "finest": 1, **TINY},
    {"name": "deeplab", "width": 1, "depth": 3, "output_stride": 8, "rate": 1},
    {"name": "unet", "encoder": "resnet18", "depth": 2, "width": 2},
]


@pytest.mark.parametrize("arch", SMALL, ids=_id)
def test_shifting_by_the_stride_shifts_the_logits(arch: dict[str, Any]) -> None:
    """Far from the border the network is the same function of its surroundings at every multiple of the stride."""
    torch.manual_seed(0)
    net = build(arch, 1, 2).double().eval()
    stride, size, margin = net.stride, 256, 96
    x = torch.randn(1, 1, 16, size + stride, dtype=torch.float64)
    with torch.no_grad():
        a, b = net(x[..., :size]), net(x[..., stride:])
    assert torch.allclose(a[..., margin + stride : -margin], b[..., margin : -margin - stride], rtol=0, atol=1e-9)
    with torch.no_grad():
        half = net(x[..., stride // 2 : stride // 2 + size])
    assert not torch.allclose(a[..., margin + stride // 2 : -margin], half[..., margin : -margin - stride // 2])


@pytest.mark.parametrize(("width", "depth", "bands", "classes"), [(16, 4, 3, 2), (3, 2, 5, 7)])
def test_unet_parameter_count(width: int, depth: int, bands: int, classes: int) -> None:
    def block(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs

    widths = [width * 2**level for level in range(depth + 1)]
    count = block(bands, width) + sum(block(w, 2 * w) + block(3 * w, w) for w in widths[:-1]) + (width + 1) * classes
    net = build({"name": "unet", "width": width, "depth": depth}, bands, classes)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_wrong_tiles_say_the_right_shape(name: str) -> None:
    net = build({"name": name, "width": 1}, 3, 2)
    stride = net.stride
    with pytest.raises(
        ModelError, match=f"tile {stride + 1} x {stride} is not a multiple of {stride}; use {2 * stride} x {stride}"
    ):
        net(torch.zeros(1, 3, stride + 1, stride))
    with pytest.raises(ModelError, match=r"reads tiles of shape \(B, 3, H, W\), not \(1, 4, 64, 64\)"):
        net(torch.zeros(1, 4, 64, 64))


def _varied() -> list[dict[str, Any]]:
    """Every name, up and encoder, and every subsampling and dropout with every name; norms take turns."""
    plain, resnet = {"depth": 2, "width": 4}, {"encoder": "resnet18", "depth": 2, "width": 4}
    ups: dict[str, tuple[str, ...]] = {"unet": get_args(Up), "linknet": LINK_UPS, "fcn": ("deconv", "bilinear")}
    more: dict[str, dict[str, Any]] = {"fcn": {"finest": 2}, "deeplab": {"depth": 3, "output_stride": 8, "width": 1}}
    archs: list[dict[str, Any]] = [
        {**encoder, "name": name, "up": up} for name in ups for up in ups[name] for encoder in (plain, resnet)
        if (up, encoder) != ("unpool", resnet)
    ]  # fmt: skip
    archs += [{**encoder, "name": "deeplab"} for encoder in (plain, resnet) for _ in NORMS]
    archs += [{**plain, "name": name, "down": down} for name in (*ups, "deeplab") for down in get_args(Down)]
    kinds = ("element", "channel")
    archs += [{**plain, "name": name, "dropout": 0.5, "dropout_kind": kind} for name in ARCHITECTURES for kind in kinds]
    archs += [{**resnet, "name": name, "encoder": e} for name in (*ups, "deeplab") for e in ("resnet34", "resnet50")]
    turns = cycle(NORMS)
    return [{**arch, **more.get(arch["name"], {}), "norm": next(turns)} for arch in archs]


EXPORTED: list[dict[str, Any]] = [
    {"name": "unet", "up": "bilinear", "norm": "group", **TINY},
    {"name": "segnet", **TINY},
    {"name": "unet", "up": "unpool", "down": "blur", **TINY},
    {"name": "deeplab", "width": 1, "depth": 3, "output_stride": 8, "rate": 1, "image_pool": True},
]


@pytest.mark.parametrize(
    "arch",
    [EXPORTED[0], *(pytest.param(arch, marks=pytest.mark.long) for arch in (*EXPORTED[1:], *_varied()))],
    ids=_id,
)
def test_exports_for_any_multiple_of_the_stride(arch: dict[str, Any]) -> None:
    net = build(arch, 3, 2).eval()
    stride = net.stride
    height, width = (torch.export.Dim(axis, min=2, max=64) for axis in ("h", "w"))
    example = torch.randn(1, 3, 4 * stride, 6 * stride)
    exported = torch.export.export(net, (example,), dynamic_shapes=({2: stride * height, 3: stride * width},))
    other = torch.randn(1, 3, 8 * stride, 2 * stride)
    with torch.no_grad():
        assert torch.allclose(exported.module()(other), net(other), atol=1e-6)


def test_same_seed_same_gradients_in_deterministic_mode() -> None:
    """Unpooling too runs in torch's deterministic mode."""
    net = build({"name": "segnet", **TINY}, 1, 2)
    x = torch.randn(1, 1, 8, 8)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (torch.autograd.grad(net(x).square().sum(), list(net.parameters())) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_foreign_modules_have_no_arch() -> None:
    with pytest.raises(ModelError, match="Conv2d is none of our architectures"):
        describe(torch.nn.Conv2d(1, 1, 1))
