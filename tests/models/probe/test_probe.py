"""Hand-made networks with known answers: strides, asymmetric reach, padding, global layers, refusals, cache."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.box import Sides
from tilepipe.errors import ModelError, StorageError
from tilepipe.models.probe.procedure import probe
from tilepipe.models.probe.result import Probe


class Functional(nn.Module):
    """A module around a function, so that the truth can make an fp64 copy of it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class TinyUNet(nn.Module):
    """Depth 2; `up`, `norm` and `padding` as given."""

    def __init__(self, up: str = "deconv2", norm: Callable[[int], nn.Module] = nn.BatchNorm2d, **conv: Any) -> None:
        super().__init__()
        self.enc = nn.ModuleList(self.block(i, o, norm, conv) for i, o in ((3, 6), (6, 8), (8, 8)))
        self.dec = nn.ModuleList(self.block(i, o, norm, conv) for i, o in ((14, 6), (16, 8)))
        self.up = nn.ModuleList(self.larger(up) for _ in range(2))
        self.head = nn.Conv2d(6, 3, 1)

    @staticmethod
    def block(inputs: int, outputs: int, norm: Callable[[int], nn.Module], conv: dict[str, Any]) -> nn.Module:
        pair = [(inputs, outputs), (outputs, outputs)]
        parts = [[nn.Conv2d(i, o, 3, padding=1, **conv), norm(o), nn.LeakyReLU(0.1)] for i, o in pair]
        return nn.Sequential(*parts[0], *parts[1])

    @staticmethod
    def larger(up: str) -> nn.Module:
        if up.startswith("deconv"):
            kernel = int(up[-1])
            return nn.ConvTranspose2d(8, 8, kernel, 2, (kernel - 1) // 2, kernel % 2)
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=up == "corners")

    def forward(self, x: Tensor) -> Tensor:
        fine = self.enc[0](x)
        middle = self.enc[1](F.max_pool2d(fine, 2))
        coarse = self.enc[2](F.max_pool2d(middle, 2))
        middle = self.dec[1](torch.cat((middle, self.up[1](coarse)), 1))
        logits: Tensor = self.head(self.dec[0](torch.cat((fine, self.up[0](middle)), 1)))
        return logits


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(self.pool(x)))


class ImagePooling(nn.Module):
    def __init__(self, channels: int, bins: int = 1) -> None:
        super().__init__()
        self.bins, self.join = bins, nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.interpolate(F.adaptive_avg_pool2d(x, self.bins), size=x.shape[2:], mode="bilinear")
        joined: Tensor = self.join(torch.cat((x, pooled), 1))
        return joined


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2).chunk(3, -1)
        seen = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return x + seen.transpose(1, 2).reshape(x.shape)


