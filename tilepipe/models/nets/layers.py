"""Layers: the building blocks that all architectures share.

Shapes: B batch, C channels, H x W pixels of the level, D channels out. Every layer keeps pixels aligned: up- and
down-sampling by 2 use the same phase (pixel i of a level covers pixels 2i and 2i + 1 of the next finer level).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.errors import ModelError
from tilepipe.models.nets.arch import Arch as BaseArch
from tilepipe.models.nets.arch import Blocks

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    # The number of groups must divide the number of channels.
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
    "none": lambda channels: nn.Identity(),
}


def conv(inputs: int, outputs: int, kernel: int, *, bias: bool = True, stride: int = 1, rate: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps H x W (at stride 1); its weights start as ReLU needs them (He 2015)."""
    padding = rate * (kernel - 1) // 2
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, rate, bias=bias)
    # On the meta device there are no values to fill, and torch would import its compiler to do nothing: seconds.
    if not layer.weight.is_meta:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layer


class Network(nn.Module):
    """Base of every architecture: (B, bands, H, W) -> logits (B, classes, H, W), H and W multiples of `stride`."""

    Arch: ClassVar[type[BaseArch]]
    """Class of the architecture's parameters, which are the network's keywords."""
    arch: BaseArch
    bands: int
    stride: int
    """Total stride S in pixels."""

    def __init__(self, bands: int, classes: int, /, **arch: object) -> None:
        """Check the parameters. Raises `ModelError` that names the first wrong parameter."""
        super().__init__()
        self.arch = self.Arch(**arch)
        self.bands = bands


class ConvNorm(nn.Sequential):
    """Convolution, normalisation, ReLU; `blocks` says which normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, blocks: Blocks, *, rate: int = 1) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel, bias=blocks.norm == "none", rate=rate)
        self.norm = NORMS[blocks.norm](outputs)
        self.act = nn.ReLU(inplace=True)


class ConvBlock(nn.Module):
    """The block of U-Net (Ronneberger 2015): twice (3 x 3 convolution, normalisation, ReLU), then dropout."""

    def __init__(self, inputs: int, outputs: int, blocks: Blocks, *, rate: int = 1) -> None:
        super().__init__()
        # A norm has a shift of its own, which takes the place of the bias.
        bias = blocks.norm == "none"
        self.conv1 = conv(inputs, outputs, 3, bias=bias, rate=rate)
        self.norm1 = NORMS[blocks.norm](outputs)
        self.conv2 = conv(outputs, outputs, 3, bias=bias, rate=rate)
        self.norm2 = NORMS[blocks.norm](outputs)
        self.drop = dropout(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, D, H, W) for (B, C, H, W)."""
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)  # (B, D, H, W)
        x = F.relu(self.norm2(self.conv2(x)), inplace=True)  # (B, D, H, W)
        dropped: Tensor = self.drop(x)
        return dropped


def blur(x: Tensor, taps: tuple[float, ...], stride: int) -> Tensor:
    """Return `x` filtered per channel with the separable `taps`; edge pixels are repeated outward.

    An even number of taps is centred on the corner between pixels; with stride 2 this is the middle of each 2 x 2.
    """
    channels, side = x.shape[1], len(taps) // 2
    line = x.new_tensor(taps) / sum(taps)
    kernel = torch.outer(line, line).expand(channels, 1, -1, -1)  # (C, 1, k, k)
    before = (len(taps) - 1) // 2 if stride > 1 else side
    x = F.pad(x, (before, len(taps) - 1 - before, before, len(taps) - 1 - before), mode="replicate")
    return F.conv2d(x, kernel, stride=stride, groups=channels)


def dropout(blocks: Blocks) -> nn.Module:
    """Return the dropout layer that `blocks` describes."""
    return (nn.Dropout if blocks.dropout_kind == "element" else nn.Dropout2d)(blocks.dropout)


class MaxBlur(nn.Module):
    """Anti-aliased subsampling: running 3 x 3 maximum, then every second pixel of a 4 x 4 blur (Zhang 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H/2, W/2) for (B, C, H, W)."""
        return blur(F.max_pool2d(x, 3, 1, 1), (1, 3, 3, 1), 2)


def downsample(kind: str, channels: int) -> nn.Module:
    """Return the layer (B, C, H, W) -> (B, C, H/2, W/2) of that kind; see `arch.Down`."""
    if kind == "max":
        return nn.MaxPool2d(2)
    if kind == "average":
        return nn.AvgPool2d(2)
    return conv(channels, channels, 3, stride=2) if kind == "strided" else MaxBlur()


def check_tile(x: Tensor, bands: int, stride: int) -> None:
    """Raise `ModelError` that names the right shape unless `x` is (B, bands, n * stride, m * stride)."""
    if x.ndim != 4 or x.shape[1] != bands:
        raise ModelError(f"the model reads tiles of shape (B, {bands}, H, W), not {tuple(x.shape)}")
    height, width = x.shape[2:]
    if height % stride or width % stride or not height or not width:
        right = " x ".join(str(max(1, math.ceil(side / stride)) * stride) for side in (height, width))
        raise ModelError(f"tile {height} x {width} is not a multiple of {stride}; use {right}")
