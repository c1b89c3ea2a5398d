"""Shapes of many vertices: the same pixels as GDAL burns, in every box, and never called uniform where they vary."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize

from tilepipe.box import Box
from tilepipe.sources import borders
from tilepipe.sources.borders import Borders, Cells

SIDE = 120


def ring(seed: int, vertices: int, kind: str) -> NDArray[np.float64]:
    """Return a ring around the middle: a smooth one, one of spikes, or one that crosses itself everywhere."""
    rng = np.random.default_rng(seed)
    if kind == "slivers":  # flat ones, many of which lie between the centres of two rows
        x, y = rng.uniform(-20, SIDE + 20, (vertices, 2)).T
        return np.stack([np.sort(x), y.mean() + rng.uniform(-0.6, 0.6, vertices)], axis=1)
    if kind == "tangle":
        return rng.uniform(-20, SIDE + 20, (vertices, 2))
    angle = np.sort(rng.random(vertices)) * 2 * np.pi
    radius = SIDE * (0.1 + 0.45 * rng.random(vertices)) if kind == "spikes" else SIDE * (0.3 + 0.1 * np.sin(5 * angle))
    return SIDE / 2 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
    vertices=st.sampled_from([3, 5, 60, 700]),
    kind=st.sampled_from(["smooth", "spikes", "tangle"]),
    data=st.data(),
)
def test_the_pixels_are_those_that_gdal_burns(seeds: list[int], vertices: int, kind: str, data: st.DataObject) -> None:
    rings = [ring(seed, vertices, kind) for seed in seeds]
    area = pickle.loads(pickle.dumps(Borders(list(enumerate(rings)))))
    shapes = [{"type": "Polygon", "coordinates": [[*map(tuple, r), tuple(r[0])]]} for r in rings]
    expected = rasterize([(shape, 1) for shape in shapes], out_shape=(SIDE, SIDE)).astype(bool)
    for _ in range(10):
        top, left = data.draw(st.integers(0, SIDE - 1)), data.draw(st.integers(0, SIDE - 1))
        box = Box(top, left, data.draw(st.integers(top + 1, SIDE)), data.draw(st.integers(left + 1, SIDE)))
        part = expected[box.y0 : box.y1, box.x0 : box.x1]
        np.testing.assert_array_equal(area.fill(box), part)


@pytest.mark.parametrize("crossings", [borders.CROSSINGS, 0], ids=["all rows", "three rows first"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
    vertices=st.sampled_from([3, 5, 60, 700]),
    kind=st.sampled_from(["smooth", "spikes", "tangle", "slivers"]),
    data=st.data(),
)
def test_a_cell_is_met_if_the_centre_of_any_of_its_pixels_lies_in_the_area(
    monkeypatch: pytest.MonkeyPatch, crossings: int, seeds: list[int], vertices: int, kind: str, data: st.DataObject
) -> None:
    """Against every pixel; cells that lie apart, touch or overlap, and hold every pixel, some, or some twice."""
    monkeypatch.setattr(borders, "CROSSINGS", crossings)
    area = Borders([(k, ring(seed, vertices, kind)) for k, seed in enumerate(seeds)])
    whole = area.fill(Box.of_shape(SIDE, SIDE))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    for _ in range(5):
        rows, columns = (np.sort(rng.choice(SIDE, rng.integers(1, SIDE), replace=bool(k % 2))) for k in range(2))
        rows = rows if rng.random() < 0.5 else np.arange(rows[0], rows[-1] + 1)
        edges = np.sort(rng.integers(0, len(columns) + 1, (2, rng.integers(1, 9))), axis=1)
        begins, ends = np.minimum(*edges), np.maximum(*edges)
        begins, ends = begins[begins < ends], ends[begins < ends]
        if not len(begins):
            continue
        found = area.meet(Cells(rows, columns, begins, ends))
        there = whole[rows][:, columns].any(axis=0)
        assert found.tolist() == [bool(there[a:b].any()) for a, b in zip(begins, ends, strict=True)]


@pytest.mark.parametrize("row", [0.0, 40.0, 40.5])
def test_a_shape_without_height_holds_nothing(row: float) -> None:
    area = Borders([(0, np.array([(3.0, row), (90.0, row), (50.0, row)]))])
    assert not area.fill(Box(0, 0, SIDE, SIDE)).any()
    cells = Cells(np.arange(SIDE), np.arange(SIDE), np.array([0, 50]), np.array([50, SIDE]))
    assert not area.meet(cells).any()
