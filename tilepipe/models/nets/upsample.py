"""Up-sampling by 2: every mechanism that a decoder of ours can use.

Shapes: B batch, C channels in, H x W pixels of the coarse level, skip (B, S, 2H, 2W) of the finer level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.models.nets.layers import blur, conv


class Upsample(nn.Module):
    """Base of all up-sampling layers: they map (B, C, H, W) and the skip to (B, out_channels, 2H, 2W)."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels


class Resize(Upsample):
    """Nearest or bilinear resize, whose corners are not aligned; with `outputs`, a 3 x 3 convolution follows."""

    def __init__(self, inputs: int, mode: str, outputs: int | None = None) -> None:
        super().__init__(outputs or inputs)
        self.mode = mode
        self.conv: nn.Module = conv(inputs, outputs, 3) if outputs else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return (B, D, 2H, 2W)."""
        # torch refuses the option for 'nearest', where it would mean nothing.
        corners = None if self.mode == "nearest" else False
        larger: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=corners))
        return larger


class Deconv(Upsample):
    """Transposed convolution of stride 2. Only a kernel that 2 divides overlaps evenly (Odena 2016)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(outputs)
        # These give exactly 2H: torch makes 2 (H - 1) - 2 padding + kernel + extra.
        padding, extra = (kernel - 1) // 2, kernel % 2
        self.conv = nn.ConvTranspose2d(inputs, outputs, kernel, 2, padding, extra)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return (B, D, 2H, 2W)."""
        larger: Tensor = self.conv(x)
        return larger


class Shuffle(Upsample):
    """Sub-pixel convolution (Shi 2016): 4 D channels at H x W become D channels at 2H x 2W."""

    def __init__(self, inputs: int, outputs: int, *, icnr: bool, smooth: bool) -> None:
        super().__init__(outputs)
        self.smooth = smooth
        self.conv = conv(inputs, 4 * outputs, 3)
        if icnr:
            icnr_(self.conv.weight)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return (B, D, 2H, 2W)."""
        x = F.pixel_shuffle(self.conv(x), 2)  # (B, D, 2H, 2W)
        return blur(x, (1, 1), 1) if self.smooth else x


class Unpool(Upsample):
    """Max-unpooling (SegNet, Badrinarayanan 2015): values return to the places of the skip's maxima; the rest is 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs)
        self.conv: nn.Module = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, D, 2H, 2W); the skip too has D channels."""
        _, indices = F.max_pool2d(skip, 2, return_indices=True)
        return unpool(self.conv(x), indices)


def unpool(x: Tensor, indices: Tensor) -> Tensor:
    """Return (B, C, 2H, 2W): each value of `x` lies at the index of its maximum (of a 2 x 2 max-pooling), else 0."""
    batch, channels, height, width = x.shape
    # A scatter, because `max_unpool2d` refuses to run in torch's deterministic mode.
    flat = x.new_zeros(batch, channels, 4 * height * width)
    flat = flat.scatter(2, indices.flatten(2), x.flatten(2))
    return flat.reshape(batch, channels, 2 * height, 2 * width)


@torch.no_grad()
def icnr_(weight: Tensor) -> None:
    """Make the 4 sub-kernels of each output channel equal, in place, so that no checkerboard starts (Aitken 2017)."""
    weight.copy_(weight[::4].repeat_interleave(4, 0))


def upsample(kind: str, inputs: int, outputs: int) -> Upsample:
    """Return the layer of a `kind` in `arch.Up`. Plain resizing keeps `inputs` channels, see `out_channels`."""
    if kind in ("nearest", "bilinear"):
        return Resize(inputs, kind)
    if kind.endswith("_conv"):
        return Resize(inputs, kind.removesuffix("_conv"), outputs)
    if kind.startswith("deconv"):
        return Deconv(inputs, outputs, int(kind.removeprefix("deconv")))
    if kind.startswith("shuffle"):
        return Shuffle(inputs, outputs, icnr="icnr" in kind, smooth="blur" in kind)
    return Unpool(inputs, outputs)
