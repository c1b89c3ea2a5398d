"""A region is a crop of the whole, bit for bit: random regions of a GeoTIFF and of a slide, and the odd ones."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.testing import noise, random_unet

HEIGHT, WIDTH = 500, 620
CUTS: list[dict[str, Any]] = [
    {"tile": 96, "overlap": 64, "block": 200},
    {"tile": 64, "overlap": 32, "window_shape": "gaussian", "block": 150},
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    pixels = noise(HEIGHT, WIDTH).read(Box.of_shape(HEIGHT, WIDTH))
    place = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.3, 0, 335000.1, 0, -0.3, 3058000.7)}
    size = {"height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint8"}
    with rasterio.open(folder / "ortho.tif", "w", driver="GTiff", **size, **place, tiled=True, blockxsize=128,
                       blockysize=128, nodata=0) as file:  # fmt: skip
        file.write(np.where(pixels.min(axis=0) > 40, pixels, 0))
    tifffile.imwrite(
        folder / "slide.svs", pixels.transpose(1, 2, 0), tile=(128, 128), photometric="rgb",
        description=f"Aperio Image Library v11.2.1\n{WIDTH}x{HEIGHT} -> |AppMag = 20|MPP = 0.5", metadata=None,
    )  # fmt: skip
    return {"raster": folder / "ortho.tif", "slide": folder / "slide.svs"}


@pytest.fixture(scope="module", params=["raster", pytest.param("slide", marks=pytest.mark.long)])
def full(request: pytest.FixtureRequest, images: dict[str, Path], tmp_path_factory: Any) -> Any:
    """Both full runs of an image: (path, model, labels by cut). The slide is predicted at another resolution."""
    model = random_unet()
    if request.param == "slide":
        card = model.card.model_copy(update={"resolution": 0.73, "unit": "um"})
        model = tp.Model.from_torch(model.module, card)
    folder = tmp_path_factory.mktemp("full")
    labels = []
    for k, cut in enumerate(CUTS):
        result = tp.segment(images[request.param], model, folder / f"{k}.tif", **cut)
        labels.append(np.asarray(result.labels.dask))
        assert 0.05 < (labels[-1] == 0).mean() < 0.95
    return images[request.param], model, labels


def regions(count: int) -> list[Box]:
    rng = random.Random(7)
    found = []
    for _ in range(count - 5):
        y0, x0 = rng.randrange(HEIGHT), rng.randrange(WIDTH)
        found.append(Box(y0, x0, rng.randint(y0 + 1, HEIGHT), rng.randint(x0 + 1, WIDTH)))
    edges = [Box(0, 0, HEIGHT, WIDTH), Box(0, 0, 1, 1), Box(HEIGHT - 1, WIDTH - 1, HEIGHT, WIDTH)]
    return [*found, *edges, Box(250, 333, 251, 334), Box(190, 190, 210, 210)]


@pytest.mark.parametrize("count", [7, pytest.param(50, marks=pytest.mark.long)])
@pytest.mark.parametrize("cut", [0, pytest.param(1, marks=pytest.mark.long)], ids=["crop", "gaussian"])
def test_regions_in_memory(full: Any, cut: int, count: int) -> None:
    path, model, labels = full
    for region in regions(count):
        found = tp.predict(path, model, region, **CUTS[cut])
        assert (found == labels[cut][region.y0 : region.y1, region.x0 : region.x1]).all(), region


@pytest.mark.parametrize("cut", [pytest.param(0, marks=pytest.mark.long), 1], ids=["crop", "gaussian"])
def test_a_region_on_disk(full: Any, cut: int, tmp_path: Path) -> None:
    path, model, labels = full
    region = Box(123, 77, 402, 388)
    result = tp.segment(path, model, tmp_path / "part.tif", region=region, **CUTS[cut])
    assert (np.asarray(result.labels.dask) == labels[cut][region.y0 : region.y1, region.x0 : region.x1]).all()


def test_a_region_outside_is_refused_with_both_extents(full: Any) -> None:
    path, model, _ = full
    with pytest.raises(tp.TilepipeError, match=r"rows 490 to 510.*has 500 rows and 620 columns"):
        tp.predict(path, model, Box(490, 0, 510, 10))


def test_a_region_without_pixels_is_refused() -> None:
    with pytest.raises(tp.TilepipeError, match="no pixels"):
        Box(10, 10, 10, 20)
