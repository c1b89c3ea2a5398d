"""A Sentinel-2 product, made here in its layout: bands of several pixel sizes in JPEG 2000, stacked by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.open import open_source

RNG = np.random.default_rng(2)
SIDE = 120


def write_band(path: Path, pixel: int) -> Any:
    pixels = RNG.integers(1, 4000, (1, SIDE * 10 // pixel, SIDE * 10 // pixel)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32645", "transform": rasterio.Affine(pixel, 0, 4e5, 0, -pixel, 3e6)}
    size = {"height": pixels.shape[1], "width": pixels.shape[2], "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", driver="JP2OpenJPEG", REVERSIBLE="YES", QUALITY="100", **size, **place) as file:
        file.write(pixels)
    return pixels[0]


@pytest.fixture
def product(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path / "S2A_MSIL2A_20240101.SAFE"
    images, bands = folder / "GRANULE" / "L2A_T45RUM" / "IMG_DATA", {}
    for band, pixel in (("B02", 20), ("B02", 10), ("B03", 10), ("B04", 10), ("B8A", 20), ("B11", 20)):
        bands[band] = write_band(images / f"R{pixel}m" / f"T45RUM_20240101T000000_{band}_{pixel}m.jp2", pixel)
    write_band(images / "R10m" / "T45RUM_20240101T000000_TCI_10m.jp2", 10)
    return folder, bands


def test_bands_are_stacked_from_their_finest_files(product: tuple[Path, dict[str, Any]]) -> None:
    folder, bands = product
    source: Any = open_source(folder, bands="B04,B03,B02")
    assert source.shape == (3, SIDE, SIDE)
    np.testing.assert_array_equal(
        source.read(Box(0, 0, SIDE, SIDE)), np.stack([bands[name] for name in ("B04", "B03", "B02")])
    )
    assert (source.place, source.resolution.unit) == (folder, "m")
    coarse = open_source(folder, bands=["B8A", "B11"])
    assert coarse.shape == (2, SIDE // 2, SIDE // 2)
    np.testing.assert_array_equal(coarse.read(Box(0, 0, 60, 60)), np.stack([bands["B8A"], bands["B11"]]))
    whole: Any = open_source(folder)
    assert [band.name for band in whole.file_bands] == ["B02", "B03", "B04", "B8A", "B11"]
    assert whole.shape == (5, SIDE, SIDE)


def test_a_pattern_of_jpeg_2000_files(product: tuple[Path, dict[str, Any]]) -> None:
    folder, bands = product
    source = open_source(str(folder / "GRANULE" / "*" / "IMG_DATA" / "R10m" / "*_B0[34]_10m.jp2"))
    np.testing.assert_array_equal(source.read(Box(0, 0, SIDE, SIDE)), np.stack([bands["B03"], bands["B04"]]))


def test_a_band_that_is_a_link_out_of_the_product_is_refused(
    product: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = product
    band = next(folder.glob("**/*_B03_10m.jp2"))
    (tmp_path / "elsewhere").mkdir()
    band.rename(tmp_path / "elsewhere" / "b.jp2")
    band.symlink_to(tmp_path / "elsewhere" / "b.jp2")
    with pytest.raises(InputError, match="only files in the folder of"):
        open_source(folder)
