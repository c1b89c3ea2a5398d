"""Checkerboard lint: what the weights of up-sampling layers alone say about checkerboard noise.

A layer that up-samples by s has s x s phases, one filter each. Two causes can be read from the weights.
Overlap is the most over the fewest kernel taps that reach an output pixel (Odena 2016). It is above 1 if the stride
does not divide the kernel. Imbalance says how differently the phases answer a constant input: if D_ab is the sum of the
taps of phase (a, b), it is rms_ab |D_ab - mean D| / |mean D|. 0 rules out a checkerboard in flat areas (Sugawara 2018).
A kernel that the stride divides removes the first cause only: random weights of kernels 2, 3 and 4 have the same
imbalance (measured in docs/decoders.md).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tilepipe.models.nets.upsample import Shuffle

TOLERANCE = 0.05
"""Largest imbalance that is not reported."""
ADVICE = "use resize-convolution, or a pixel shuffle with ICNR and blur"
"""Advice for a user: these layers start without a checkerboard and keep none."""


@dataclass(frozen=True)
class Finding:
    """One up-sampling layer that can leave a checkerboard."""

    layer: str
    """Name of the layer in the model, such as 'decoder.1.up.conv'."""
    kind: str
    """'transposed convolution' or 'pixel shuffle'."""
    stride: int
    """Up-sampling factor."""
    kernel: int
    """Kernel size in pixels."""
    overlap: float
    """Ratio of the most to the fewest taps per output pixel; 1 is even."""
    imbalance: float
    """Difference between the phases' answers to a constant; 0 is none, and an untrained deconvolution has 1 to 2."""
    sentence: str
    """Sentence for people that says what the finding means and what to do."""


def lint(module: nn.Module) -> list[Finding]:
    """Return a finding for each transposed convolution or pixel shuffle of `module` that can leave a checkerboard."""
    findings = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.ConvTranspose2d) and max(layer.stride) > 1:
            findings.append(_deconv(name, layer))
        elif isinstance(layer, Shuffle) and not layer.smooth:
            findings.append(_shuffle(f"{name}.conv", layer.conv, 2))
        elif isinstance(layer, nn.Sequential):
            for (child, first), second in zip(layer.named_children(), list(layer)[1:], strict=False):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.PixelShuffle):
                    # The module itself has no name.
                    findings.append(_shuffle(f"{name}.{child}".lstrip("."), first, second.upscale_factor))
    return [finding for finding in findings if finding.overlap > 1 or finding.imbalance > TOLERANCE]


def deconv_gains(weight: Tensor, stride: int) -> Tensor:
    """Return sums of taps (stride**2, C, D) per phase of a transposed convolution's weight (C, D, k, k)."""
    weight = weight.detach().double()
    return torch.stack([weight[..., a::stride, b::stride].sum((-2, -1)) for a in range(stride) for b in range(stride)])


def shuffle_gains(weight: Tensor, factor: int) -> Tensor:
    """Return sums of taps (factor**2, D, C) per phase of the weight (D factor**2, C, k, k) before a shuffle."""
    sums = weight.detach().double().sum((-2, -1))  # (D factor**2, C)
    return sums.reshape(-1, factor**2, sums.shape[1]).transpose(0, 1)


def imbalance(gains: Tensor) -> float:
    """Return the rms over phases of |D_ab - mean D| / |mean D| of gains (phases, ...); infinite if the mean is 0."""
    mean = gains.mean(0)
    apart = (gains - mean).flatten(1).norm(dim=1)
    return float(apart.square().mean().sqrt() / mean.norm()) if apart.any() else 0.0


def overlap_counts(kernel: int, stride: int) -> tuple[int, ...]:
    """Return how many taps reach the output pixels of each phase: 4, 2, 2, 1 for a kernel of 3 and a stride of 2."""
    line = Counter(tap % stride for tap in range(kernel))
    return tuple(line[a] * line[b] for a in range(stride) for b in range(stride))


def _deconv(name: str, layer: nn.ConvTranspose2d) -> Finding:
    kernel, stride = max(layer.kernel_size), max(layer.stride)
    counts = overlap_counts(kernel, stride)
    # A kernel smaller than its stride leaves pixels that no tap reaches.
    overlap = max(counts) / min(counts) if min(counts) else float("inf")
    uneven = imbalance(deconv_gains(layer.weight, stride))
    what = f"up-sampling layer {name} is a stride-{stride} transposed convolution with kernel {kernel}"
    if overlap > 1:
        even = -(-kernel // stride) * stride
        said = f"uneven overlap ({overlap:g}:1, imbalance {uneven:.2f}), checkerboard likely; {ADVICE}"
        said += f"; kernel {even} evens the overlap only"
    else:
        said = f"even overlap, but {_said(uneven)}"
    return Finding(name, "transposed convolution", stride, kernel, overlap, uneven, f"{what}: {said}")


def _shuffle(name: str, layer: nn.Conv2d, factor: int) -> Finding:
    uneven = imbalance(shuffle_gains(layer.weight, factor))
    what = f"up-sampling layer {name} is a pixel shuffle by {factor}"
    return Finding(name, "pixel shuffle", factor, max(layer.kernel_size), 1.0, uneven, f"{what}: {_said(uneven)}")


def _said(uneven: float) -> str:
    return f"its phases answer flat areas unevenly (imbalance {uneven:.2f}), checkerboard possible; {ADVICE}"
