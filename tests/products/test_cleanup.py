"""Cleaned polygons against brute force over the whole map, and against GEOS's check of coverages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from helpers.examples import drawn
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize

from tilepipe.products.cleanup import cleaned
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.outlines import outlines
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.base import Resolution

COLORS = ((9, 9, 9), (213, 94, 0), (0, 158, 115))
COVER = Legend("cover", ("water", "wood", "town"), COLORS, 255)
BUILDINGS = Legend("buildings", ("background", "building", "shed"), COLORS, 255)
BLOCKS = st.sampled_from([5, 16, 64])


def random_labels(height: int, width: int, seed: int, size: int, values: tuple[int, ...]) -> NDArray[np.uint8]:
    shares = np.array([5, 3, 1, 1])[: len(values)]
    coarse = np.random.default_rng(seed).choice(
        values, p=shares / shares.sum(), size=(height // size + 1, width // size + 1)
    )
    return np.kron(coarse, np.ones((size, size)))[:height, :width].astype(np.uint8)


def polygons(
    labels: NDArray[np.uint8], options: VectorOptions, block: int = 64, legend: Legend = COVER, **fields: Any
) -> Any:
    """Return labels and shapely polygons in a fixed order."""
    found = [
        (one.label, shapely.Polygon(one.rings[0], one.rings[1:]))
        for one in cleaned(label_map_of(labels, legend, **fields), options, block=block)
    ]
    found.sort(key=lambda of: (of[0], shapely.normalize(of[1]).wkb))
    return [label for label, _ in found], np.array([shape for _, shape in found], dtype=object)


def brute_force(labels: NDArray[np.uint8], holes: float, least: float) -> Any:
    """Close holes and leave out specks as it is said, region by region over masks of the whole map."""
    regions = [(one.label, one.rings) for one in outlines(label_map_of(labels, BUILDINGS))]
    regions.sort(key=lambda of: shapely.Polygon(of[1][0]).area)
    kept: list[tuple[int, Any]] = []
    for label, (outer, *inner) in regions:
        stay = []
        for hole in inner:
            mask = rasterize([shapely.Polygon(hole)], labels.shape, dtype="uint8").astype(bool)
            full = (labels[mask] == 255).any() or any(
                rasterize([shape], labels.shape, dtype="uint8")[mask].any() for _, shape in kept
            )
            if full or shapely.Polygon(hole).area > holes:
                stay.append(hole)
        shape = shapely.Polygon(outer, stay)
        if shape.area >= least:
            kept.append((label, shape))
    kept.sort(key=lambda of: (of[0], shapely.normalize(of[1]).wkb))
    return kept


@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(0, 999), st.integers(1, 2), BLOCKS,
    st.sampled_from([2, 9, "all"]), st.sampled_from([None, 2.0, 6.0]),
)  # fmt: skip
def test_holes_and_specks_are_those_of_brute_force(
    height: int, width: int, seed: int, size: int, block: int, holes: Any, least: float | None
) -> None:
    labels = random_labels(height, width, seed, size, (1, 0, 2, 255))
    wanted = brute_force(labels, np.inf if holes == "all" else holes, least or 0)
    options = VectorOptions(fill_holes=holes, min_area=least)
    found, shapes = polygons(labels, options, block, BUILDINGS)
    assert found == [label for label, _ in wanted]
    assert all(one.equals(other) for one, (_, other) in zip(shapes, wanted, strict=True))


def test_areas_are_in_the_unit_of_the_map() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[1:4, 1:4] = labels[10:19, 10:19] = 1
    labels[12:14, 12:14] = 0
    pixel = Resolution(0.5, 2.0, "um")
    shapes = polygons(labels, VectorOptions(min_area=10), 8, BUILDINGS, resolution=pixel)[1]
    assert [shape.area for shape in shapes] == [77], "9 square micrometres are left out"
    (filled,) = polygons(labels, VectorOptions(min_area=10, fill_holes=4), 8, BUILDINGS, resolution=pixel)[1]
    assert filled.area == 81


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 999), st.integers(1, 4), BLOCKS,
    st.sampled_from([0.6, 1.0, 2.0, 7.0]), st.booleans(),
)  # fmt: skip
def test_neighbours_keep_their_common_border(
    height: int, width: int, seed: int, size: int, block: int, tolerance: float, smooth: bool
) -> None:
    """Each pixel of the map belongs to a region: neither gaps nor overlaps, and edges that match, says GEOS."""
    labels = random_labels(height, width, seed, size, (0, 1, 2))
    found, shapes = polygons(labels, VectorOptions(simplify=tolerance, smooth=smooth), block)
    raw, traced = polygons(labels, VectorOptions())
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert sorted(found) == sorted(raw)
    np.testing.assert_allclose(shapely.area(shapely.coverage_union_all(shapes)), shapely.area(shapes).sum())
    again, others = polygons(labels, VectorOptions(simplify=tolerance, smooth=smooth), 64)
    assert found == again, "blocks change nothing"
    assert all(
        shapely.equals_exact(one.normalize(), other.normalize(), 1e-9)
        for one, other in zip(shapes, others, strict=True)
    )
    assert len(traced) == len(shapes)


@drawn(5)
@given(st.integers(0, 999), st.integers(1, 4), BLOCKS, st.sampled_from([0.6, 1.0, 3.0]))
def test_simplified_borders_stay_within_the_tolerance(seed: int, size: int, block: int, tolerance: float) -> None:
    labels = random_labels(30, 35, seed, size, (1, 0, 2, 255))
    raw = {one.label: [] for one in outlines(label_map_of(labels, BUILDINGS))}
    for one in outlines(label_map_of(labels, BUILDINGS)):
        raw[one.label] += [shapely.LinearRing(ring) for ring in one.rings]
    label, shapes = polygons(labels, VectorOptions(simplify=tolerance), block, BUILDINGS)
    assert shapely.is_valid(shapes).all()
    for k, shape in zip(label, shapes, strict=True):
        border = shapely.MultiLineString(raw[k])
        assert max(border.distance(shapely.Point(p)) for p in shapely.get_coordinates(shape)) < 1e-9, "corners are kept"
        far = shapely.segmentize(shape.boundary, 0.25)
        assert shapely.distance(shapely.points(shapely.get_coordinates(far)), border).max() <= tolerance + 1e-9


def test_the_tolerance_is_in_the_unit_of_the_map() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[np.arange(40)[:, None] > np.arange(40)] = 1
    corners = []
    for tolerance in (0.15, 1.0):
        (shape,) = polygons(labels, VectorOptions(simplify=tolerance), 16, BUILDINGS, resolution=Resolution(0.2, 0.2))[
            1
        ]
        corners.append(len(shape.exterior.coords))
    (far,) = polygons(labels, VectorOptions(simplify=0.15), 16, BUILDINGS, resolution=Resolution(1.0, 1.0))[1]
    assert corners[0] <= 6 < len(far.exterior.coords), "stairs of 0.2 m go at 0.15 m, those of 1 m stay"


def burnt(shape: Any, size: int = 120) -> NDArray[np.uint8]:
    return rasterize([shape], (size, size), dtype="uint8")


@pytest.mark.parametrize("angle", [0, 12, 30, 45, 77])
@pytest.mark.parametrize("kind", ["box", "angle", "yard"])
def test_buildings_get_their_right_angles_back(angle: float, kind: str) -> None:
    building = shapely.box(30, 40, 90, 75)
    if kind == "angle":
        building = building.union(shapely.box(30, 40, 55, 100))
    if kind == "yard":
        building = building.difference(shapely.box(45, 50, 70, 65))
    building = shapely.affinity.rotate(building, angle, origin=(60, 60))
    (shape,) = polygons(burnt(building), VectorOptions(orthogonalize=True), 64, BUILDINGS)[1]
    assert len(shape.exterior.coords) - 1 == {"box": 4, "angle": 6, "yard": 4}[kind]
    assert len(shape.interiors) == (kind == "yard")
    for ring in (shape.exterior, *shape.interiors):
        edges = np.diff(np.array(ring.coords), axis=0)
        turns = (edges * np.roll(edges, -1, 0)).sum(1) / np.hypot(*edges.T) / np.hypot(*np.roll(edges, -1, 0).T)
        np.testing.assert_allclose(turns, 0, atol=1e-9)
    assert shape.intersection(building).area / shape.union(building).area > 0.94


def test_what_has_no_right_angles_keeps_its_outline() -> None:
    triangle = burnt(shapely.Polygon([(20, 20), (100, 30), (55, 100)]))
    plain, squared = (
        polygons(triangle, options, 64, BUILDINGS)[1]
        for options in (VectorOptions(simplify=1.5), VectorOptions(orthogonalize=True))
    )
    assert [shape.wkb for shape in plain] == [shape.wkb for shape in squared]


def test_smooth_borders_turn_gently() -> None:
    disc = burnt(shapely.Point(60, 60).buffer(40))
    (shape,) = polygons(disc, VectorOptions(smooth=True), 64, BUILDINGS)[1]
    edges = np.diff(np.array(shape.exterior.coords), axis=0)
    turns = np.diff(np.unwrap(np.arctan2(edges[:, 1], edges[:, 0])))
    assert np.abs(turns).max() < np.pi / 4
    assert shape.area == pytest.approx(np.pi * 40**2, rel=0.02)
