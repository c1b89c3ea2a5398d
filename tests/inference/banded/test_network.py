"""A network in bands gives what one pass over the whole plane gives, for bands of every height."""

from __future__ import annotations

import gc
import itertools
import math
import weakref
from typing import Any, get_args

import pytest
import torch
from helpers.drawn_nets import networks
from helpers.smp_nets import network as smp_network
from helpers.without_torchvision import load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tilepipe.inference.banded.lookup import NotBandedError
from tilepipe.inference.banded.network import BandedNetwork, banded
from tilepipe.models.nets.arch import Norm, Up
from tilepipe.models.nets.linknet import LinkNetArch
from tilepipe.models.nets.zoo import build

DOUBLE, SINGLE = 1e-13, 1e-5
"""Rounding of a network of many layers, in units of its largest logit. In most tests nothing differs at all."""
SMALL = {"width": 4, "depth": 2}
LINKNET_UPS = get_args(LinkNetArch.model_fields["up"].annotation)
LOCAL = [
    *({"name": "unet", **SMALL, "up": up} for up in get_args(Up)),
    *({"name": "unet", **SMALL, "down": down} for down in ("average", "strided", "blur")),
    *({"name": "linknet", "width": 8, "depth": 2, "up": up} for up in LINKNET_UPS),
    {"name": "segnet", "width": 4, "depth": 3},
    *({"name": "fcn", "width": 4, "depth": 5, "finest": k, "up": up} for k in (8, 32) for up in ("deconv", "bilinear")),
    {"name": "deeplab", "width": 2, "depth": 3, "output_stride": 8, "rate": 2},
    {"name": "unet", "width": 4, "depth": 5, "encoder": "resnet34"},
    {"name": "unet", "width": 4, "depth": 5, "encoder": "resnet50"},
]  # fmt: skip
QUICK = [
    *(arch for arch in LOCAL if arch.get("up") in ("bilinear", "unpool") and arch["name"] == "unet"),
    *(arch for arch in LOCAL if arch.get("up") == "deconv3" and arch["name"] == "linknet"),
    *(arch for arch in LOCAL if arch.get("down") == "blur" or arch["name"] == "deeplab"),
]
"""The others are long tests: torch takes a second or more to export each."""
GLOBAL = [
    *({"name": "unet", **SMALL, "norm": norm} for norm in get_args(Norm) if norm in ("instance", "group")),
    {"name": "deeplab", "width": 2, "depth": 3, "output_stride": 8, "rate": 1, "image_pool": True},
]


