"""SegNet (Badrinarayanan, Kendall, Cipolla 2015, arXiv 1511.00561): the decoder knows only where the maxima were.

Shapes: B batch, H x W pixels (multiples of S = 2 ** depth), w = width; level l has H/2^l x W/2^l pixels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.models.nets.arch import Blocks
from tilepipe.models.nets.layers import ConvBlock, Network, check_tile, conv
from tilepipe.models.nets.upsample import unpool


class SegNetArch(Blocks):
    """Parameters of `SegNet`: subsampling takes maxima, and up-sampling puts the maxima back."""


class SegNet(Network):
    """Maps (B, bands, H, W) float to logits (B, classes, H, W); takes `SegNetArch`'s keywords. Raises `ModelError`."""

    Arch = SegNetArch
    arch: SegNetArch

    def __init__(self, bands: int, classes: int, /, **arch: object) -> None:
        super().__init__(bands, classes, **arch)
        self.stride = 2**self.arch.depth
        widths = [self.arch.width * 2**level for level in range(self.arch.depth)]  # w, 2w, 4w, ...
        pairs = list(zip([bands, *widths], widths, strict=False))
        self.encoder = nn.ModuleList(ConvBlock(inputs, outputs, self.arch) for inputs, outputs in pairs)
        pairs = list(zip(widths, [widths[0], *widths], strict=False))
        self.decoder = nn.ModuleList(ConvBlock(inputs, outputs, self.arch) for inputs, outputs in reversed(pairs))
        self.head = conv(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W). Raises `ModelError` if H or W is not a multiple of `stride`."""
        check_tile(x, self.bands, self.stride)
        places = []
        for block in self.encoder:
            x, where = F.max_pool2d(block(x), 2, return_indices=True)  # (B, w 2^l, H/2^(l+1), W/2^(l+1))
            places.append(where)
        for block in self.decoder:
            x = block(unpool(x, places.pop()))  # (B, w 2^(l-1), H/2^l, W/2^l)
        logits: Tensor = self.head(x)  # (B, classes, H, W)
        return logits
