"""Probe: what tiling does to a model, measured before anything is run.

    result   Sides, Probe: the values, JSON round trip; no torch, so that a plan can hold them
    subject  the model as it is called: fp32 and fp64, fixed shape rules, nothing of the caller's is touched
    watch    which operations are global, by layer and kind
    refuse   random, stateful and batch-dependent models
    measure  total stride by shifted inputs, reach by half planes of NaN
    cache    probes by weights, code and versions
    run      the steps above in order

A model that is local with reach R and total stride S gives the same labels tile by tile as on the whole image when
tiles lie on multiples of S and have R real pixels of context per side.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tilepipe.errors import ModelError
from tilepipe.probe.result import Probe, Sides
from tilepipe.trouble import public

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Probe", "Sides", "probe"]


class HasModule(Protocol):
    """A `Model`: anything that holds a torch module."""

    @property
    def module(self) -> nn.Module:
        """(B, bands, H, W) float32 to (B, classes, H, W) logits."""


@public
def probe(
    forward: Callable[[Tensor], Tensor] | nn.Module | HasModule,
    bands: int | None = None,
    *,
    declared_stride: int | None = None,
    cache: Path | None = None,
) -> Probe:
    """Measure total stride, reach per side and global operations of a model from (B, bands, H, W) to (B, K, H, W).

    A module is copied to the CPU and called on about 50 small windows; the caller's own is not changed. Any other
    callable is called as it is, with CPU tensors. `declared_stride` is what the card says; the result is a multiple of
    it. Both numbers are taken from the card of a `Model` where they are left out. `cache` is a directory that keeps the
    results of modules (not of plain callables, whose identity is unknown).

    Raises `ModelError` for a model that is random, stateful, in training mode, depends on the other tiles of a batch,
    gives NaN, or does not give an output of the input's height and width.
    """
    from tilepipe.probe.run import run_probe

    card: Any = getattr(forward, "card", None)
    if bands is None and card is None:
        raise ModelError(
            "bands are missing; say how many the model reads, or give a tilepipe Model, whose card says it"
        )
    bands = card.bands if bands is None else bands
    declared_stride = card.stride if declared_stride is None and card is not None else declared_stride
    return run_probe(forward, bands, declared_stride, cache)
