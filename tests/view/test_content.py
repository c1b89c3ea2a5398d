"""What the page is told: position, values, classes, and troubles in sentences."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.viewers import viewing
from pyproj import Transformer

import tilepipe as tp
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LABELS, Legend, label_map_of
from tilepipe.sources.array import ArraySource
from tilepipe.testing import write_geotiff
from tilepipe.view.content import Shown
from tilepipe.view.map_tiles import SIDE, MapTiles
from tilepipe.view.opened import Opened
from tilepipe.view.screen import TILE

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
            to_degrees = Transformer.from_crs(file.crs, 4326, always_xy=True)
            assert found["lonlat"] == pytest.approx(to_degrees.transform(*file.xy(y, x)), abs=1e-9)
            assert found["values"] == pixels[:, y, x].tolist()
        assert client.ask("/at/2048/0")[0] == 204


def test_a_slide_counts_pixels_and_has_no_map() -> None:
    with viewing(SAMPLE / "CMU-1-Small-Region.svs") as client:
        about = client.json("/about")
        assert about["crs"] is None
        assert about["resolution"] == {"y": 0.499, "x": 0.499, "unit": "um"}
        found = client.json("/at/100/200")
        assert set(found) == {"values", "um"}
        assert found["um"] == pytest.approx([200.5 * 0.499, 100.5 * 0.499])


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


@pytest.mark.parametrize(
    ("crs", "column", "lonlat"),
    [
        ("EPSG:4326", 150, (-178.4995, 9.9995)),
        (None, 0, None),
        ('LOCAL_CS["site",UNIT["metre",1]]', 0, None),
    ],
)
def test_longitude_and_latitude_are_told_where_there_are_some(
    crs: str | None, column: int, lonlat: tuple[float, float] | None, tmp_path: Path
) -> None:
    """Beyond the 180th meridian too, as of a grid from 0 to 360 degrees."""
    grid = rasterio.Affine(0.01, 0, 180, 0, -0.001, 10)
    path = write_geotiff(tmp_path / "in.tif", np.zeros((1, 90, 200), np.uint8), crs=crs, transform=grid)
    with viewing(path) as client:
        found = client.json(f"/at/0/{column}")
        assert found["map"] == pytest.approx([180 + (column + 0.5) * 0.01, 9.9995])
        if lonlat is None:
            assert "lonlat" not in found
        else:
            assert found["lonlat"] == pytest.approx([-180 + (column + 0.5) * 0.01, lonlat[1]])


def test_errors_are_where_labels_and_truth_differ(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, truth = (rng.choice(np.array([0, 1, 2, 255], np.uint8), (600, 700)) for _ in range(2))
    legend = Legend("x", ("background", "a", "b"), ((1, 2, 3), (255, 0, 16), (9, 9, 9)), 255)
    for name, array in (("labels", labels), ("truth", truth)):
        write_cog(label_map_of(array, legend), tmp_path / f"{name}.tif")
    image = ArraySource(np.zeros((600, 700), np.uint8))
    with viewing(image, tmp_path / "labels.tif", truth=tmp_path / "truth.tif") as client:
        found = np.full((2 * TILE, 2 * TILE), 9, np.uint8)
        for row in range(2):
            for column in range(2):
                status, body, _ = client.ask(f"/tiles/errors/0/{row}/{column}")
                assert status == 200
                tile = np.frombuffer(body, np.uint8).reshape(SIDE, SIDE)
                found[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = tile[1:-1, 1:-1]
        wanted = np.where((labels == 255) | (truth == 255), 255, labels != truth)
        np.testing.assert_array_equal(found[:600, :700], wanted)
        assert client.ask("/tiles/errors/0/9/9")[0] == 204
    with viewing(image, tmp_path / "labels.tif") as client:
        assert client.ask("/tiles/errors/0/0/0")[0] == 204


def test_further_out_the_versions_that_are_shown_are_compared(tmp_path: Path) -> None:
    labels, truth = np.zeros((2, 1024, 1024), np.uint8)
    labels[:512], truth[:, :512] = 1, 1
    legend = Legend("x", ("background", "a"), ((1, 2, 3), (255, 0, 16)), 255)
    for name, array in (("labels", labels), ("truth", truth)):
        write_cog(label_map_of(array, legend), tmp_path / f"{name}.tif")
    with viewing(ArraySource(labels), tmp_path / "labels.tif", truth=tmp_path / "truth.tif") as client:
        level = client.json("/about")["levels"]
        tile = np.frombuffer(client.ask(f"/tiles/errors/{level}/0/0")[1], np.uint8).reshape(SIDE, SIDE)[1:-1, 1:-1]
        side = 1024 >> level
        half = side // 2
        assert (tile[:half, :half] == 0).all()
        assert (tile[half:side, half:side] == 0).all()
        assert (tile[:half, half:side] == 1).all()
        assert (tile[half:side, :half] == 1).all()
