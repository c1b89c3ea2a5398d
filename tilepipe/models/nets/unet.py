"""U-Net (Ronneberger 2015, arXiv 1505.04597): each level joins up-sampled features with the encoder's own.

Shapes: B batch, H x W pixels (multiples of S = 2 ** depth), w = width; level l has H/2^l x W/2^l pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tilepipe.models.nets.arch import Body, Up
from tilepipe.models.nets.encoders import encoder
from tilepipe.models.nets.layers import ConvBlock, Network, check_tile, conv
from tilepipe.models.nets.upsample import upsample


class UNetArch(Body):
    """Parameters of `UNet`."""

    up: Up = "nearest"


class Level(nn.Module):
    """One level of the decoder: it up-samples, joins the skip and applies a block."""

    def __init__(self, inputs: int, skip: int, outputs: int, arch: UNetArch) -> None:
        super().__init__()
        self.up = upsample(arch.up, inputs, outputs)
        self.block = ConvBlock(self.up.out_channels + skip, outputs, arch)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Return (B, D, 2H, 2W) for (B, C, H, W) and the skip (B, S, 2H, 2W)."""
        x = self.up(x, skip)  # (B, C or D, 2H, 2W)
        joined: Tensor = self.block(x if skip is None else torch.cat((skip, x), 1))
        return joined


class UNet(Network):
    """Maps (B, bands, H, W) float to logits (B, classes, H, W); takes `UNetArch`'s keywords. Raises `ModelError`."""

    Arch = UNetArch
    arch: UNetArch

    def __init__(self, bands: int, classes: int, /, **arch: object) -> None:
        super().__init__(bands, classes, **arch)
        self.stride = 2**self.arch.depth
        self.encoder = encoder(bands, self.arch)
        have = self.encoder.channels
        self.decoder = nn.ModuleList()
        inputs = have[self.stride]
        for level in reversed(range(self.arch.depth)):
            outputs = self.arch.width * 2**level
            # A ResNet has no features at full resolution, so the finest level has no skip.
            self.decoder.append(Level(inputs, have.get(2**level, 0), outputs, self.arch))
            inputs = outputs
        self.head = conv(inputs, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W). Raises `ModelError` if H or W is not a multiple of `stride`."""
        check_tile(x, self.bands, self.stride)
        *skips, x = self.encoder(x)  # x (B, w 2^depth, H/S, W/S)
        for level in self.decoder:
            x = level(x, skips.pop() if skips else None)  # (B, w 2^l, H/2^l, W/2^l)
        logits: Tensor = self.head(x)  # (B, classes, H, W)
        return logits
