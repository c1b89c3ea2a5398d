"""This module defines losses of logits (B, K, H, W) against classes (B, H, W) int64; class `IGNORE` is not counted.

Every loss is a scalar of at least 0, and is 0 for a perfect prediction. If every pixel is ignored, the loss is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.errors import UsageError
from tilepipe.training.config import LossName
from tilepipe.training.given import Function

IGNORE = -1
Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over scored pixels, classes weighted by `weight` (K,)."""
    return _mean(_pixelwise(logits, target, weight), _pixel_weight(target, weight))


def focal(logits: Tensor, target: Tensor, weight: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Return cross-entropy with easy pixels down-weighted by (1 - p)^gamma (Lin 2017, arXiv 1708.02002)."""
    # With class weights this would be no probability.
    easy = (-_pixelwise(logits, target, None)).exp()  # (B, H, W) probability of the true class
    return _mean((1 - easy) ** gamma * _pixelwise(logits, target, weight), _pixel_weight(target, weight))


def boundary(logits: Tensor, target: Tensor, weight: Tensor | None = None, width: int = 2) -> Tensor:
    """Return the mean cross-entropy over pixels within `width` pixels (chessboard distance) of another class."""
    near = near_boundary(target, logits.shape[1], width)
    return _mean(_pixelwise(logits, target, weight) * near, _pixel_weight(target, weight) * near)


def dice(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return 1 - the soft Dice coefficient, averaged over the classes that occur (Milletari 2016, 1606.04797)."""
    p, truth = _scored(logits, target)  # (K, N) probabilities, (K, N) 0 or 1
    score = 2 * (p * truth).sum(1) / (p + truth).sum(1).clamp_min(1e-6)
    return _over_present(1 - score, truth)


def lovasz(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the Lovasz-softmax loss: the convex surrogate of 1 - IoU, over classes that occur (Berman 2018)."""
    p, truth = _scored(logits, target)
    errors, order = (truth - p).abs().sort(dim=1, descending=True)  # (K, N)
    hit = truth.gather(1, order)
    total = hit.sum(1, keepdim=True)
    jaccard = 1 - (total - hit.cumsum(1)) / (total + (1 - hit).cumsum(1)).clamp_min(1)
    steps = torch.diff(jaccard, dim=1, prepend=jaccard.new_zeros(len(jaccard), 1))
    return _over_present((errors * steps).sum(1), truth)


LOSSES: Mapping[LossName, Loss] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "focal": focal,
    "lovasz": lovasz,
    "boundary": boundary,
}


def total_loss(
    parts: Mapping[LossName, float] | Function, logits: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Return the sum of the named losses times their weights, or what a function of logits and classes returns.

    Raises `UsageError` if the function returns no single number that depends on the logits.
    """
    if not isinstance(parts, Mapping):
        value = parts(logits, target)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            said = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(
                f"`losses` returned {said}; it must return one number as a tensor, computed from the logits"
            )
        return value.reshape(())
    return torch.stack([factor * LOSSES[name](logits, target, weight) for name, factor in parts.items()]).sum()


def near_boundary(target: Tensor, classes: int, width: int) -> Tensor:
    """Return a float mask (B, H, W): 1 if another class lies within `width` pixels. Ignored pixels are no class."""
    one_hot = torch.stack([target == k for k in range(classes)], 1).float()  # (B, K, H, W)
    around = F.max_pool2d(one_hot, 2 * width + 1, 1, width)
    return ((around.sum(1) > 1) & (target != IGNORE)).float()


def _pixelwise(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    return F.cross_entropy(logits, target, weight, ignore_index=IGNORE, reduction="none")


def _pixel_weight(target: Tensor, weight: Tensor | None) -> Tensor:
    scored = (target != IGNORE).float()
    # IGNORE is -1, which as an index would be the last class.
    return scored if weight is None else weight[target.clamp_min(0)] * scored


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return values.sum() / weights.sum().clamp_min(1e-6)


def _scored(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities and truth of the scored pixels, both (K, N)."""
    keep = target != IGNORE
    p = logits.softmax(1).transpose(0, 1)[:, keep]
    return p, F.one_hot(target[keep], logits.shape[1]).T.to(p.dtype)


def _over_present(values: Tensor, truth: Tensor) -> Tensor:
    present = (truth.sum(1) > 0).to(values.dtype)
    return (values * present).sum() / present.sum().clamp_min(1)
