"""The truth that the probe is compared with: cut the image, and see how far the cut is felt, in fp64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.without_torchvision import load
from torch import Tensor, nn

from tilepipe.box import Sides

Truth = Callable[..., Sides]


def felt(net: nn.Module, x: Tensor, cut: int) -> tuple[int, int]:
    """Columns (after, before) the cut whose outputs change when the columns (before, after) it are cut off."""
    counts = []
    for before in (True, False):
        gone, kept = (x[..., :cut], x[..., cut:]) if before else (x[..., cut:], x[..., :cut])
        farthest = 0
        for scale in (1.0, 1e5):  # a strong signal where the image was cut off, lest its trace decays below rounding
            whole = torch.cat((gone * scale, kept) if before else (kept, gone * scale), -1)
            alone, y = net(kept), net(whole)
            y = y[..., cut:] if before else y[..., :cut]
            differs = ((y - alone).abs() > 1e-13 * alone.abs().max()).amax((0, 1, 2)).nonzero()
            if len(differs):
                farthest = max(farthest, int(differs.max()) + 1 if before else kept.shape[-1] - int(differs.min()))
        counts.append(farthest)
    return counts[0], counts[1]


def cut_image(net: nn.Module, bands: int, *, rows: int, half: int) -> Sides:
    """Reach per side of a module, felt at a cut in the middle of 2 * half columns (or rows)."""
    net = copy.deepcopy(net).double()

    def turned(x: Tensor) -> Tensor:
        y: Tensor = net(x.transpose(2, 3).contiguous())
        return y.transpose(2, 3)

    generator = torch.Generator().manual_seed(5)
    x = torch.randn((1, bands, rows, 2 * half), dtype=torch.float64, generator=generator)
    with torch.no_grad():
        left, right = felt(net, x, half)
        top, bottom = felt(turned, x, half)  # type: ignore[arg-type]
    return Sides(top, bottom, left, right)


@pytest.fixture
def truth() -> Truth:
    return cut_image


@pytest.fixture(scope="session")
def smp() -> Any:
    return load("segmentation_models_pytorch")
