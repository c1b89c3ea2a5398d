"""What the page is told: position, values, classes, and troubles in sentences."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.viewers import viewing

import tilepipe as tp
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LABELS, Legend, label_map_of
from tilepipe.sources.array import ArraySource
from tilepipe.view.content import Shown
from tilepipe.view.map_tiles import MapTiles
from tilepipe.view.opened import Opened

SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample"


def test_position_and_values_under_the_pointer_are_those_of_gdal() -> None:
    with viewing(SAMPLE / "banepa_east_rgb.tif") as client, rasterio.open(SAMPLE / "banepa_east_rgb.tif") as file:
        about = client.json("/about")
        assert (about["width"], about["height"], about["crs"]) == (2048, 2048, "WGS 84 / Pseudo-Mercator")
        assert about["resolution"]["unit"] == "m"
        pixels = file.read()
        for y, x in ((0, 0), (17, 2000), (2047, 2047)):
            found = client.json(f"/at/{y}/{x}")
            assert found["map"] == pytest.approx(file.xy(y, x), abs=1e-6)
            assert found["values"] == pixels[:, y, x].tolist()
        assert client.ask("/at/2048/0")[0] == 204


def test_a_slide_counts_pixels_and_has_no_map() -> None:
    with viewing(SAMPLE / "CMU-1-Small-Region.svs") as client:
        about = client.json("/about")
        assert about["crs"] is None
        assert about["resolution"] == {"y": 0.499, "x": 0.499, "unit": "um"}
        assert set(client.json("/at/100/200")) == {"values"}


def test_the_class_at_a_pixel_is_told_with_its_name_and_colour(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [255, 2]], np.uint8).repeat(50, 0).repeat(50, 1)
    legend = Legend("x", ("background", "a\x1b[31m", "<b>"), ((1, 2, 3), (255, 0, 16), (9, 9, 9)), 255)
    write_cog(label_map_of(labels, legend), tmp_path / "labels.tif")
    with viewing(ArraySource(np.full((3, 100, 100), 0.25, np.float32)), tmp_path / "labels.tif") as client:
        said = client.json("/about")["maps"]["labels"]
        assert said["classes"] == ["background", "a\\u001b[31m", "<b>"]
        assert said["colours"] == ["#010203", "#ff0010", "#090909"]
        assert [client.json(f"/at/{y}/{x}")["labels"] for y, x in ((0, 0), (0, 99), (99, 0), (99, 99))] == [
            0,
            1,
            None,
            2,
        ]


def test_values_that_are_no_numbers_are_told_as_such() -> None:
    with viewing(ArraySource(np.full((2, 9, 9), np.nan, np.float32))) as client:
        assert client.json("/at/0/0") == {"values": [None, None]}


def test_sixty_thousand_classes_are_shown() -> None:
    names = tuple(f"class {k}" for k in range(60_000))
    legend = Legend("many", names, tuple((k % 256, k // 256, 7) for k in range(60_000)), 65535)
    labels = (np.arange(90_000) % 60_000).astype(np.uint16).reshape(300, 300)
    tiles = MapTiles([label_map_of(labels, legend)], (300, 300))
    content = Shown(ArraySource(np.zeros((1, 300, 300), np.uint8)), Opened({LABELS: tiles}))
    assert content.about()["maps"][LABELS]["classes"] == list(names)
    found = content.tile(LABELS, 0, 0, 0)
    assert found is not None
    np.testing.assert_array_equal(np.frombuffer(found, "<u2").reshape(514, 514)[1:301, 1:301], labels)


def test_an_image_that_goes_away_is_said_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    shutil.copy(SAMPLE / "banepa_east_rgb.tif", file)
    with viewing(file) as client:
        assert client.ask("/tiles/image/0/0/0")[0] == 200
        file.unlink()
        status, body, _ = client.ask("/tiles/image/0/3/3")
        if status != 200:  # a thread that has the file open may go on reading it
            assert status == 500
            assert b"does not exist" in body
        shutil.copy(SAMPLE / "Amazon_24_20.tif", file)
        answers: list[Any] = [client.ask(f"/tiles/image/0/{k}/2")[:2] for k in range(4)]
        assert all(status == 200 or b"changed" in body for status, body in answers)


def test_a_region_of_python_is_shown_as_an_array() -> None:
    pixels = tp.open_source(SAMPLE / "Amazon_24_20.tif").read(tp.Box(0, 0, 100, 200))
    with viewing(pixels) as client:
        tile = np.frombuffer(client.ask("/tiles/image/0/0/0")[1], np.uint8).reshape(512, 512, 4)
        np.testing.assert_array_equal(tile[:100, :200, :3], pixels.transpose(1, 2, 0))
