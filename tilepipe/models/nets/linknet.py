"""LinkNet (Chaurasia & Culurciello 2017, arXiv 1707.03718): a light decoder that adds the encoder's features.

Shapes: B batch, H x W pixels (multiples of S = 2 ** depth); level l has H/2^l x W/2^l pixels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.models.nets.arch import Body
from tilepipe.models.nets.encoders import encoder
from tilepipe.models.nets.layers import NORMS, ConvNorm, Network, check_tile, conv, dropout
from tilepipe.models.nets.upsample import upsample


class LinkNetArch(Body):
    """Parameters of `LinkNet`; `up` offers no plain resizing, as the decoder has no other 3 x 3 convolution."""

    up: Literal[
        "nearest_conv",
        "bilinear_conv",
        "deconv2",
        "deconv3",
        "deconv4",
        "shuffle",
        "shuffle_icnr",
        "shuffle_icnr_blur",
        "unpool",
    ] = "nearest_conv"
    """Up-sampling by 2, see `arch.Up`; the paper has deconv3."""


class Level(nn.Module):
    """One level of the decoder: it quarters the channels, up-samples, takes the skip's channels and adds the skip."""

    def __init__(self, inputs: int, outputs: int, arch: LinkNetArch) -> None:
        super().__init__()
        middle = max(1, inputs // 4)
        self.squeeze = ConvNorm(inputs, middle, 1, arch)
        self.up = upsample(arch.up, middle, outputs if arch.up == "unpool" else middle)
        self.norm = NORMS[arch.norm](self.up.out_channels)
        self.expand = ConvNorm(self.up.out_channels, outputs, 1, arch)
        self.drop = dropout(arch)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Return (B, D, 2H, 2W) for (B, C, H, W) and the skip (B, D, 2H, 2W)."""
        x = self.squeeze(x)  # (B, C/4, H, W)
        x = F.relu(self.norm(self.up(x, skip)), inplace=True)  # (B, C/4, 2H, 2W)
        x = self.drop(self.expand(x))  # (B, D, 2H, 2W)
        return x if skip is None else x + skip


class LinkNet(Network):
    """Maps (B, bands, H, W) float to logits (B, classes, H, W); takes `LinkNetArch`'s keywords. Raises `ModelError`."""

    Arch = LinkNetArch
    arch: LinkNetArch

    def __init__(self, bands: int, classes: int, /, **arch: object) -> None:
        super().__init__(bands, classes, **arch)
        self.stride = 2**self.arch.depth
        self.encoder = encoder(bands, self.arch)
        have = self.encoder.channels
        self.decoder = nn.ModuleList()
        inputs = have[self.stride]
        for level in reversed(range(self.arch.depth)):
            # A ResNet has no features at full resolution, so there the width is the decoder's.
            outputs = have.get(2**level, self.arch.width)
            self.decoder.append(Level(inputs, outputs, self.arch))
            inputs = outputs
        self.head = conv(inputs, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W). Raises `ModelError` if H or W is not a multiple of `stride`."""
        check_tile(x, self.bands, self.stride)
        *skips, x = self.encoder(x)  # x (B, C, H/S, W/S)
        for level in self.decoder:
            x = level(x, skips.pop() if skips else None)  # (B, C of the skip, H/2^l, W/2^l)
        logits: Tensor = self.head(x)  # (B, classes, H, W)
        return logits
