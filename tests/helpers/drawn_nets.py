"""Small local networks that hypothesis draws: kernels, dilations, paddings, levels, up-samplings, skips."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

WIDTH = 6


class SameConv(nn.Module):
    """Convolution that keeps the size; even kernels reach one further to one side."""

    def __init__(self, inputs: int, kernel: int, dilation: int, padding: str, transposed: bool) -> None:
        super().__init__()
        total = dilation * (kernel - 1)
        near, far = total // 2, total - total // 2
        self.pad, self.mode = ((far, near) * 2 if transposed else (near, far) * 2), padding
        self.conv = nn.Conv2d(inputs, WIDTH, kernel, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pad) if self.mode == "zeros" else F.pad(x, self.pad, mode=self.mode)
        return F.leaky_relu(self.conv(x), 0.3)


class Level(nn.Module):
    """Down, something at the coarse level, up again by the same factor, optionally beside a skip."""

    def __init__(self, factor: int, down: str, up: str, skip: bool, inner: nn.Module) -> None:
        super().__init__()
        self.factor, self.down, self.up, self.skip, self.inner = factor, down, up, skip, inner
        kernel = factor if down == "conv" else 3
        self.reduce = nn.Conv2d(WIDTH, WIDTH, kernel, factor, padding=int(down == "conv3"))
        self.spread = _spread(up, factor)

    def forward(self, x: Tensor) -> Tensor:
        pooled, where = F.max_pool2d(x, self.factor, return_indices=True)
        kinds = {"max": pooled, "avg": F.avg_pool2d(x, self.factor)}
        low = self.inner(kinds[self.down] if self.down in kinds else self.reduce(x))
        y = F.max_unpool2d(low, where, self.factor) if self.up == "unpool" else self.spread(low)
        return y + 0.5 * x if self.skip else y


def _spread(up: str, factor: int) -> nn.Module:
    if up in ("nearest", "bilinear", "bicubic"):
        return nn.Upsample(scale_factor=factor, mode=up)
    if up == "shuffle":
        return nn.Sequential(nn.Conv2d(WIDTH, WIDTH * factor**2, 1), nn.PixelShuffle(factor))
    if up == "unpool":
        return nn.Identity()
    kernel = {"deconv": factor, "deconv+1": factor + 1, "deconv+2": factor + 2}[up]
    padding, extra = divmod(kernel - factor, 2)
    return nn.ConvTranspose2d(WIDTH, WIDTH, kernel, factor, padding + extra, extra)


@st.composite
def convs(draw: Any, transposed: bool) -> nn.Module:
    drawn = st.tuples(
        st.sampled_from([1, 2, 3, 5]), st.integers(1, 3), st.sampled_from(["zeros", "reflect", "replicate"])
    )
    return nn.Sequential(*[SameConv(WIDTH, *one, transposed) for one in draw(st.lists(drawn, min_size=1, max_size=2))])


@st.composite
def networks(draw: Any) -> nn.Module:
    torch.manual_seed(draw(st.integers(0, 99)))
    flip = draw(st.booleans())
    factors = draw(st.sampled_from([(), (2,), (3,), (2, 2), (2, 3), (4,)]))
    ups = ["nearest", "bilinear", "bicubic", "deconv", "deconv+1", "deconv+2", "shuffle", "unpool"]
    inner: nn.Module = draw(convs(flip))
    for factor in factors:
        down = draw(st.sampled_from(["max", "avg", "conv", "conv3"] if factor < 4 else ["max", "avg", "conv"]))
        level = Level(factor, down, draw(st.sampled_from(ups)), draw(st.booleans()), inner)
        inner = nn.Sequential(draw(convs(flip)), level, draw(convs(flip)))
    net = nn.Sequential(nn.Conv2d(2, WIDTH, 1), inner, nn.Conv2d(WIDTH, 3, 1)).eval()
    net.stride = math.prod(factors)
    return net
