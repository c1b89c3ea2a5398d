"""A tile of one value is predicted once, and labels stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import run_labels

from tilepipe.box import Box
from tilepipe.execution.constant_tiles import ConstantTiles, constant_value
from tilepipe.inference.predictor import Predictor
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise, random_unet

CROP: dict[str, Any] = {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96}
HANN: dict[str, Any] = {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 64}


@pytest.mark.parametrize("cut", [CROP, HANN], ids=["crop", "hann"])
def test_glass_is_predicted_once_and_labels_stay(
    cut: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((3, 300, 320), 241, np.uint8)
    pixels[:, 200:, 200:] = noise(100, 120).read(Box(0, 0, 100, 120))
    calls = 0

    def counted(real: Any) -> Any:
        def call(self: Any, *given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            return real(self, *given, **named)

        return call

    for name in ("labels", "probabilities"):
        monkeypatch.setattr(Predictor, name, counted(getattr(Predictor, name)))
    found = run_labels(ArraySource(pixels), random_unet(), tmp_path / "once", **cut)
    few, calls = calls, 0
    monkeypatch.setattr(ConstantTiles, "once", lambda self, call, kind: call)
    truth = run_labels(ArraySource(pixels), random_unet(), tmp_path / "each", **cut)
    assert np.array_equal(found, truth)
    assert few < 0.7 * calls


def test_one_other_pixel_makes_a_tile_its_own() -> None:
    tile = np.full((3, 8, 8), 7, np.uint8)
    assert constant_value(tile) == b"\x07\x07\x07"
    tile[1, 7, 7] = 8
    assert constant_value(tile) is None
    assert constant_value(np.full((1, 4, 4), np.nan, np.float32)) is None
