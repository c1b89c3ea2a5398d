"""The promises on a CUDA device: make test-gpu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import codes_model, constant_model, noise, random_unet, run_labels, whole_image

import tilepipe as tp
from tilepipe.engine import dask
from tilepipe.sources.array import ArraySource

pytestmark = pytest.mark.gpu
CUTS: list[dict[str, Any]] = [
    {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 200, "device": "cuda:0"},
    {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 150, "device": "cuda:0"},
]


@pytest.mark.parametrize("cut", CUTS, ids=["crop", "hann"])
def test_constant_and_identity(cut: dict[str, Any], tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 7, (1, 257, 301), dtype=np.uint8)
    assert (run_labels(ArraySource(codes), codes_model(7), tmp_path / "codes", **cut) == codes[0]).all()
    labels = run_labels(ArraySource(codes), constant_model(0.3, 0.4, 0.3), tmp_path / "constant", **cut)
    assert (labels == 1).all()


@pytest.mark.parametrize("cut", CUTS, ids=["crop", "hann"])
def test_same_bytes_for_any_block_size_and_engine(cut: dict[str, Any], tmp_path: Path) -> None:
    image, model = noise(300, 420), random_unet()
    serial = run_labels(image, model, tmp_path / "serial", **cut)
    assert (run_labels(image, model, tmp_path / "dask", dask.run, **cut) == serial).all()
    assert (run_labels(image, model, tmp_path / "block", **{**cut, "block": 1000}) == serial).all()


@pytest.mark.parametrize("cut", CUTS, ids=["crop", "hann"])
def test_region_is_crop(cut: dict[str, Any], tmp_path: Path) -> None:
    image, model = noise(300, 420), random_unet()
    full = run_labels(image, model, tmp_path, **cut)
    for box in (tp.Box(10, 20, 200, 333), tp.Box(0, 0, 1, 1), tp.Box(150, 150, 300, 420)):
        assert (tp.predict(image, model, box, **cut) == full[box.y0 : box.y1, box.x0 : box.x1]).all()


def test_whole_image_truth(tmp_path: Path) -> None:
    image, model = noise(300, 420), random_unet()
    labels = run_labels(image, model, tmp_path, **CUTS[0])
    assert (labels != whole_image(model, image)).mean() < 1e-4  # the CPU's answer: other kernels, other rounding
