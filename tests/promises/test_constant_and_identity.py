"""A constant model gives the constant, a model that returns its input gives back the input: exactly, for every cut."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from helpers.fakes import run_labels
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.sources.array import ArraySource
from tilepipe.testing import codes_model, constant_model

WINDOWS = ["crop", "constant", "gaussian", "hann", "linear"]


@st.composite
def cuts(draw: st.DrawFn) -> dict[str, Any]:
    """Image size from 1 x 1 to about three blocks, with a tile, overlap, window and block that fit the stride."""
    stride = draw(st.sampled_from([1, 2, 4]))
    window = draw(st.sampled_from(WINDOWS))
    halo = draw(st.integers(0, 3))
    step = draw(st.integers(1, 6))
    overlap = 2 * halo if window == "crop" else draw(st.integers(0, min(3 * step, 12)))
    tile = (step + overlap) * stride
    block = draw(st.sampled_from([1, tile, 2 * tile + stride]))
    height, width = draw(st.integers(1, 3 * max(tile, block) // 2)), draw(st.integers(1, 3 * max(tile, block) // 2))
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    region = Box(y0, x0, draw(st.integers(y0 + 1, height)), draw(st.integers(x0 + 1, width)))
    return {
        "shape": (height, width), "stride": stride, "tile": tile, "overlap": overlap * stride, "window_shape": window,
        "block": block, "region": draw(st.sampled_from([None, region])), "batch": draw(st.integers(1, 3)),
    }  # fmt: skip


def _run(array: np.ndarray, model: Any, cut: dict[str, Any]) -> np.ndarray:
    chosen = {key: cut[key] for key in ("tile", "overlap", "window_shape", "block", "batch")}
    if cut["region"] is not None:
        chosen["region"] = cut["region"]
    with TemporaryDirectory() as directory:
        return run_labels(ArraySource(array), model, Path(directory), **chosen)


def _expected(values: np.ndarray, region: Box | None) -> np.ndarray:
    if region is None:
        return values
    result = np.full_like(values, 255)
    part = region.slices_in(Box.of_shape(*values.shape))
    result[part] = values[part]
    return result


@given(cuts(), st.integers(0, 2))
def test_constant_in_constant_out(cut: dict[str, Any], winner: int) -> None:
    shares = [0.3, 0.3, 0.3]
    shares[winner] += 0.1
    labels = _run(np.zeros((1, *cut["shape"]), np.uint8), constant_model(*shares, stride=cut["stride"]), cut)
    assert (labels == _expected(np.full(cut["shape"], winner, np.uint8), cut["region"])).all()


@given(cuts(), st.integers(0, 99))
def test_identity_gives_back_the_input(cut: dict[str, Any], seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 7, (1, *cut["shape"]), dtype=np.uint8)
    labels = _run(codes, codes_model(7, stride=cut["stride"]), cut)
    assert (labels == _expected(codes[0], cut["region"])).all()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (257, 300)])
def test_identity_with_a_usual_tile(window: str, shape: tuple[int, int], tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 7, (1, *shape), dtype=np.uint8)
    chosen = {"tile": 64, "overlap": 32, "window_shape": window, "block": 128}
    assert (run_labels(ArraySource(codes), codes_model(7), tmp_path, **chosen) == codes[0]).all()


@pytest.mark.parametrize("overlap", [0, 16, 32, 40, 48])
@pytest.mark.parametrize("window", WINDOWS)
def test_any_overlap_from_none_to_three_quarters(overlap: int, window: str, tmp_path: Path) -> None:
    codes = np.random.default_rng(1).integers(0, 7, (1, 150, 170), dtype=np.uint8)
    chosen = {"tile": 64, "overlap": overlap, "window_shape": window, "block": 64}
    assert (run_labels(ArraySource(codes), codes_model(7), tmp_path, **chosen) == codes[0]).all()


def test_more_than_255_classes_are_uint16_with_their_own_nodata(tmp_path: Path) -> None:
    codes = np.arange(300, dtype=np.uint16).reshape(1, 15, 20)
    valid = np.ones((15, 20), bool)
    valid[0, 5] = False
    labels = run_labels(ArraySource(codes, valid=valid), codes_model(300), tmp_path, tile=8, overlap=4)
    expected = codes[0].copy()
    expected[0, 5] = 65535
    assert labels.dtype == np.uint16
    assert (labels == expected).all()


def test_not_computed_and_not_valid_are_nodata_never_class_0(tmp_path: Path) -> None:
    valid = np.random.default_rng(0).random((90, 70)) > 0.4
    valid[:50, :40] = False
    source = ArraySource(np.zeros((1, 90, 70), np.uint8), valid=valid)
    labels = run_labels(source, constant_model(0.9, 0.1), tmp_path, tile=16, overlap=8, block=32)
    assert (labels == np.where(valid, 0, 255)).all()
