"""Shapes of many vertices: the same pixels as GDAL burns, in every box, and never called uniform where they vary."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize

from tilepipe.box import Box
from tilepipe.sources.borders import Borders

SIDE = 120


def ring(seed: int, vertices: int, kind: str) -> NDArray[np.float64]:
    """Return a ring around the middle: a smooth one, one of spikes, or one that crosses itself everywhere."""
    rng = np.random.default_rng(seed)
    if kind == "tangle":
        return rng.uniform(-20, SIDE + 20, (vertices, 2))
    angle = np.sort(rng.random(vertices)) * 2 * np.pi
    radius = SIDE * (0.1 + 0.45 * rng.random(vertices)) if kind == "spikes" else SIDE * (0.3 + 0.1 * np.sin(5 * angle))
    return SIDE / 2 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
    vertices=st.sampled_from([3, 5, 60, 700]),
    kind=st.sampled_from(["smooth", "spikes", "tangle"]),
    data=st.data(),
)
def test_the_pixels_are_those_that_gdal_burns(seeds: list[int], vertices: int, kind: str, data: st.DataObject) -> None:
    rings = [ring(seed, vertices, kind) for seed in seeds]
    borders = pickle.loads(pickle.dumps(Borders(list(enumerate(rings)))))
    shapes = [{"type": "Polygon", "coordinates": [[*map(tuple, r), tuple(r[0])]]} for r in rings]
    expected = rasterize([(shape, 1) for shape in shapes], out_shape=(SIDE, SIDE)).astype(bool)
    for _ in range(10):
        top, left = data.draw(st.integers(0, SIDE - 1)), data.draw(st.integers(0, SIDE - 1))
        box = Box(top, left, data.draw(st.integers(top + 1, SIDE)), data.draw(st.integers(left + 1, SIDE)))
        part = expected[box.y0 : box.y1, box.x0 : box.x1]
        np.testing.assert_array_equal(borders.fill(box), part)
        known = borders.uniform(box)
        assert known is None or (part == known).all()


@pytest.mark.parametrize("row", [0.0, 40.0, 40.5])
def test_a_shape_without_height_holds_nothing(row: float) -> None:
    borders = Borders([(0, np.array([(3.0, row), (90.0, row), (50.0, row)]))])
    assert not borders.fill(Box(0, 0, SIDE, SIDE)).any()
    assert borders.uniform(Box(60, 0, 90, SIDE)) is False
