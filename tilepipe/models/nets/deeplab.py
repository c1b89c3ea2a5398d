"""DeepLabv3+ (Chen 2018, arXiv 1802.02611): dilation instead of halving, context at several rates, one fine skip.

Shapes: B batch, H x W pixels (multiples of S = output_stride), A = 16 width (256 at width 16, as in the paper).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.models.nets.arch import Body
from tilepipe.models.nets.encoders import encoder
from tilepipe.models.nets.layers import ConvNorm, Network, check_tile, conv, dropout


class DeepLabArch(Body):
    """Parameters of `DeepLab`."""

    depth: int = Field(default=5, ge=3, le=7)
    output_stride: Literal[8, 16, 32] = 16
    """Total stride; levels below it are dilated."""
    rate: int = Field(default=6, ge=1, le=64)
    """Dilation of the pyramid's first 3 x 3 convolution; the next two have 2 and 3 times as much. The paper has 6 at
    stride 16 and 12 at stride 8."""
    image_pool: bool = False
    """Whether the pyramid gets the mean of the whole tile. The result then depends on the tile: no halo is enough."""

    @model_validator(mode="after")
    def _deep_enough(self) -> DeepLabArch:
        if self.output_stride > 2**self.depth:
            raise ValueError(f"output_stride {self.output_stride} is beyond 2 ** depth = {2**self.depth}; use less")
        return self


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: 1 x 1, 3 x 3 at three rates and, if `image_pool` is set, the tile's mean."""

    def __init__(self, inputs: int, outputs: int, arch: DeepLabArch) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNorm(inputs, outputs, 1, arch)])
        self.branches.extend(ConvNorm(inputs, outputs, 3, arch, rate=arch.rate * k) for k in (1, 2, 3))
        self.image = conv(inputs, outputs, 1) if arch.image_pool else None
        self.project = ConvNorm((5 if arch.image_pool else 4) * outputs, outputs, 1, arch)
        self.drop = dropout(arch)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, A, H, W) of (B, C, H, W)."""
        seen = [branch(x) for branch in self.branches]  # 4 of (B, A, H, W)
        if self.image is not None:
            mean = F.relu(self.image(F.adaptive_avg_pool2d(x, 1)))  # (B, A, 1, 1)
            seen.append(mean.expand_as(seen[0]))  # (B, A, H, W)
        dropped: Tensor = self.drop(self.project(torch.cat(seen, 1)))
        return dropped


class DeepLab(Network):
    """Maps (B, bands, H, W) float to logits (B, classes, H, W); takes `DeepLabArch`'s keywords. Raises `ModelError`."""

    Arch = DeepLabArch
    arch: DeepLabArch

    def __init__(self, bands: int, classes: int, /, **arch: object) -> None:
        super().__init__(bands, classes, **arch)
        self.stride = self.arch.output_stride
        width = self.arch.width
        self.encoder = encoder(bands, self.arch, self.stride)
        have = self.encoder.channels
        self.pyramid = Pyramid(have[self.stride], 16 * width, self.arch)
        self.skip = ConvNorm(have[4], 3 * width, 1, self.arch)
        self.refine1 = ConvNorm(19 * width, 16 * width, 3, self.arch)
        self.refine2 = ConvNorm(16 * width, 16 * width, 3, self.arch)
        self.head = conv(16 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W). Raises `ModelError` if H or W is not a multiple of `stride`."""
        check_tile(x, self.bands, self.stride)
        features = self.encoder(x)
        # The plain encoder begins at stride 1, a ResNet at stride 2.
        fine = features[2 if self.arch.encoder == "plain" else 1]  # (B, C, H/4, W/4)
        y = self.pyramid(features[-1])  # (B, A, H/S, W/S)
        y = larger(y, self.stride // 4)  # (B, A, H/4, W/4)
        y = self.refine1(torch.cat((self.skip(fine), y), 1))  # (B, A, H/4, W/4)
        y = self.head(self.refine2(y))  # (B, classes, H/4, W/4)
        return larger(y, 4)  # (B, classes, H, W)


def larger(x: Tensor, factor: int) -> Tensor:
    """Return `x` (B, C, H, W) resized bilinearly by `factor`; corners are not aligned."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
