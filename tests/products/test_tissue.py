"""Tissue as a product: its picture and its outlines are the mask that the run has used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rasterio.features import rasterize

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.execution.export import export
from tilepipe.products.tissue import LEGEND, tissue_map
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.sources.find_tissue import Found
from tilepipe.sources.tissue import Tissue, tissue
from tilepipe.testing import random_unet

SHAPE = 3, 400, 300
HALF_MICROMETRE = Resolution(0.5, 0.5, "um")


def slide() -> ArraySource:
    """A grey block on glass."""
    pixels = np.full(SHAPE, 240, np.uint8)
    pixels[1, 100:200, 50:250] = 90
    return ArraySource(pixels, resolution=HALF_MICROMETRE)


def burnt(path: Path, shape: tuple[int, int]) -> Any:
    """The polygons of a GeoJSON, burnt by GDAL onto full-resolution pixels."""
    features = json.loads(path.read_text())["features"]
    assert {one["properties"]["classification"]["name"] for one in features} == {"tissue"}
    return rasterize([one["geometry"] for one in features], out_shape=shape).astype(bool)


def test_a_run_draws_the_tissue_that_it_has_found(tmp_path: Path) -> None:
    tp.segment(slide(), random_unet(), tmp_path / "a", mask="tissue", tile=64, of="csv,tissue,tissue-geojson")
    area = tissue(slide(), 1.0).found.tissue
    assert (burnt(tmp_path / "a.tissue.geojson", SHAPE[1:]) == area).all()
    picture = np.asarray(Image.open(tmp_path / "a.tissue.png"))[:400]
    assert picture.shape == (400, 320, 3), "300 columns on a page of 320"
    assert tuple(picture[5, 12]) == (240, 240, 240), "glass is left clear"
    below, colour = (np.array(values, float) for values in ((240, 90, 240), LEGEND.palette[1]))
    np.testing.assert_allclose(picture[150, 160], 0.65 * below + 0.35 * colour, atol=1)


def test_outlines_are_a_mask_for_the_next_run(tmp_path: Path) -> None:
    tp.segment(slide(), random_unet(), tmp_path / "a", mask="tissue", tile=64, of="csv,tissue-geojson")
    again = tp.segment(slide(), random_unet(), tmp_path / "b.ome.zarr", mask=tmp_path / "a.tissue.geojson", tile=64)
    labelled = np.asarray(again.labels) != again.labels.legend.nodata
    assert (labelled == tissue(slide(), 1.0).found.tissue).all()


@pytest.mark.parametrize("region", [Box(0, 0, 100, 200), Box(25, 110, 33, 131), Box(90, 3, 100, 9)])
def test_a_part_shows_the_cells_of_the_part(region: Box, tmp_path: Path) -> None:
    small, ink = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    small[2:4, 5:8], ink[9, :2] = True, True
    area = Tissue(Found(small, ink, "bright"), 1, 100, 200)
    found = tissue_map(area, region, ArraySource(np.zeros((3, 100, 200), np.uint8)), Resolution(0.5, 0.25, "um"))
    y, x = found.origin
    assert found.scale == (10, 20)
    assert (found.resolution and (found.resolution.y, found.resolution.x)) == (5, 5)
    codes = np.kron(found.read(Box.of_shape(*found.shape)), np.ones((10, 20), np.uint8))
    # What this map says of each pixel of the region is what the masks say of it.
    inside = region.slices_in(Box(y, x, y + codes.shape[0], x + codes.shape[1]))
    whole = region.slices_in(Box.of_shape(100, 200))
    assert ((codes[inside] == 1) == np.kron(small, np.ones((10, 20), bool))[whole]).all()
    assert ((codes[inside] == 3) == np.kron(ink, np.ones((10, 20), bool))[whole]).all()
    assert (np.isin(codes[inside], (1, 2)) == (area(region) & (codes[inside] != 3))).all()


def test_what_has_no_tissue_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`mask='tissue'` has found tissue, and this run does not look for it"):
        tp.segment(slide(), random_unet(), tmp_path / "a", of=["csv", "tissue"])
    pixels = slide().read(Box.of_shape(*SHAPE[1:]))
    ground = ArraySource(pixels, georeference=Georeference("EPSG:32645", (1, 0, 0, 0, -1, 0)))
    with pytest.raises(UsageError, match="lies on the ground"):
        tp.segment(ground, random_unet(), tmp_path / "a", mask="tissue", of="csv,tissue-geojson")
    assert not list(tmp_path.iterdir())


def test_labels_alone_give_no_picture_of_tissue(tmp_path: Path) -> None:
    tp.segment(slide(), random_unet(), tmp_path / "a.ome.zarr", mask="tissue", tile=64)
    before = set(tmp_path.iterdir())
    with pytest.raises(UsageError, match="shows what only a run knows"):
        export(tmp_path / "a.ome.zarr", tmp_path / "b.tissue.png", image=slide())
    assert set(tmp_path.iterdir()) == before
