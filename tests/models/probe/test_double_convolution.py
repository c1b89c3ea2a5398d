from __future__ import annotations

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tilepipe.inference.profile.footprint import LiveBytes
from tilepipe.models.probe.double_convolution import ByTaps

PAIR = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(
    taps=PAIR,
    stride=PAIR,
    dilation=PAIR,
    groups=st.sampled_from([1, 2, 4]),
    padding=st.one_of(st.sampled_from(["valid", 0]), st.tuples(st.integers(0, 5), st.integers(0, 5))),
    images=st.integers(1, 2),
    bias=st.booleans(),
)
def test_it_is_torchs_convolution_and_nan_goes_as_far(
    taps: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], groups: int,
    padding: str | int | tuple[int, int], images: int, bias: bool,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, taps, stride, padding, dilation, groups, bias).double()
    x = torch.randn(images, 4, 17, 21, dtype=torch.float64)
    x[0, 1, 9, 8] = torch.nan
    with torch.no_grad():
        right = layer(x)
        with ByTaps():
            found = layer(x)
    assert torch.equal(found.isnan(), right.isnan())
    torch.testing.assert_close(found, right, rtol=1e-13, atol=1e-13, equal_nan=True)


def test_other_precisions_and_same_padding_are_left_to_torch() -> None:
    layer = nn.Conv2d(3, 2, 3, padding="same")
    x = torch.randn(1, 3, 8, 9)
    for net, image in ((layer, x), (copy.deepcopy(layer).double(), x.double())):
        right = net(image)
        with ByTaps():
            assert torch.equal(net(image), right)


def test_nothing_is_unfolded() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1).double()
    x = torch.ones(1, 8, 96, 960, dtype=torch.float64)
    with torch.no_grad(), LiveBytes() as seen, ByTaps():
        layer(x)
    assert seen.columns == 0
    assert seen.peak < 4 * x.nbytes  # columns of this kernel alone are 9 times the input
