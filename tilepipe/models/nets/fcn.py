"""FCN-32s, -16s, -8s (Long, Shelhamer, Darrell 2015, arXiv 1411.4038): class scores of coarse levels, summed.

Shapes: B batch, K classes, H x W pixels (multiples of S = 2 ** depth).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.models.nets.arch import Body
from tilepipe.models.nets.encoders import encoder
from tilepipe.models.nets.layers import Network, check_tile, conv, dropout


class FCNArch(Body):
    """Parameters of `FCN`."""

    depth: int = Field(default=5, ge=1, le=7)
    finest: Literal[1, 2, 4, 8, 16, 32] = 8
    """Stride of the finest level whose scores are used: 8 is FCN-8s."""
    up: Literal["deconv", "bilinear"] = "deconv"
    """Up-sampling: a transposed convolution whose kernel is twice the factor and starts bilinear, as in the paper; or a
    fixed bilinear resize."""

    @model_validator(mode="after")
    def _reaches(self) -> FCNArch:
        if self.finest > 2**self.depth or (self.finest == 1 and self.encoder != "plain"):
            raise ValueError(
                f"finest {self.finest} is not a stride of a {self.encoder} encoder of depth {self.depth}; "
                f"use {2**self.depth} or a smaller power of 2"
            )
        return self


class FCN(Network):
    """Maps (B, bands, H, W) float to logits (B, classes, H, W); takes `FCNArch`'s keywords. Raises `ModelError`."""

    Arch = FCNArch
    arch: FCNArch

    def __init__(self, bands: int, classes: int, /, **arch: object) -> None:
        super().__init__(bands, classes, **arch)
        self.stride = 2**self.arch.depth
        self.encoder = encoder(bands, self.arch)
        self.drop = dropout(self.arch)
        used = [stride for stride in sorted(self.encoder.channels, reverse=True) if stride >= self.arch.finest]
        self.scores = nn.ModuleList(conv(self.encoder.channels[stride], classes, 1) for stride in used)
        self.ups = nn.ModuleList(enlarge(classes, 2, self.arch.up) for _ in used[1:])
        self.last = enlarge(classes, self.arch.finest, self.arch.up)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W). Raises `ModelError` if H or W is not a multiple of `stride`."""
        check_tile(x, self.bands, self.stride)
        features = self.encoder(x)[::-1]  # coarsest first: (B, C, H/S, W/S), ...
        y: Tensor = self.scores[0](self.drop(features[0]))  # (B, K, H/S, W/S)
        # Not strict, since the encoder may have features finer than `finest`.
        for up, score, feature in zip(self.ups, list(self.scores)[1:], features[1:], strict=False):
            y = up(y) + score(feature)  # (B, K, 2h, 2w)
        y = self.last(y)  # (B, K, H, W)
        return y


class Bilinear(nn.Module):
    """Fixed bilinear resize (B, C, H, W) -> (B, C, factor H, factor W); corners are not aligned."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = float(factor)

    def forward(self, x: Tensor) -> Tensor:
        """Return the resized tensor."""
        return F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)


def enlarge(channels: int, factor: int, up: str) -> nn.Module:
    """Return the layer (B, C, H, W) -> (B, C, factor H, factor W)."""
    if factor == 1:
        return nn.Identity()
    if up == "bilinear":
        return Bilinear(factor)
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, factor, factor // 2, bias=False)
    bilinear_(layer.weight)
    return layer


@torch.no_grad()
def bilinear_(weight: Tensor) -> None:
    """Make a transposed convolution of kernel 2s and stride s a bilinear resize by s, channel by channel, in place."""
    size = weight.shape[-1]
    line = 1 - (torch.arange(size) - (size - 1) / 2).abs() / (size // 2)
    weight.zero_()
    for channel in range(min(weight.shape[:2])):
        weight[channel, channel] = torch.outer(line, line)
