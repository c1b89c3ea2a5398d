"""Encoders: (B, bands, H, W) -> features, finest first, each half as large as the one before.

Every encoder has `channels`, a dict from stride (1, 2, 4, ...) to the channels of the feature at that stride.
"""

from __future__ import annotations

from torch import Tensor, nn

from tilepipe.models.arch import Body
from tilepipe.models.layers import ConvBlock, downsample


class Stage(nn.Module):
    """One level of the plain encoder: subsample (but for the first level), then a block."""

    def __init__(self, inputs: int, outputs: int, body: Body, *, first: bool) -> None:
        super().__init__()
        self.down = nn.Identity() if first else downsample(body.down, inputs)
        self.block = ConvBlock(inputs, outputs, body)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, D, H/2, W/2) of (B, C, H, W); (B, D, H, W) for the first level."""
        deeper: Tensor = self.block(self.down(x))
        return deeper


class PlainEncoder(nn.Module):
    """Convolution blocks whose channels double at every halving: the encoder of U-Net."""

    def __init__(self, bands: int, body: Body) -> None:
        super().__init__()
        self.channels = {2**level: body.width * 2**level for level in range(body.depth + 1)}
        widths = [bands, *self.channels.values()]
        self.stages = nn.ModuleList(
            Stage(widths[level], widths[level + 1], body, first=level == 0) for level in range(body.depth + 1)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return depth + 1 features: (B, width, H, W), (B, 2 width, H/2, W/2), ..."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def encoder(bands: int, body: Body) -> PlainEncoder:
    """Return the encoder that `body` describes."""
    return PlainEncoder(bands, body)
