"""Numbers of a label map, against counts over the whole map; read once, on the way into a product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilepipe.box import Box
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LabelMap, Legend, label_map_of
from tilepipe.products.numbers import Numbers
from tilepipe.products.ome_zarr import write_ome_zarr
from tilepipe.products.tally import Tally
from tilepipe.sources.base import Georeference, Resolution

LEGEND = Legend("cover", ("background", "wood", "town"), ((9, 9, 9), (213, 94, 0), (0, 158, 115)), 255)
UTM = Georeference(CRS.from_epsg(32645).to_wkt(), (10.0, 0.0, 500_000.0, 0.0, -10.0, 3_203_000.0))


def random_labels(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.choice([0, 1, 2, 255], p=[0.4, 0.35, 0.15, 0.1], size=(height, width)).astype(np.uint8)


def counting(labels: LabelMap, reads: list[Box]) -> LabelMap:
    """The same map; notes what is read of it."""

    def read(box: Box) -> NDArray[np.uint8]:
        reads.append(box)
        found: NDArray[np.uint8] = labels.read(box)
        return found

    return LabelMap(**{**vars(labels), "read": read})


def check(numbers: Numbers, labels: NDArray[np.uint8]) -> None:
    labelled = int((labels != 255).sum())
    assert numbers.nodata == labels.size - labelled
    for value, one in enumerate(numbers.classes):
        there = labels == value
        assert (one.value, one.pixels) == (value, there.sum())
        assert one.share == (there.sum() / labelled if labelled else 0)
        found = skimage.measure.label(there, connectivity=1)
        assert one.objects == (None if value == 0 else found.max())
        powers = [int(size).bit_length() - 1 for size in np.bincount(found.ravel())[1:]] if value else []
        assert list(one.sizes) == [powers.count(k) for k in range(max(powers, default=-1) + 1)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 999), st.integers(1, 45))
def test_numbers_are_those_of_the_whole_map(height: int, width: int, seed: int, side: int) -> None:
    labels = random_labels(height, width, seed)
    tally = Tally(label_map_of(labels, LEGEND, georeference=UTM))
    watched = tally.watched()
    for box in watched.boxes(side):
        watched.read(box)
        watched.read(box)  # what is read again is not counted again
    check(tally.numbers(), labels)
    alone = Tally(label_map_of(labels, LEGEND, georeference=UTM))
    assert alone.numbers() == tally.numbers()


@given(st.integers(0, 999), st.lists(st.integers(0, 24), max_size=6))
def test_boxes_in_any_order_are_counted_once(seed: int, order: list[int]) -> None:
    labels = random_labels(23, 25, seed)
    tally = Tally(label_map_of(labels, LEGEND))
    watched = tally.watched()
    boxes = list(watched.boxes(5))
    for k in order:
        watched.read(boxes[k])
    watched.read(Box(0, 0, 23, 3))
    check(tally.numbers(), labels)


@pytest.mark.parametrize("write", [write_cog, write_ome_zarr])
def test_what_a_product_reads_is_not_read_again(write: object, tmp_path: Path) -> None:
    labels, reads = random_labels(1300, 1100, 0), list[Box]()
    tally = Tally(counting(label_map_of(labels, LEGEND, block=(700, 700)), reads))
    write(tally.watched(), tmp_path / "x")  # type: ignore[operator]
    before = list(reads)
    check(tally.numbers(), labels)
    assert reads == before
    assert sum(box.area for box in reads) == labels.size


def test_areas_on_the_ground() -> None:
    labels = np.ones((1000, 700), np.uint8)
    labels[:, 300:] = 2
    numbers = Tally(label_map_of(labels, LEGEND, georeference=UTM)).numbers()
    assert numbers.unit == "m2"
    ground = 100 / 0.9996**2  # at the central meridian of UTM
    assert numbers.classes[1].area == pytest.approx(300_000 * ground, rel=1e-5)
    assert numbers.classes[2].area == pytest.approx(400_000 * ground, rel=1e-5)
    assert numbers.classes[1].density == pytest.approx(1 / 70 * 0.9996**2, rel=1e-5)
    rows = numbers.table()
    assert list(rows[0]) == [
        "value", "class", "pixels", "share", "area_m2", "area_ha", "objects", "objects_per_km2",
    ]  # fmt: skip
    assert float(str(rows[1]["area_ha"])) == pytest.approx(float(str(rows[1]["area_m2"])) / 1e4, abs=1e-6)


def test_areas_of_tissue() -> None:
    labels = np.zeros((1000, 700), np.uint8)
    labels[10:20, 10:20] = labels[30:50, 30:40] = 1
    slide = label_map_of(labels, LEGEND, resolution=Resolution(0.5, 0.25, "um"))
    numbers = Tally(slide, tissue=0.05).numbers()
    assert numbers.unit == "mm2"
    assert numbers.classes[1].area == pytest.approx(300 * 0.125e-6)
    assert (numbers.classes[1].objects, numbers.classes[1].density) == (2, 40.0)
    assert numbers.table()[1]["tissue_mm2"] == "0.050000"
    assert Tally(slide).numbers().classes[1].density == pytest.approx(2 / 0.0875)


def test_without_a_pixel_size_there_are_pixels_alone() -> None:
    numbers = Tally(label_map_of(random_labels(20, 20, 1), LEGEND)).numbers()
    assert list(numbers.table()[0]) == ["value", "class", "pixels", "share", "objects"]
    assert Numbers.from_dict(numbers.to_dict()) == numbers


def test_numbers_in_short() -> None:
    labels = np.full((200, 400), 255, np.uint8)
    assert Tally(label_map_of(labels, LEGEND)).numbers().lines() == []
    labels[:, :300] = 0
    labels[50:100, 50:100] = 1
    assert Tally(label_map_of(labels, LEGEND, georeference=UTM)).numbers().lines() == [
        "background  95.8 %  575.5 ha",
        "wood         4.2 %   25.0 ha  1 object",
    ]
