from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from PIL import Image
from rasterio.enums import Resampling

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.ome_tiff import TiffSource
from tilepipe.sources.open import open_source, reopening
from tilepipe.sources.png_jpeg import PictureSource
from tilepipe.sources.slide import SlideSource
from tilepipe.sources.zarr import ZarrSource

UTM = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 3000000)}
Write = Callable[..., Path]


def test_arrays_and_sources(noise: Any) -> None:
    source = open_source(noise((3, 20, 30)), name="x", resolution=2)
    assert isinstance(source, ArraySource)
    assert (source.name, source.resolution) == ("x", Resolution(2, 2, "m"))
    assert open_source(source) is source
    with pytest.raises(UsageError, match="a list is not an image"):
        open_source([1, 2])  # type: ignore[arg-type]
    assert open_source(da.zeros((3, 20, 30), dtype="uint8")).shape == (3, 20, 30)
    assert open_source(noise((3, 20, 30)), mpp=0.25).resolution == Resolution(0.25, 0.25, "um")


def test_tiffs_by_what_they_are(geotiff: Write, slide: Write, noise: Any, tmp_path: Path) -> None:
    pixels = noise((512, 600, 3))
    bands, half = pixels.transpose(2, 0, 1), pixels[::2, ::2].copy()
    tiled = {"tiled": True, "blockxsize": 128, "blockysize": 128, "photometric": "rgb"}

    def overviews(dataset: Any) -> None:
        dataset.build_overviews([2], Resampling.average)

    assert type(open_source(slide([pixels]))) is SlideSource
    assert type(open_source(slide([pixels], "renamed.tif"))) is SlideSource
    assert type(open_source(slide([pixels, half], "pyramid.tif", aperio=False))) is SlideSource
    assert type(open_source(slide([pixels], "flat.tif", aperio=False))) is GeoTiffSource
    assert type(open_source(geotiff(bands, "cog.tif", overviews, **tiled, **UTM))) is GeoTiffSource
    assert type(open_source(geotiff(bands, "strips.tif"))) is GeoTiffSource
    deep = noise((3, 512, 600), "uint16")  # OpenSlide would cut this to 8 bits
    assert type(open_source(geotiff(deep, "deep.tif", overviews, **tiled))) is GeoTiffSource
    tifffile.imwrite(tmp_path / "a.tif", bands, ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    assert type(open_source(tmp_path / "a.tif")) is TiffSource
    for name in ("a.svs", "pyramid.tif", "cog.tif", "strips.tif", "a.tif"):
        np.testing.assert_array_equal(open_source(str(tmp_path / name)).read(Box(0, 0, 512, 600)), bands)


def test_pictures_and_zarr(noise: Any, tmp_path: Path) -> None:
    Image.fromarray(noise((20, 30, 3))).save(tmp_path / "a.png")
    Image.fromarray(noise((20, 30, 3))).save(tmp_path / "jpeg.dat", "JPEG")
    assert type(open_source(tmp_path / "a.png", mpp=0.25)) is PictureSource
    assert type(open_source(tmp_path / "jpeg.dat")) is PictureSource
    zarr.save(tmp_path / "a.zarr", noise((3, 20, 30)))
    assert type(open_source(tmp_path / "a.zarr", bands=(2,))) is ZarrSource


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.tif", None, "does not exist"),
        ("notes.txt", b"hello", "not an image"),
        ("empty.png", b"", "not an image"),
        ("folder", "folder", "is a folder and no Zarr image"),
        ("v.vrt", b'<VRTDataset rasterXSize="5" rasterYSize="5">', "is damaged"),
        ("v.tif", b'<VRTDataset rasterXSize="5" rasterYSize="5">', "is damaged"),
        ("broken.tif", b"II*\x00\x08\x00\x00\x00", "cannot be opened"),
    ],
)
def test_what_is_no_image_gets_one_sentence(tmp_path: Path, name: str, content: bytes | str | None, words: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    with pytest.raises(InputError, match=words) as caught:
        open_source(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_that_does_not_fit(geotiff: Write, noise: Any) -> None:
    image = geotiff(noise((1, 20, 30)), **UTM)
    with pytest.raises(UsageError, match=r"\.tif has no planes along z; leave `z` out"):
        open_source(image, z=3)
    with pytest.raises(UsageError, match="an array holds one image; leave `scene` out"):
        open_source(noise((1, 20, 30)), scene=1)
    with pytest.raises(UsageError, match="is read by GeoTiffSource, which has no such option; leave `valid` out"):
        open_source(image, valid=None)


def test_the_driver_of_a_geotiff_is_kept(tmp_path: Path) -> None:
    """A pyramid of colours is a slide, unless the driver is named; what opens it again must name it too."""
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for step in (1, 4):
            file.write(pixels[::step, ::step], tile=(128, 128), photometric="rgb", subfiletype=int(step > 1))
    assert reopening(open_source(tmp_path / "a.tif")) == {}
    named = open_source(tmp_path / "a.tif", driver="GTiff")
    assert reopening(named) == {"driver": "GTiff"}
    assert open_source(named, driver="GTiff") is named
