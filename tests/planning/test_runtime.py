"""Another runtime is taken by itself only where its libraries fit into the memory that was given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tilepipe as tp
from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.base import LIBRARY, stated
from tilepipe.planning import planner, runtime, tile_size
from tilepipe.planning.runtime import Chosen
from tilepipe.sources.array import ArraySource
from tilepipe.testing import random_unet

LARGE = ArraySource(np.zeros((3, 3000, 4000), np.uint8))
DEEP = random_unet(depth=3)


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ONNX Runtime be faster than torch, in tiles of the usual size."""

    def fastest(_: Any, compute: Compute, *others: Any) -> Chosen:
        return Chosen(replace(compute, runtime=stated("onnxruntime")))

    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(planner, "in_bands", lambda *_: "")
    monkeypatch.setattr(tile_size, "takes", lambda *_: True)
    monkeypatch.setattr(tile_size, "_larger", lambda _, cut, limit: (cut.usual, ""))
    monkeypatch.setattr(runtime, "_fastest", fastest)


def test_a_runtime_that_does_not_fit_leaves_torch_and_says_so() -> None:
    torch = tp.plan(LARGE, DEEP, runtime="torch", block=512)
    other = tp.plan(LARGE, DEEP, block=512)
    assert other.compute.runtime.startswith("onnxruntime")
    assert other.memory.total >= torch.memory.total + LIBRARY["onnxruntime"]
    tight = tp.plan(LARGE, DEEP, block=512, memory=torch.memory.total)
    assert (tight.compute.runtime, tight.tiling) == (torch.compute.runtime, torch.tiling)
    assert any(row.name == "runtime" and "would be faster" in row.text for row in tight.fit_table)
    assert tp.plan(LARGE, DEEP, block=512, memory=other.memory.total).compute.runtime == other.compute.runtime
