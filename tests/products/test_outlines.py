"""Outlines of regions over any number of blocks, against rasterio's polygons of the whole map, burnt back too."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes

from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.outline import Outline, signed_area
from tilepipe.products.outlines import outlines

LEGEND = Legend("cover", ("water", "wood", "town"), ((9, 9, 9), (213, 94, 0), (0, 158, 115)), 255)

Edges = frozenset[tuple[int, int, int, int]]


def random_labels(height: int, width: int, seed: int, size: int) -> NDArray[np.uint8]:
    """Regions of labels 0 to 2 with nodata, with holes, islands and corners that touch."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 2, 255], p=[0.5, 0.3, 0.1, 0.1], size=(height // size + 1, width // size + 1))
    return np.kron(coarse, np.ones((size, size)))[:height, :width].astype(np.uint8)


def unit_edges(rings: list[Any]) -> Edges:
    """Return the pixel edges that rings run along, without direction."""
    found: set[tuple[int, int, int, int]] = set()
    for ring in rings:
        points = np.array(ring, int).tolist()
        for (x0, y0), (x1, y1) in pairwise(points):
            assert (x0 == x1) != (y0 == y1), "edges follow an axis"
            step = np.sign([x1 - x0, y1 - y0])
            for k in range(abs(x1 - x0) + abs(y1 - y0)):
                a, b = np.array([x0, y0]) + k * step, np.array([x0, y0]) + (k + 1) * step
                edge = tuple(map(int, (*min(a.tolist(), b.tolist()), *max(a.tolist(), b.tolist()))))
                assert edge not in found, "no edge twice"
                found.add(edge)  # type: ignore[arg-type]
    return frozenset(found)


def whole(labels: NDArray[np.uint8]) -> set[tuple[int, Edges]]:
    """Return the regions that rasterio finds in the whole map at once."""
    found = shapes(labels, mask=labels != 255, connectivity=4)
    return {(int(value), unit_edges(shape["coordinates"])) for shape, value in found}


def touches_itself(ring: NDArray[np.float64]) -> bool:
    return len(np.unique(ring[:-1], axis=0)) < len(ring) - 1


def check(found: list[Outline], labels: NDArray[np.uint8]) -> None:
    regions = [(one.label, unit_edges(one.rings)) for one in found]
    assert len(regions) == len(set(regions))
    assert set(regions) == whole(labels)
    for one in found:
        assert all((ring[0] == ring[-1]).all() for ring in one.rings)
        assert abs(signed_area(one.rings[0])) == max(abs(signed_area(ring)) for ring in one.rings)
    polygons = [({"type": "Polygon", "coordinates": [r.tolist() for r in one.rings]}, one.label) for one in found]
    burnt = rasterize(polygons, labels.shape, fill=255, dtype="uint8") if polygons else np.full(labels.shape, 255)
    np.testing.assert_array_equal(burnt, labels)
    assert sum(one.pixels for one in found) == (labels != 255).sum()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 999), st.integers(1, 3), st.integers(1, 45))
def test_regions_are_those_of_the_whole_map(height: int, width: int, seed: int, size: int, block: int) -> None:
    labels = random_labels(height, width, seed, size)
    check(list(outlines(label_map_of(labels, LEGEND), block)), labels)


@given(st.integers(0, 999), st.sampled_from([1, 3, 5]))
def test_joined_rings_do_not_touch_themselves(seed: int, block: int) -> None:
    """Where cells touch at a corner, two rings meet, whichever blocks the cells lie in; polygons are valid."""
    labels = random_labels(10, 11, seed, 1)
    for one in outlines(label_map_of(labels, LEGEND), block):
        assert not any(touches_itself(ring) for ring in one.rings)
        assert shapely.is_valid(shapely.Polygon(one.rings[0], one.rings[1:]))


def test_a_ring_with_a_hole_and_an_island_over_four_blocks() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[10:54, 10:54] = 1
    labels[20:44, 20:44] = 0
    labels[28:36, 28:36] = 2
    found = list(outlines(label_map_of(labels, LEGEND), 32))
    check(found, labels)
    assert sorted((one.label, len(one.rings)) for one in found) == [(0, 2), (0, 2), (1, 2), (2, 1)]
    (ring,) = [one for one in found if one.label == 1]
    assert [len(points) for points in ring.rings] == [5, 5], "no corner is left where blocks met"


def test_long_borders_between_large_blocks() -> None:
    """Corners stay whole numbers along edges of any length."""
    labels = np.ones((300, 400), np.uint8)
    labels[np.random.default_rng(0).integers(0, 300, 900), np.random.default_rng(1).integers(0, 400, 900)] = 0
    check(list(outlines(label_map_of(labels, LEGEND), 147)), labels)


def test_a_spiral_that_comes_back_to_the_first_block_is_one() -> None:
    labels = np.full((9, 9), 255, np.uint8)
    labels[0, :] = labels[:, 8] = labels[8, :] = labels[2:, 0] = labels[2, :7] = labels[2:7, 6] = 1
    found = list(outlines(label_map_of(labels, LEGEND), 2))
    check(found, labels)
    assert len(found) == 1


@pytest.mark.parametrize("block", [4, 1024])
def test_neighbours_of_other_classes_at_a_border_stay_apart(block: int) -> None:
    labels = np.repeat(np.array([[0, 1, 2]], np.uint8), 4, axis=1).repeat(8, axis=0)
    check(list(outlines(label_map_of(labels, LEGEND), block)), labels)
