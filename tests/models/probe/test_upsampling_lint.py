import math

import pytest
import torch
from torch import nn

from tilepipe.models.nets.fcn import bilinear_
from tilepipe.models.nets.zoo import build
from tilepipe.models.probe.upsampling_lint import deconv_gains, imbalance, lint, overlap_counts, shuffle_gains


@pytest.mark.parametrize(
    ("kernel", "stride", "counts"),
    [(3, 2, (4, 2, 2, 1)), (4, 2, (4, 4, 4, 4)), (2, 2, (1, 1, 1, 1)), (1, 2, (1, 0, 0, 0))],
)
def test_overlap_counts(kernel: int, stride: int, counts: tuple[int, ...]) -> None:
    assert overlap_counts(kernel, stride) == counts


@pytest.mark.parametrize(
    "up", ["nearest", "bilinear", "nearest_conv", "bilinear_conv", "shuffle_icnr", "shuffle_icnr_blur", "unpool"]
)
def test_nothing_to_say(up: str) -> None:
    assert lint(build({"name": "unet", "width": 4, "depth": 2, "up": up}, 3, 2)) == []


def test_kernel_3_names_the_layer_and_the_way_out() -> None:
    findings = lint(build({"name": "unet", "width": 4, "depth": 2, "up": "deconv3"}, 3, 2))
    assert [f.layer for f in findings] == ["decoder.0.up.conv", "decoder.1.up.conv"]
    assert findings[0].overlap == 4
    assert findings[0].sentence == (
        "up-sampling layer decoder.0.up.conv is a stride-2 transposed convolution with kernel 3: "
        f"uneven overlap (4:1, imbalance {findings[0].imbalance:.2f}), checkerboard likely; use resize-convolution, or "
        "a pixel shuffle with ICNR and blur; kernel 4 evens the overlap only"
    )


def test_even_kernels_start_as_uneven_as_odd_ones() -> None:
    """What the advice rests on: overlap is another cause than random weights."""

    def start(kernel: int) -> float:
        torch.manual_seed(0)
        return imbalance(deconv_gains(nn.ConvTranspose2d(64, 64, kernel, 2).weight, 2))

    assert [start(kernel) for kernel in (2, 3, 4)] == pytest.approx([start(3)] * 3, rel=0.15)
    assert start(3) > 1.5


@pytest.mark.parametrize("up", ["deconv2", "deconv3", "deconv4", "shuffle"])
def test_the_advice_leads_to_no_finding(up: str) -> None:
    arch = {"name": "unet", "width": 4, "depth": 1}
    (finding,) = lint(build({**arch, "up": up}, 3, 2))
    assert "use resize-convolution, or a pixel shuffle with ICNR and blur" in finding.sentence
    for better in ("nearest_conv", "shuffle_icnr_blur"):
        assert lint(build({**arch, "up": better}, 3, 2)) == []


@pytest.mark.parametrize("up", ["deconv2", "deconv4", "shuffle"])
def test_random_weights_are_uneven(up: str) -> None:
    torch.manual_seed(0)
    findings = lint(build({"name": "unet", "width": 16, "depth": 2, "up": up}, 3, 2))
    assert len(findings) == 2
    assert all(1.2 < f.imbalance < 2.2 and f.overlap == 1 for f in findings)
    assert "checkerboard possible" in findings[0].sentence


def test_bilinear_start_of_fcn_is_even() -> None:
    assert lint(build({"name": "fcn", "width": 2}, 3, 2)) == []
    layer = nn.ConvTranspose2d(3, 3, 16, 8, 4)
    bilinear_(layer.weight)
    gains = deconv_gains(layer.weight, 8)
    assert gains.shape == (64, 3, 3)
    assert torch.allclose(gains, torch.eye(3, dtype=torch.float64).expand(64, 3, 3))


def test_imbalance_by_hand() -> None:
    assert imbalance(torch.tensor([[1.0], [3.0]])) == pytest.approx(0.5)  # mean 2, each phase 1 away
    assert imbalance(torch.ones(4, 2, 2)) == 0
    assert math.isinf(imbalance(torch.tensor([[1.0], [-1.0]])))


def test_gains_are_the_answer_to_a_constant() -> None:
    torch.manual_seed(0)
    deconv = nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False).double()
    y = deconv(torch.ones(1, 1, 6, 6, dtype=torch.float64)).detach()[0, 0, 4:-4, 4:-4]
    measured = sorted(float(y[a::2, b::2].mean()) for a in (0, 1) for b in (0, 1))
    assert measured == pytest.approx(sorted(deconv_gains(deconv.weight, 2).flatten().tolist()))
    conv = nn.Conv2d(1, 4, 3, padding=1, bias=False).double()
    y = nn.functional.pixel_shuffle(conv(torch.ones(1, 1, 6, 6, dtype=torch.float64)), 2).detach()[0, 0, 4:-4, 4:-4]
    measured = [float(y[a::2, b::2].mean()) for a in (0, 1) for b in (0, 1)]
    assert measured == pytest.approx(shuffle_gains(conv.weight, 2).flatten().tolist())


def test_modules_of_others() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.ConvTranspose2d(4, 2, 3, stride=3), nn.ConvTranspose2d(2, 2, 3)
    )
    assert [(f.layer, f.kind, f.stride) for f in lint(net)] == [
        ("0", "pixel shuffle", 2),
        ("2", "transposed convolution", 3),
    ]
