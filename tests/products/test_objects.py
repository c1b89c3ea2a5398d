"""Objects do not depend on blocks, and are what splitting each component of the whole map gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize
from skimage.measure import label

from tilepipe.products import objects as module
from tilepipe.products import outlines
from tilepipe.products.label_map import Legend, Measure, label_map_of
from tilepipe.products.material import Material
from tilepipe.products.object_shape import mask_of
from tilepipe.products.object_split import split
from tilepipe.products.objects import objects
from tilepipe.products.vector_options import VectorOptions
from tilepipe.products.vectors import Table
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution

LEGEND = Legend("cells", ("background", "cell", "other"), ((9, 9, 9), (213, 94, 0), (0, 158, 115)), 255)
MARGIN = Legend("margin", (), (), 255, Measure(1 / 254, "difference"))
Y, X = np.mgrid[:70, :90]


def cells(seed: int, count: int = 14) -> NDArray[np.uint8]:
    """Discs that touch, of two classes, with holes and nodata."""
    random = np.random.default_rng(seed)
    found = np.zeros((70, 90), np.uint8)
    for y, x, radius, of in random.uniform((0, 0, 3, 0), (70, 90, 13, 1), (count, 4)):
        found[(Y - y) ** 2 + (X - x) ** 2 < radius**2] = 1 + (of > 0.8)
    found[random.random(found.shape) < 0.01] = 0
    found[:, 88:] = 255
    return found


def material(labels: NDArray[np.uint8], options: VectorOptions, image: Any = None, **layers: Any) -> Material:
    maps = {"labels": label_map_of(labels, LEGEND, resolution=Resolution(0.5, 0.5, "um")), **layers}
    return Material.of(maps, image, options=options)


def described(of: Material, block: int) -> set[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlines.outlines, "__defaults__", (block, None))
        return {
            (one.outline.label, one.shape, one.area, one.means, one.margin,
             frozenset(ring.tobytes() for ring in _turned(one.outline.rings)))
            for one in objects(of)
        }  # fmt: skip


def _turned(rings: Any) -> Any:
    """Rings in one direction and from one corner: these may differ with the blocks."""
    for ring in rings:
        points = ring[:-1]
        start = np.lexsort((points[:, 0], points[:, 1]))[0]
        points = np.roll(points, -start, 0)
        yield points if points[1, 1] == points[0, 1] else np.roll(points[::-1], 1, 0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999), st.sampled_from([7, 16, 33]), st.booleans())
def test_objects_do_not_depend_on_blocks(seed: int, block: int, split_up: bool) -> None:
    labels = cells(seed)
    image = ArraySource(np.random.default_rng(seed).integers(0, 256, (2, 70, 90), dtype=np.uint8))
    margin = label_map_of(np.random.default_rng(seed).integers(0, 256, labels.shape).astype(np.uint8), MARGIN)
    of = material(labels, VectorOptions(split=split_up), image, margin=margin)
    assert described(of, block) == described(of, 1024)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.6, 0.8, 0.9]))
def test_objects_are_the_parts_of_each_component_of_the_whole_map(seed: int, neck: float) -> None:
    labels = cells(seed)
    numbers = np.zeros(labels.shape, int)
    for one in objects(material(labels, VectorOptions(split=True, neck=neck))):
        box = one.shape.box
        numbers[box.y0 : box.y1, box.x0 : box.x1][mask_of(one.outline.rings, box)] = one.number
    wanted = np.where(np.isin(labels, (0, 255)), 0, labels)
    np.testing.assert_array_equal(numbers > 0, wanted > 0)
    components = label(wanted, connectivity=1)
    for k in range(1, components.max() + 1):
        mask = components == k
        holes = label(~np.pad(mask, 1), connectivity=1)  # a hole may touch the outside at a corner
        filled = (holes != holes[0, 0])[1:-1, 1:-1]
        parts = split(mask, neck, filled if (filled != mask).any() else None)
        pairs = set(zip(parts[mask].tolist(), numbers[mask].tolist(), strict=True))
        assert len(pairs) == parts.max() == len({number for _, number in pairs})


def test_means_are_those_of_the_pixels() -> None:
    labels = cells(3)
    random = np.random.default_rng(0)
    image, codes = random.normal(0, 9, (3, 70, 90)).astype(np.float32), random.integers(0, 256, labels.shape)
    image[0, :9] = np.nan
    margin = label_map_of(codes.astype(np.uint8), MARGIN)
    for one in objects(material(labels, VectorOptions(), ArraySource(image), margin=margin)):
        mask = np.zeros(labels.shape, bool)
        mask[one.shape.box.y0 : one.shape.box.y1, one.shape.box.x0 : one.shape.box.x1] = mask_of(
            one.outline.rings, one.shape.box
        )
        known = mask & (codes != 255)
        assert one.margin == (pytest.approx(codes[known].mean() / 254) if known.any() else None)
        for band, mean in zip(image, one.means, strict=True):
            there = band[mask & np.isfinite(band)].astype(float)
            assert mean == (pytest.approx(there.mean(), abs=1e-9) if there.size else None)
        assert one.area == pytest.approx(mask.sum() / 4)


def test_a_component_that_is_too_large_stays_one_object_and_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((70, 90), np.uint8)
    labels[((Y - 20) ** 2 + (X - 20) ** 2 < 150) | ((Y - 20) ** 2 + (X - 40) ** 2 < 150)] = 1
    labels[((Y - 50) ** 2 + (X - 60) ** 2 < 50) | ((Y - 50) ** 2 + (X - 71) ** 2 < 50)] = 1
    of = material(labels, VectorOptions(split=True))
    assert [one.unsplit for one in objects(of)] == [False] * 4
    assert not of.notes
    monkeypatch.setattr(module, "LARGEST", 30)
    found = list(objects(of))
    assert [(one.unsplit, one.component) for one in found] == [(True, 1), (False, 2), (False, 2)]
    (note,) = of.notes
    assert "more than 30 pixels a side were not split: objects 1 (rows 8 to 33, columns 8 to 53)" in note


@pytest.mark.parametrize("least", [None, 1.0, 20.0])
def test_a_component_is_the_polygon_with_its_number(least: float | None) -> None:
    labels = cells(5)
    of = material(labels, VectorOptions(split=True, min_area=least))
    parts: dict[int, NDArray[np.bool_]] = {}
    for one in objects(of):
        inside = parts.setdefault(one.component, np.zeros(labels.shape, bool))
        box = one.shape.box
        inside[box.y0 : box.y1, box.x0 : box.x1] |= mask_of(one.outline.rings, box)
    table = Table.of(of.map, of.options, None)
    polygons = [row for batch in table.batches() for row in batch.to_pylist()]
    assert [row["id"] for row in polygons] == list(parts)
    for row in polygons:
        burnt = rasterize([(shapely.from_wkb(row["geometry"]), 1)], labels.shape, dtype="uint8")
        np.testing.assert_array_equal(burnt == 1, parts[row["id"]])


def test_specks_are_left_out() -> None:
    labels = cells(5)
    every = list(objects(material(labels, VectorOptions(split=True))))
    large = {one.component for one in objects(material(labels, VectorOptions())) if one.area >= 20}
    kept = list(objects(material(labels, VectorOptions(split=True, min_area=20.0))))
    assert [one.area for one in kept] == [one.area for one in every if one.component in large]
    assert list(dict.fromkeys(one.component for one in kept)) == list(range(1, len(large) + 1))
    assert len(kept) < len(every)
    assert [one.number for one in kept] == list(range(1, len(kept) + 1))