def drawn(net: nn.Module) -> nn.Module:
    """Give batch norms something to do, and convolutions the order of memory that they run fastest in."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            nn.init.uniform_(layer.running_mean, -0.5, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return net.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def image(bands: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    x = torch.randn((1, bands, height, width), dtype=dtype, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def in_bands(net: BandedNetwork, x: Tensor, heights: list[int]) -> Tensor:
    """Feed rows in pieces of these heights, again and again."""
    whole, parts, row = net.begin(), [], 0
    for height in itertools.cycle(heights):
        stop = min(row + height, x.shape[2])
        found = whole.feed(x[:, :, row:stop], last=stop == x.shape[2])
        parts += [] if found is None else [found]
        row = stop
        if row == x.shape[2]:
            return torch.cat(parts, 2)
    raise AssertionError


def differs(net: nn.Module, heights: list[int], x: Tensor) -> float:
    """Largest difference of bands to one pass, in units of the largest logit."""
    with torch.no_grad():
        truth = net(x)
        side = math.lcm(int(net.stride), 64)  # type: ignore[call-overload]
        found = in_bands(banded(net, x.shape[1], side), x, heights)
    assert found.shape == truth.shape
    return float((found - truth).abs().max() / truth.abs().max())


def named(arch: dict[str, Any]) -> str:
    return "-".join(str(value) for value in arch.values())


@pytest.mark.parametrize(
    "arch",
    [pytest.param(arch, marks=[] if arch in QUICK else pytest.mark.long) for arch in LOCAL],
    ids=named,
)
def test_every_local_architecture(arch: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = drawn(build(arch, 3, 2))
    stride = int(net.stride)  # type: ignore[call-overload]
    assert differs(net.double(), [2 * stride], image(3, 6 * stride, 3 * stride)) <= DOUBLE


@pytest.mark.parametrize("arch", [LOCAL[1], pytest.param(LOCAL[-2], marks=pytest.mark.long)], ids=named)
def test_single_precision(arch: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = drawn(build(arch, 3, 2))
    stride = int(net.stride)  # type: ignore[call-overload]
    assert differs(net, [2 * stride], image(3, 8 * stride, 2 * stride, torch.float32)) <= SINGLE


@pytest.mark.parametrize("heights", [[3, 1, 7], *(pytest.param(h, marks=pytest.mark.long) for h in ([1], [500]))])
def test_bands_of_any_height(heights: list[int]) -> None:
    torch.manual_seed(0)
    net = drawn(build({"name": "unet", **SMALL}, 3, 2)).double()
    assert differs(net, heights, image(3, 72, 40)) <= DOUBLE


@pytest.mark.long
@pytest.mark.parametrize("height", [8, 16])
def test_planes_lower_than_a_band(height: int) -> None:
    torch.manual_seed(0)
    net = drawn(build({"name": "unet", **SMALL, "up": "bilinear"}, 3, 2)).double()
    assert differs(net, [64], image(3, height, 24)) <= DOUBLE


def test_one_row() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).eval().double()
    net.stride = 1
    assert differs(net, [1], image(3, 1, 9)) == 0.0


def _check(net: nn.Module, heights: list[int], rows: int) -> None:
    stride = int(net.stride)  # type: ignore[call-overload]
    x = image(2, rows * stride, 7 * stride)
    if any(getattr(layer, "mode", "") == "bicubic" for layer in net.modules()):
        with pytest.raises(NotBandedError, match="bicubic"):
            banded(net, 2, 16 * stride)
    else:
        assert differs(drawn(net).double(), heights, x) <= DOUBLE, net


PLANES = {
    "net": networks(),
    "heights": st.lists(st.integers(1, 40), min_size=1, max_size=4),
    "rows": st.integers(6, 30),
}
QUIET: Any = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@given(**PLANES)
@settings(max_examples=2, **QUIET)
def test_drawn_networks(net: nn.Module, heights: list[int], rows: int) -> None:
    _check(net, heights, rows)


@pytest.mark.long
@given(**PLANES)
@settings(max_examples=200, **QUIET)
def test_200_drawn_networks(net: nn.Module, heights: list[int], rows: int) -> None:
    _check(net, heights, rows)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "encoder"),
    [("Unet", "resnet18"), ("Unet", "resnet34"), ("UnetPlusPlus", "resnet18"), ("Linknet", "resnet34")],
)
def test_local_networks_of_smp(kind: str, encoder: str) -> None:
    load("segmentation_models_pytorch")
    net = drawn(smp_network(kind, encoder_name=encoder))
    x = image(3, 320, 96)
    with torch.no_grad():
        truth, single = net.double()(x), net.float()(x.float())
    assert differs(net.double(), [64], x) <= DOUBLE
    # Twice as far from one pass as this pass is from fp64: rounding of one kind.
    assert differs(net.float(), [64], x.float()) <= 2 * float((single - truth).abs().max() / truth.abs().max()) + SINGLE


@pytest.mark.parametrize("arch", [GLOBAL[0], *(pytest.param(a, marks=pytest.mark.long) for a in GLOBAL[1:])], ids=named)
def test_a_network_that_sees_the_whole_image_is_refused_and_named(arch: dict[str, Any]) -> None:
    with pytest.raises(NotBandedError, match=r"(norm|mean|adaptive_avg_pool2d).* \(\S+\)"):
        banded(build(arch, 3, 2).eval(), 3, 64)


class Corners(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x[:, :2, ::2, ::2], scale_factor=2, mode="bilinear", align_corners=True)


class Flipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] + x[:, :2].flip(2)


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ramp", torch.arange(64.0)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] + self.ramp  # type: ignore[operator]


class Columns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] + torch.arange(x.shape[3], dtype=x.dtype)


class Sized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] * float(x.shape[2])


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] if float(x.sum()) > 0 else -x[:, :2]


UNFIT: dict[nn.Module, str] = {
    Corners(): "slice",
    Flipped(): "flip",
    Rows(): "row to row",
    Columns(): "size of the plane",
    Sized(): "size of the plane",
    Branches(): "export",
}


@pytest.mark.parametrize(("net", "why"), UNFIT.items())
def test_what_has_no_rule_is_named(net: nn.Module, why: str) -> None:
    with pytest.raises(NotBandedError, match=why):
        banded(net.eval(), 3, 64)


@pytest.mark.long
@pytest.mark.parametrize("height", [16, 32])
def test_a_pass_that_begins_below_the_top_gives_the_same_bits_beyond_the_reach(height: int) -> None:
    torch.manual_seed(0)
    net = banded(drawn(build({"name": "unet", "width": 4, "depth": 3}, 3, 2)), 3, 64)
    x = image(3, 12 * height, 32, torch.float32)
    with torch.no_grad():
        whole = in_bands(net, x, [height])
        late = in_bands(net, x[:, :, 2 * height :], [height])
    reach = 48  # of three halvings
    assert torch.equal(late[:, :, height + reach :], whole[:, :, 3 * height + reach :])
    assert not torch.equal(late[:, :, :height], whole[:, :, 2 * height : 3 * height])


class Storages(TorchDispatchMode):
    """Holds weak references to all storages that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self.seen[storage._cdata] = weakref.ref(storage)
        return result

    def alive(self) -> int:
        """Bytes of the storages that something still refers to."""
        gc.collect()
        return sum(storage.nbytes() for found in self.seen.values() if (storage := found()) is not None)


@pytest.mark.long
def test_what_is_kept_does_not_grow_with_the_plane() -> None:
    torch.manual_seed(0)
    net = banded(drawn(build({"name": "unet", **SMALL}, 3, 2)), 3, 64)
    going, alive = net.begin(), []
    with torch.no_grad(), Storages() as storages:
        for k in range(9):
            going.feed(image(3, 32, 64, torch.float32) + k)
            alive.append(storages.alive())
    assert 0 < alive[5] == alive[-1]
