"""Pictures of labels: alone, over their image and beside it, against the labels and the image themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.products import shrink
from tilepipe.products.label_map import LABELS, Legend, label_map_of
from tilepipe.products.material import Material
from tilepipe.products.picture_page import ScaleBar, page_of
from tilepipe.products.quicklook import OPACITY, parse_png, write_beside, write_overlay, write_png
from tilepipe.products.shrink import picture_shape, shrunk_colours, shrunk_image
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution
from tilepipe.testing import FakeSource

HALVES = Legend("halves", ("left", "right"), ((10, 20, 30), (200, 100, 0)), 255)
TOWN = Legend("town", ("background", "building"), ((199, 210, 190), (200, 100, 0)), 255)


def halves(height: int, width: int) -> NDArray[np.uint8]:
    values = np.zeros((height, width), np.uint8)
    values[:, width // 2 :] = 1
    values[: height // 10] = 255
    return values


def page(path: Path) -> NDArray[Any]:
    return np.asarray(Image.open(path))


def test_the_region_and_its_labels_stand_side_by_side(tmp_path: Path) -> None:
    pixels = np.zeros((3, 300, 400), np.uint8)
    pixels[0, 100:200] = 250
    labels = label_map_of(halves(100, 200), HALVES, origin=(100, 100))
    write_beside(ArraySource(pixels), labels, tmp_path / "p.png")
    found = page(tmp_path / "p.png")
    assert (found[:100, :200] == (250, 0, 0)).all()
    assert (found[:10, 212:412] == 255).all()
    assert (found[10:100, 212:312] == (10, 20, 30)).all()
    assert (found[10:100, 312:412] == (200, 100, 0)).all()
    assert (found[100:] != 255).any()


def test_large_regions_are_shrunk_and_other_types_stretched(tmp_path: Path) -> None:
    pixels = np.linspace(0, 60000, 900 * 1200, dtype=np.float32).reshape(1, 900, 1200)
    write_beside(ArraySource(pixels), label_map_of(halves(900, 1200), HALVES), tmp_path / "p.png", 300)
    found = page(tmp_path / "p.png").astype(int)
    assert found.shape[1] == 2 * 300 + 12
    assert found[0, 0, 0] == 0
    assert found[224, 299, 0] == 255
    assert (np.diff(found[:225, 150, 1]) >= 0).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_colours_are_means_of_what_a_pixel_covers(h: int, w: int, height: int, width: int, seed: int) -> None:
    """Against a loop over the picture's pixels, whatever is read at once."""
    height, width = min(h, height), min(w, width)
    values = np.random.default_rng(seed).choice([0, 1, 255], size=(h, w)).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shrink, "PIECE", 7)
        found = shrunk_colours(label_map_of(values, HALVES), (height, width), frozenset({0}))
    for y in range(height):
        for x in range(width):
            part = values[y * h // height : (y + 1) * h // height, x * w // width : (x + 1) * w // width] == 1
            np.testing.assert_allclose(found[y, x], np.array([200, 100, 0, 255]) * part.mean(), atol=0.5)


def test_a_small_map_is_enlarged_by_a_whole_number() -> None:
    values = halves(10, 16)
    labels = label_map_of(values, HALVES)
    assert picture_shape(labels, 2000, 640) == (400, 640)
    found = shrunk_colours(labels, (400, 640), frozenset())
    np.testing.assert_array_equal(found[..., 3] > 0, np.kron(values != 255, np.ones((40, 40), bool)))
    assert picture_shape(label_map_of(halves(5000, 50), HALVES), 2000, 640) == (2000, 20)


def test_the_picture_of_an_image_lies_where_its_labels_lie() -> None:
    """Against scikit-image's means of the same part."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 240, 300)).astype(np.uint8)
    labels = label_map_of(np.zeros((60, 80), np.uint8), HALVES, origin=(40, 60), scale=(2.0, 2.0))
    found = shrunk_image(ArraySource(pixels), labels, (30, 40))
    truth = skimage.measure.block_reduce(pixels[:, 40:160, 60:220], (1, 4, 4), np.mean)
    np.testing.assert_allclose(found.transpose(2, 0, 1), truth, atol=1)


def test_pixels_without_data_are_white() -> None:
    valid = np.ones((40, 40), bool)
    valid[:20] = False
    source = ArraySource(np.zeros((3, 40, 40), np.uint8), valid=valid)
    found = shrunk_image(source, label_map_of(halves(40, 40), HALVES), (40, 40))
    assert (found[:20] == 255).all()
    assert (found[20:] == 0).all()


def town() -> NDArray[np.uint8]:
    values = np.zeros((1000, 700), np.uint8)
    values[200:600, 100:500] = 1
    values[:100] = 255
    return values


def test_a_picture_of_labels_alone(tmp_path: Path) -> None:
    material = Material.of({LABELS: label_map_of(town(), TOWN)})
    write_png(material, tmp_path / "p.png")
    found = page(tmp_path / "p.png")
    assert (found[:100, :700] == 255).all()
    assert (found[210:590, 110:490] == (200, 100, 0)).all()
    assert (found[610:1000, :700] == (199, 210, 190)).all()
    assert material.numbers().classes[1].pixels == 160_000
    parse_png(tmp_path / "p.png")


def test_an_overlay_leaves_the_background_clear(tmp_path: Path) -> None:
    image = ArraySource(np.full((3, 1000, 700), 80, np.uint8))
    write_overlay(Material.of({LABELS: label_map_of(town(), TOWN)}, image), tmp_path / "p.png")
    found = page(tmp_path / "p.png").astype(int)
    assert (found[:190, :700] == 80).all()
    assert (found[610:1000, :700] == 80).all()
    mixed = np.floor(80 * (1 - OPACITY) + np.array([200, 100, 0]) * OPACITY + 0.5)
    assert (found[210:590, 110:490] == mixed).all()
    assert (found[200, 100:500] == (200, 100, 0)).all(), "the edge is opaque"
    assert (found[200:600, 499] == (200, 100, 0)).all()
    legend = found[1000:].reshape(-1, 3)
    assert (legend == (200, 100, 0)).all(1).any()
    assert not (legend == (199, 210, 190)).all(1).any(), "what is clear is not in the legend"


def test_an_overlay_needs_an_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name it with `image`"):
        write_overlay(Material.of({LABELS: label_map_of(town(), TOWN)}), tmp_path / "p.png")


def test_no_picture_is_larger_than_it_should_be(tmp_path: Path) -> None:
    values = np.ones((300, 9000), np.uint8)
    write_png(Material.of({LABELS: label_map_of(values, TOWN)}), tmp_path / "p.png")
    found = page(tmp_path / "p.png")
    assert found.shape[1] == 2000
    assert (found[:67] == (200, 100, 0)).all()


@pytest.mark.parametrize(
    ("resolution", "width", "scale", "text", "pixels"),
    [
        (Resolution(0.1, 0.132, "m"), 2048, 1.0, "50 m", 379),
        (Resolution(10, 10, "m"), 512, 1.0, "1 km", 100),
        (Resolution(0.25, 0.25, "um"), 1000, 1.0, "50 um", 200),
        (Resolution(8.0, 8.0, "um"), 1000, 1.0, "1 mm", 125),
        (None, 1000, 2.0, "200 px", 100),
    ],
)
def test_scale_bars(resolution: Resolution | None, width: int, scale: float, text: str, pixels: int) -> None:
    labels = label_map_of(np.zeros((4, width), np.uint8), TOWN, resolution=resolution, scale=(scale, scale))
    assert ScaleBar.of(labels, width) == ScaleBar(text, pixels)


def test_a_legend_of_many_names_takes_several_lines() -> None:
    picture = np.zeros((50, 400, 3), np.uint8)
    colours = [(k, 0, 255 - k) for k in range(20)]
    few = page_of(picture, [("forest", colours[0])], ScaleBar("1 km", 80))
    many = page_of(
        picture, [(f"class {k} Wälder 森", colour) for k, colour in enumerate(colours)], ScaleBar("1 km", 80)
    )
    assert many.height > few.height
    found = np.asarray(many)
    for colour in colours:
        assert (found[50:] == colour).all(-1).sum() > 100, "each class has its colour"


def test_what_is_no_picture_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(OSError, match="cannot identify"):
        parse_png(tmp_path / "p.png")


def test_a_damaged_place_of_an_image_costs_the_picture_that_place() -> None:
    pixels = np.full((3, 320, 320), 100, np.uint8)
    image = FakeSource(pixels, damaged=Box(15, 15, 16, 16))
    found = shrunk_image(image, label_map_of(np.zeros((320, 320), np.uint8), HALVES), (320, 320))
    missing = (found == 255).all(-1)
    assert missing[15, 15]
    assert missing.sum() == 100
    assert (found[~missing] == 100).all()
    gone = FakeSource(pixels, damaged=Box(0, 0, 320, 320))
    with pytest.raises(InputError, match="damaged"):
        shrunk_image(gone, label_map_of(np.zeros((320, 320), np.uint8), HALVES), (9, 9))
