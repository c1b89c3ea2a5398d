from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tilepipe.models.nets.arch import Up
from tilepipe.models.nets.fcn import enlarge
from tilepipe.models.nets.layers import MaxBlur, blur
from tilepipe.models.nets.upsample import Deconv, Shuffle, Unpool, icnr_, unpool, upsample


def phases(y: torch.Tensor) -> torch.Tensor:
    """(B, C, 2H, 2W) -> (4, B, C, H, W)."""
    return torch.stack([y[..., a::2, b::2] for a in (0, 1) for b in (0, 1)])


@pytest.mark.parametrize("kind", get_args(Up))
def test_doubles_height_and_width(kind: str) -> None:
    layer = upsample(kind, 6, 3)
    y = layer(torch.randn(2, 6, 4, 5), torch.randn(2, 3, 8, 10))
    assert y.shape == (2, layer.out_channels, 8, 10)
    assert layer.out_channels == (6 if kind in ("nearest", "bilinear") else 3)


@pytest.mark.parametrize(
    "kind", ["nearest", "bilinear", "nearest_conv", "bilinear_conv", "shuffle_icnr", "shuffle_icnr_blur"]
)
def test_a_constant_has_no_checkerboard_at_the_start(kind: str) -> None:
    torch.manual_seed(0)
    y = upsample(kind, 4, 3)(torch.ones(1, 4, 8, 8))
    inner = phases(y[..., 4:-4, 4:-4])
    assert torch.allclose(inner, inner[:1].expand_as(inner), atol=1e-5)


@pytest.mark.parametrize("kind", ["deconv2", "deconv3", "deconv4", "shuffle"])
def test_a_constant_has_a_checkerboard_at_the_start(kind: str) -> None:
    torch.manual_seed(0)
    inner = phases(upsample(kind, 4, 3)(torch.ones(1, 4, 8, 8))[..., 4:-4, 4:-4])
    assert (inner - inner[:1]).abs().max() > 0.1


@pytest.mark.parametrize(("kernel", "counts"), [(2, [1, 1, 1, 1]), (3, [1, 2, 2, 4]), (4, [4, 4, 4, 4])])
def test_overlap_of_transposed_convolutions(kernel: int, counts: list[int]) -> None:
    layer = Deconv(1, 1, kernel)
    nn.init.ones_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)  # type: ignore[arg-type]
    inner = phases(layer(torch.ones(1, 1, 8, 8))[..., 4:-4, 4:-4]).flatten(1)
    assert sorted(inner[:, 0].tolist()) == counts
    assert torch.equal(inner, inner[:, :1].expand_as(inner))


def test_pixel_shuffle_puts_channels_where_shi_says() -> None:
    layer = Shuffle(2, 3, icnr=False, smooth=False)
    x = torch.randn(1, 2, 4, 5)
    low, y = layer.conv(x), layer(x)
    for c, a, b in ((0, 0, 0), (1, 0, 1), (2, 1, 0), (2, 1, 1)):
        assert torch.equal(y[0, c, a::2, b::2], low[0, 4 * c + 2 * a + b])


def test_icnr_is_nearest_of_one_convolution() -> None:
    conv = nn.Conv2d(2, 12, 3, padding=1, bias=False)
    icnr_(conv.weight)
    x = torch.randn(1, 2, 4, 4)
    small = F.conv2d(x, conv.weight[::4], padding=1)
    assert torch.allclose(F.pixel_shuffle(conv(x), 2), F.interpolate(small, scale_factor=2), atol=1e-6)


def test_unpooling_restores_positions() -> None:
    x = torch.randn(2, 3, 6, 8)
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    back = unpool(pooled, indices)
    assert torch.equal(back, F.max_unpool2d(pooled, indices, 2))
    kept = back != 0
    assert torch.equal(back[kept], x[kept])
    assert torch.equal(F.max_pool2d(torch.where(kept, back, -torch.inf), 2), pooled)
    assert int(kept.sum()) == pooled.numel()


def test_unpool_layer_uses_the_skips_maxima() -> None:
    skip = torch.zeros(1, 1, 2, 2)
    skip[0, 0, 1, 0] = 5.0
    y = Unpool(1, 1)(torch.full((1, 1, 1, 1), 7.0), skip)
    assert y.flatten().tolist() == [0.0, 0.0, 7.0, 0.0]


@pytest.mark.parametrize("factor", [2, 8, 16])
def test_fcn_deconvolution_starts_as_bilinear_resize(factor: int) -> None:
    x = torch.randn(1, 3, 5, 6)
    learned, fixed = enlarge(3, factor, "deconv"), enlarge(3, factor, "bilinear")
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    assert torch.allclose(learned(x)[inner], fixed(x)[inner], atol=1e-5)
    assert isinstance(enlarge(3, 1, "deconv"), nn.Identity)


@pytest.mark.parametrize(("taps", "stride"), [((1, 1), 1), ((1, 3, 3, 1), 2)])
def test_blur_keeps_constants_up_to_the_border(taps: Any, stride: int) -> None:
    y = blur(torch.full((1, 2, 8, 6), 3.0), taps, stride)
    assert y.shape == (1, 2, 8 // stride, 6 // stride)
    assert torch.allclose(y, torch.tensor(3.0))


def test_blur_is_centred_on_the_pixels_it_replaces() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 4, 16)
    assert torch.allclose(blur(ramp, (1, 3, 3, 1), 2)[0, 0, 0, 1:-1], F.avg_pool2d(ramp, 2)[0, 0, 0, 1:-1])
    assert torch.equal(MaxBlur()(torch.zeros(1, 1, 4, 4)), torch.zeros(1, 1, 2, 2))
