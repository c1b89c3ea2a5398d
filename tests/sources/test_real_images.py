"""Every raster and slide of the development data against its own library.

Needs TILEPIPE_DATA (default ../shared/data).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openslide
import pytest
import rasterio
from rasterio.windows import Window

from tilepipe.box import Box
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.open import open_source
from tilepipe.sources.resample import at_resolution
from tilepipe.sources.slide import SlideSource

DATA = Path(os.environ.get("TILEPIPE_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = [pytest.mark.long, pytest.mark.skipif(not DATA.exists(), reason=f"no data at {DATA}")]


def some_boxes(height: int, width: int) -> list[Box]:
    rng = np.random.default_rng(0)
    corners = zip(rng.integers(0, height - 64, 20), rng.integers(0, width - 64, 20), strict=True)
    return [Box(int(y), int(x), min(height, int(y) + 300), min(width, int(x) + 200)) for y, x in corners]


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.tif")), ids=lambda path: path.name)
def test_rasters_equal_rasterio(path: Path) -> None:
    source = open_source(path, allow_palette=True)
    assert isinstance(source, GeoTiffSource)
    with rasterio.open(path) as dataset:
        for box in some_boxes(*source.shape[1:]):
            window = Window(box.x0, box.y0, box.width, box.height)
            np.testing.assert_array_equal(source.read(box), dataset.read(window=window))
            mask = source.valid(box)
            expected = dataset.dataset_mask(window=window) > 0
            np.testing.assert_array_equal(np.ones(box.shape, bool) if mask is None else mask, expected)
        assert source.georeference is not None
        assert source.georeference.transform == tuple(dataset.transform)[:6]
    assert source.resolution is not None
    assert 0.1 < source.resolution.y < 20


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.svs")), ids=lambda path: path.name)
def test_slides_equal_openslide(path: Path) -> None:
    source = open_source(path)
    assert isinstance(source, SlideSource)
    with openslide.OpenSlide(path) as slide:
        for box in some_boxes(*source.shape[1:]):
            region = np.asarray(slide.read_region((box.x0, box.y0), 0, (box.width, box.height)).convert("RGB"))
            np.testing.assert_array_equal(source.read(box), region.transpose(2, 0, 1))
    half = at_resolution(open_source(path, mpp=0.25), 0.5, "um")
    whole = half.read(Box.of_shape(*half.shape[1:]))
    for box in some_boxes(*half.shape[1:]):
        rows, columns = box.slices_in(Box.of_shape(*half.shape[1:]))
        np.testing.assert_array_equal(half.read(box), whole[:, rows, columns])
