"""Rules of single operations: pieces of any height give what torch gives over the whole plane."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.inference.banded.lookup import RULES
from tilepipe.inference.banded.operation import Operation


@given(
    height=st.integers(1, 40),
    width=st.integers(4, 20),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    ceil=st.booleans(),
    pieces=st.lists(st.integers(1, 9), min_size=1, max_size=12),
)
def test_max_pooling(
    height: int, width: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool, pieces: list[int]
) -> None:
    extent = dilation * (kernel - 1) + 1
    assume(2 * padding <= kernel and min(height, width) + 2 * padding >= extent)
    plane = torch.randn((1, 2, height, width), generator=torch.Generator().manual_seed(0))
    truth = F.max_pool2d(plane, kernel, stride, padding, dilation, ceil)
    settings = {
        "kernel_size": [kernel] * 2, "stride": [stride] * 2, "padding": [padding] * 2, "dilation": [dilation] * 2,
        "ceil_mode": ceil,
    }  # fmt: skip
    rule = RULES["max_pool2d"](Operation("max_pool2d", settings, (), torch.clone, plane.shape, truth.shape, False))()
    found, top = [], 0
    for k in range(height):
        rows = plane[:, :, top : top + pieces[k % len(pieces)]]
        top += rows.shape[2]
        found.append(rule.push([rows], top == height))
        if top == height:
            break
    assert torch.equal(torch.cat([part for part in found if part is not None], 2), truth)
