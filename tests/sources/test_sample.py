"""Values that may stand for no data: found where they are repeated far from all others, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilepipe as tp
from tilepipe.sources.array import ArraySource
from tilepipe.sources.sample import fill_value, sample_of

SAMPLES = Path(__file__).parents[2] / "pipelines" / "sample"


def found(pixels: np.ndarray, **more: Any) -> tuple[int, float] | None:
    source = ArraySource(pixels, **more)
    value = fill_value(source, sample_of(source))
    return value and (value.band, value.value)


def scene(dtype: str, low: float, high: float, size: int = 90) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (3, size, size + 7)).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "value"),
    [
        ("float32", 0.0, 0.3, -9999.0),
        ("float32", 290.0, 310.0, 0.0),
        ("float32", 0.0, 1.0, float(np.finfo(np.float32).min)),
        ("float32", -1.0, 1.0, 2.0**66),
        ("int16", 200, 3000, -32768),
        ("int16", 0, 2000, -9999),
        ("uint16", 200, 3000, 65535),
    ],
)
@pytest.mark.parametrize("bands", [slice(None), slice(1, 2)])
def test_values_of_no_data_that_programs_write(dtype: str, low: float, high: float, value: float, bands: slice) -> None:
    pixels = scene(dtype, low, high)
    assert found(pixels) is None
    pixels[bands, 10:30, 20:40] = value
    assert found(pixels) == ((bands.start or 0) + 1, value)
    valid = np.ones(pixels.shape[1:], bool)
    valid[10:30, 20:40] = False
    assert found(pixels, valid=valid) is None


@given(st.sampled_from(["uint8", "uint16", "int16", "float32"]), st.floats(0, 0.9), st.integers(0, 3))
def test_dark_and_bright_areas_of_a_scene_are_no_such_values(dtype: str, level: float, border: int) -> None:
    """Borders of 0 or of the highest value of the scene, and scenes of any brightness."""
    pixels = scene(dtype, level * 100, 100 + level * 100, 40)
    pixels[:, : border * 4] = 0
    pixels[:, :, : border * 2] = pixels.max()
    assert found(pixels) is None


def test_a_scene_of_one_value_and_one_of_two_hold_none() -> None:
    pixels = np.zeros((1, 40, 40), np.float32)
    assert found(pixels) is None
    pixels[:, :9] = 7
    assert found(pixels) is None


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.tif")), ids=lambda path: path.name)
def test_sample_images_hold_none(path: Path) -> None:
    source = tp.open_source(path)
    assert fill_value(source, sample_of(source)) is None