class PerPixelNorm(nn.Module):
    """Layer norm over channels: looks like a normalisation, is local."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


def around(layer: nn.Module) -> nn.Module:
    """A local network of total stride 4 and reach 5 around one layer of 8 channels."""
    torch.manual_seed(0)
    up = nn.Upsample(scale_factor=4)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), layer, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), up, conv(8, 3, 3)
    ).eval()


def conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation)


def even(side: int) -> Sides:
    return Sides(side, side, side, side)


LOCAL: dict[str, tuple[Callable[[], nn.Module], int, Sides]] = {
    "pointwise": (lambda: nn.Conv2d(3, 2, 1), 1, even(0)),
    "dilated": (lambda: nn.Sequential(conv(3, 4, 3), conv(4, 2, 5, 3)), 1, even(7)),
    "rows and columns differ": (lambda: nn.Conv2d(3, 2, (3, 7), padding=(1, 3)), 1, Sides(1, 1, 3, 3)),
    "strides differ": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, (2, 3), (2, 3)), nn.Upsample(scale_factor=(2, 3))),
        6,
        even(0),
    ),
    "odd factor": (lambda: nn.Sequential(nn.MaxPool2d(3), nn.Upsample(scale_factor=3, mode="bilinear")), 3, even(1)),
    "stride 24": (lambda: nn.Sequential(nn.AvgPool2d(24), conv(3, 2, 3), nn.Upsample(scale_factor=24)), 24, even(24)),
    "stride 128": (lambda: nn.Sequential(nn.AvgPool2d(128), nn.Upsample(scale_factor=128)), 128, even(0)),
    "unpool": (
        lambda: Functional(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
        2,
        even(0),
    ),
    "too weak to see in values": (
        lambda: Functional(lambda x: x + 1e-14 * F.interpolate(F.avg_pool2d(x, 8), scale_factor=8)),
        8,
        even(0),
    ),
    "k2s2 deconv": (lambda: TinyUNet("deconv2"), 4, even(22)),
    "k3s2 deconv": (lambda: TinyUNet("deconv3"), 4, Sides(22, 25, 22, 25)),
    "k4s2 deconv": (lambda: TinyUNet("deconv4"), 4, even(25)),
    "bilinear": (lambda: TinyUNet("bilinear"), 4, even(25)),
    "reflect": (lambda: TinyUNet(padding_mode="reflect"), 4, even(22)),
    "replicate": (lambda: TinyUNet(padding_mode="replicate"), 4, even(22)),
    "norm over channels": (lambda: around(PerPixelNorm(8)), 4, even(5)),
    "instance norm with running statistics": (
        lambda: around(nn.InstanceNorm2d(8, track_running_stats=True)),
        4,
        even(5),
    ),
}


SLOW = {"stride 128", "k3s2 deconv", "k4s2 deconv", "replicate", "aligned corners", "pyramid pooling"}
"""Cases that take longest, and have others like them."""


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.long if c in SLOW else []) for c in LOCAL])
def test_local_networks(case: str, truth: Any) -> None:
    make, stride, reach = LOCAL[case]
    torch.manual_seed(1)
    net = make().eval()
    found = probe(net, 3)
    assert (found.stride, found.reach, found.global_layers, found.local) == (stride, reach, (), True)
    rows = 384 if stride == 128 else 96
    assert truth(net, 3, rows=rows, half=rows) == reach


GLOBAL: dict[str, tuple[Callable[[], nn.Module], set[tuple[str, str]], int | None, Sides | None]] = {
    "instance norm": (
        lambda: around(nn.Sequential(nn.InstanceNorm2d(8), conv(8, 8, 1), nn.InstanceNorm2d(8))),
        {("1.0", "instance norm"), ("1.2", "instance norm")},
        4,
        even(5),
    ),
    "group norm": (lambda: around(nn.GroupNorm(2, 8)), {("1", "group norm")}, 4, even(5)),
    "squeeze-excite": (lambda: around(SqueezeExcite(8)), {("1.pool", "squeeze-excite")}, 4, even(5)),
    "image pooling": (lambda: around(ImagePooling(8)), {("1", "image pooling")}, 4, even(5)),
    "pyramid pooling": (lambda: around(ImagePooling(8, 3)), {("1", "adaptive pooling")}, 4, None),
    "attention": (lambda: around(Attention(8)), {("1", "attention")}, None, None),
    "a function": (
        lambda: around(Functional(lambda x: x / x.std((2, 3), keepdim=True))),
        {("1", "image pooling")},
        4,
        even(5),
    ),
    "aligned corners": (
        lambda: TinyUNet("corners"),
        {("up.0", "align_corners=True"), ("up.1", "align_corners=True")},
        4,
        None,
    ),
}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.long if c in SLOW else []) for c in GLOBAL])
def test_global_networks_are_named_layer_by_layer(case: str) -> None:
    make, layers, stride, frozen = GLOBAL[case]
    torch.manual_seed(1)
    found = probe(make().eval(), 3)
    assert set(found.global_layers) == layers
    assert (found.stride, found.reach, found.halo, found.frozen_reach) == (stride, None, None, frozen)
    assert next(iter(layers))[1] in str(found)


@pytest.mark.long
def test_circular_padding_wraps_around() -> None:
    found = probe(TinyUNet(padding_mode="circular").eval(), 3)
    assert found.reach is None
    assert found.stride == 4
    assert ("enc.0.0", "circular padding") in found.global_layers


@pytest.mark.parametrize(
    ("function", "stride"),
    [
        (lambda x: x - x.mean((1, 2, 3), keepdim=True), 1),
        (lambda x: torch.cumsum(x, 3), None),
        (lambda x: x + torch.linspace(0, 1, x.shape[3], dtype=x.dtype), None),
    ],
    ids=["mean", "cumulated", "position"],
)
def test_black_boxes_that_no_tiling_fits(function: Callable[[Tensor], Tensor], stride: int | None) -> None:
    found = probe(function, 1)
    assert found.reach is None
    assert found.stride == stride
    assert found.evidence["black_box"]


def resized(side: int) -> Callable[[Tensor], Tensor]:
    """Return what networks do that see their window at one size, whatever it has."""
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9
    return lambda x: F.interpolate(F.conv2d(F.interpolate(x, side), kernel.to(x.dtype), padding=1), x.shape[2:])


@pytest.mark.parametrize(
    "function",
    [
        resized(64),
        resized(96),
        lambda x: x if x.shape[3] < 150 else -x,
        lambda x: x if x.shape[2] < 350 else -x,
        lambda x: x * x.shape[2] / 100,
    ],
    ids=["resized to 64", "resized to 96", "wider than 150", "higher than 350", "scaled by its height"],
)
def test_answers_that_depend_on_the_size_of_the_window(function: Callable[[Tensor], Tensor]) -> None:
    found = probe(function, 1)
    assert found.reach is None
    assert found.halo is None


def test_a_black_box_in_fp32_gets_the_same_answer() -> None:
    torch.manual_seed(1)
    net = TinyUNet("deconv3").eval()
    found = probe(lambda x: net(x.float()), 3)
    assert found.evidence["stride_precision"] == "float32"
    assert (found.stride, found.reach) == (4, Sides(22, 25, 22, 25))


def test_operations_that_swallow_nan_are_found_by_finite_draws() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(conv(3, 4, 5), Functional(torch.nan_to_num), conv(4, 2, 3), Functional(torch.nan_to_num))
    found = probe(net.eval(), 3)
    assert found.reach == even(3)
    assert "nan_to_num" in found.notes[0]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (TinyUNet(), "batch norm in training mode in layer 'enc.0.1' and 9 more"),
        (around(nn.BatchNorm2d(8, track_running_stats=False)), "batch norm"),
        (nn.Sequential(conv(3, 3, 3), nn.Dropout(0.2)), "dropout left on in layer '1'"),
        (lambda x: F.dropout(x, 0.1), "dropout left on"),
        (lambda x: x + torch.rand(1), "different answers for the same image"),
        (lambda x: x - x.mean(0), "other tiles of the batch"),
        (lambda x: x / 0, "NaN or infinity"),
        (lambda x: x[..., 1:], r"\(1, 3, 384, 383\) for \(1, 3, 384, 384\)"),
        (lambda x: {"logits": x}, "returns dict"),
        (lambda x: x @ torch.ones(7, 7), "fails on a 384 x 384 input"),
        (lambda x: x.reshape(1, 3, *x.shape[2:]), "not a batch of two"),
    ],
)
def test_models_that_cannot_be_tiled_are_refused(model: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        probe(model, 3)


def test_a_counter_inside_is_noticed() -> None:
    calls: list[int] = []
    with pytest.raises(ModelError, match="keeps state"):
        probe(lambda x: x * _count(calls), 1)


def _count(calls: list[int]) -> int:
    calls.append(0)
    return len(calls)


def test_a_wrong_declared_stride_is_named_and_corrected() -> None:
    net = around(nn.Identity())
    found = probe(net, 3, declared_stride=2)
    assert found.stride == 4
    assert "declared stride 2 is wrong: tiles must be multiples of 4" in found.notes[0]
    assert probe(net, 3, declared_stride=16).stride == 16


def test_a_declared_stride_makes_unusual_sizes_possible() -> None:
    def by_five(x: Tensor) -> Tensor:
        return F.interpolate(F.max_pool2d(x, 5), scale_factor=5)

    with pytest.raises(ModelError, match="Declare the model's total stride"):
        probe(by_five, 1)
    assert probe(by_five, 1, declared_stride=5).stride == 5


def test_the_callers_module_is_left_alone() -> None:
    net = around(nn.BatchNorm2d(8))
    before = copy.deepcopy(net.state_dict())
    probe(net, 3)
    assert not net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in net.modules())


def test_json_round_trip() -> None:
    for net in (conv(3, 2, 3), around(nn.GroupNorm(2, 8))):
        found = probe(net.eval(), 3)
        assert Probe.from_json(found.to_json()) == found
    with pytest.raises(StorageError, match=r"old\.json does not hold a probe"):
        Probe.from_json("{}", "old.json")


def test_halo_is_the_reach_rounded_up() -> None:
    found = Probe(16, Sides(0, 1, 16, 53))
    assert found.halo == Sides(0, 16, 16, 64)
    assert str(found) == "Local: total stride 16, reach 0 px up, 1 down, 16 left, 53 right."


def test_cache_is_by_weights_settings_and_training_mode(tmp_path: Path) -> None:
    net = nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4)).eval()
    first = probe(net, 3, cache=tmp_path / "probes")
    assert probe(net, 3, cache=tmp_path / "probes") == first  # `seconds` would differ if it were measured again
    kept = list((tmp_path / "probes").iterdir())
    assert len(kept) == 1
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] += 1
    probe(net, 3, cache=tmp_path / "probes")
    assert len(list((tmp_path / "probes").iterdir())) == 2
    with pytest.raises(ModelError, match="training mode"):
        probe(net.train(), 3, cache=tmp_path / "probes")
    kept[0].write_text("damaged")
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] -= 1
    assert probe(net.eval(), 3, cache=tmp_path / "probes").reach == first.reach
