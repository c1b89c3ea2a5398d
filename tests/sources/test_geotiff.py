from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.env import get_gdal_config
from rasterio.windows import Window

from tilepipe.box import Box
from tilepipe.errors import ChangedError, InputError, UsageError
from tilepipe.sources import checks
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.geotiff_gdal import GDAL_CACHE_BYTES, gdal
from tilepipe.sources.handles import HANDLES_PER_THREAD
from tilepipe.sources.open import open_source
from tilepipe.sources.strip_cache import ROW_CACHE_BYTES

UTM = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 3000000)}
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiled": {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"},
    "planes": {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"},
    "strips of one row": {"blockysize": 1, "compress": "lzw"},
    "strips of five rows": {"blockysize": 5},
    "one strip": {"blockysize": 150, "compress": "deflate", "interleave": "band"},
    "BigTIFF": {"BIGTIFF": "YES", "tiled": True, "blockxsize": 16, "blockysize": 16},
}
Write = Callable[..., Path]


def boxes(height: int, width: int, count: int, seed: int = 0) -> list[Box]:
    """Random boxes that meet the image, many reaching out of it."""
    rng = np.random.default_rng(seed)
    corners = zip(rng.integers(-30, height, count), rng.integers(-30, width, count), strict=True)
    return [Box(int(y), int(x), int(y + rng.integers(1, 90)), int(x + rng.integers(1, 90))) for y, x in corners]


def cut(image: np.ndarray, box: Box, margin: int = 100) -> np.ndarray:
    """The box of an image, by numpy's own reflection."""
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    return padded[:, margin + box.y0 : margin + box.y1, margin + box.x0 : margin + box.x1]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_dtype_reads_as_written(geotiff: Write, noise: Any, layout: str, dtype: str) -> None:
    image = noise((5, 150, 210), dtype)
    source = GeoTiffSource(geotiff(image, **UTM, **LAYOUTS[layout]))
    assert isinstance(source, Source)
    assert (source.shape, source.dtype.name, source.striped) == ((5, 150, 210), dtype, "strip" in layout)
    for box in boxes(150, 210, 25):
        np.testing.assert_array_equal(source.read(box), cut(image, box))


@pytest.mark.parametrize("layout", ["tiled", "strips of one row", "one strip"])
def test_eight_threads_read_what_one_reads(geotiff: Write, noise: Any, layout: str) -> None:
    image = noise((3, 150, 210))
    source = GeoTiffSource(geotiff(image, **UTM, **LAYOUTS[layout]))
    asked = boxes(150, 210, 400)
    with ThreadPoolExecutor(8) as pool:
        for box, found in zip(asked, pool.map(source.read, asked), strict=True):
            np.testing.assert_array_equal(found, cut(image, box))


def test_overviews_do_not_change_pixels_or_identity(geotiff: Write, noise: Any) -> None:
    image = noise((1, 256, 256))
    path = geotiff(image, tiled=True, blockxsize=64, blockysize=64, **UTM)
    before = GeoTiffSource(path).identity()
    geotiff(noise((1, 128, 128), seed=1), "a.tif.ovr")
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1) == [2], "GDAL takes the sidecar for an overview"
    source = GeoTiffSource(path)
    assert source.identity() == before
    assert source.coarser(64, 64) is source
    inside = geotiff(image, "b.tif", lambda d: d.build_overviews([2, 4], Resampling.average), tiled=True, **UTM)
    np.testing.assert_array_equal(GeoTiffSource(inside).read(Box(0, 0, 256, 256)), image)


# ---- validity


def same_mask_as_rasterio(path: Path, layout: str = "") -> None:
    source = GeoTiffSource(path)
    _, height, width = source.shape
    with rasterio.open(path) as dataset:
        whole = dataset.dataset_mask() > 0
    assert 0 < whole.sum() < whole.size, "the test image must have both"
    for box in boxes(height, width, 30):
        mask = source.valid(box)
        found = np.ones(box.shape, bool) if mask is None else mask
        np.testing.assert_array_equal(
            found, np.pad(whole, 100)[100 + box.y0 : 100 + box.y1, 100 + box.x0 : 100 + box.x1]
        )


@pytest.mark.parametrize("layout", ["tiled", "planes", "strips of one row"])
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("int16", -9999), ("float32", -3.4028234663852886e38)])
def test_nodata(geotiff: Write, noise: Any, layout: str, dtype: str, nodata: float) -> None:
    image = noise((3, 150, 210), dtype)
    image[:, 20:80, 30:90] = nodata
    image[0, 100:120] = nodata  # one band only: the pixel still holds data
    same_mask_as_rasterio(geotiff(image, nodata=nodata, **UTM, **LAYOUTS[layout]))


LOWEST = -3.4028234663852886e38


@pytest.mark.parametrize("layout", ["tiled", "planes", "strips of one row"])
@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (LOWEST, "-3.40282306e+38"),  # as ESRI's programs round it
        (LOWEST, "-3.4028235e+38"),
        (LOWEST, "-3.4028234663852886e+38"),
        (-9999.9, "-9999.9"),
        (0.1, "0.1"),
        (np.nan, "nan"),
        (-np.inf, "-inf"),
        (1e-40, "1e-40"),
    ],
    ids=str,
)
def test_nodata_of_floats_is_compared_as_gdal_does(
    geotiff: Write, noise: Any, layout: str, stored: float, said: str
) -> None:
    image = noise((2, 150, 210), "float32")
    image[:, 20:80, 30:90] = stored
    image[:, 100:120, 5:9] = np.nextafter(np.float32(stored), np.float32(1))
    image[0, 130:140] = stored if np.isfinite(stored) else 5  # one band only

    def say(dataset: Any) -> None:
        dataset.nodata = float(said)

    same_mask_as_rasterio(geotiff(image, "a.tif", say, **UTM, **LAYOUTS[layout]))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("said", ["0", "0.5", "none", "-9999", "nan", "300", "255.4"])
def test_nodata_that_is_no_value_of_the_type_is_read_as_gdal_does(tmp_path: Path, said: str) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(42113, "s", 0, said, True)])
    with rasterio.open(tmp_path / "a.tif") as dataset:
        expected = dataset.dataset_mask() > 0
    found = GeoTiffSource(tmp_path / "a.tif").valid(Box(0, 0, 16, 16))
    np.testing.assert_array_equal(np.ones((16, 16), bool) if found is None else found, expected)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("values", [(7, 9), (7, None), (None, 9), (7, 7)], ids=str)
def test_each_band_has_its_nodata(geotiff: Write, values: tuple[int | None, ...]) -> None:
    """As VRTs have it: a pixel is nodata where every band is."""
    image = np.random.default_rng(0).integers(6, 11, (2, 40, 50)).astype(np.uint8)
    path = geotiff(image, "bands.tif", **UTM)
    said = ["" if value is None else f"<NoDataValue>{value}</NoDataValue>" for value in values]
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{k}">{text}<SimpleSource><SourceFilename relativeToVRT="1">bands.tif'
        f"</SourceFilename><SourceBand>{k}</SourceBand></SimpleSource></VRTRasterBand>"
        for k, text in enumerate(said, 1)
    )
    made = path.with_name("a.vrt")
    made.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{bands}</VRTDataset>')
    with rasterio.open(made) as dataset:
        whole = dataset.dataset_mask() > 0
        second = dataset.read_masks(2) > 0
    for picked, expected in ((None, whole), ((2,), second)):
        found = GeoTiffSource(made, allow_driver="VRT", bands=picked).valid(Box(0, 0, 40, 50))
        np.testing.assert_array_equal(np.ones((40, 50), bool) if found is None else found, expected)


@pytest.mark.parametrize("layout", ["tiled", "strips of one row"])
def test_alpha_is_validity_not_a_band(geotiff: Write, noise: Any, layout: str) -> None:
    image = noise((4, 150, 210))
    image[3] = 255
    image[3, 20:80, 30:90] = 0
    path = geotiff(image, photometric="rgb", alpha="yes", **UTM, **LAYOUTS[layout])
    assert GeoTiffSource(path).shape[0] == 3
    same_mask_as_rasterio(path)


def test_a_band_called_alpha_can_be_read_as_one(geotiff: Write, noise: Any) -> None:
    image = noise((4, 40, 50))  # near infrared that a converter tagged as alpha
    path = geotiff(image, photometric="rgb", alpha="yes", **UTM)
    source = GeoTiffSource(path, bands=(4, 1))
    np.testing.assert_array_equal(source.read(Box(0, 0, 40, 50)), image[[3, 0]])
    assert source.valid(Box(0, 0, 40, 50)) is None
    with pytest.raises(UsageError, match="bands 1 to 4"):
        GeoTiffSource(path, bands=(1, 5))


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("layout", ["tiled", "strips of five rows"])
def test_internal_and_msk_masks(geotiff: Write, noise: Any, layout: str, internal: bool) -> None:
    mask = np.full((150, 210), 255, np.uint8)
    mask[40:100, 100:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = geotiff(noise((3, 150, 210)), "m.tif", lambda d: d.write_mask(mask), **UTM, **LAYOUTS[layout])
    assert path.with_name("m.tif.msk").exists() is not internal
    same_mask_as_rasterio(path)


def test_not_finite_is_not_valid(geotiff: Write) -> None:
    image = np.ones((2, 40, 50), np.float32)
    image[0, 3, 4] = np.nan
    image[1, 5, 6] = np.inf
    expected = np.ones((40, 50), bool)
    expected[3, 4] = expected[5, 6] = False
    np.testing.assert_array_equal(GeoTiffSource(geotiff(image, **UTM)).valid(Box(0, 0, 40, 50)), expected)
    plain = GeoTiffSource(geotiff(np.ones((1, 40, 50), np.float32), "b.tif", nodata=np.nan, **UTM))
    assert plain.valid(Box(0, 0, 40, 50)) is None


def test_a_mask_sidecar_changes_the_identity(geotiff: Write, noise: Any) -> None:
    path = geotiff(noise((1, 40, 50)), **UTM)
    before = GeoTiffSource(path).identity()
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.eye(40, 50, dtype=bool))
    assert path.with_name("a.tif.msk").exists()
    assert GeoTiffSource(path).identity() != before


def test_nodata_and_position_beside_the_file_change_the_identity(geotiff: Write, noise: Any) -> None:
    path = geotiff(noise((1, 40, 50)))
    before = GeoTiffSource(path).identity()
    band = '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>'
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    source = GeoTiffSource(path)
    assert source.identity() != before
    image = source.read(Box(0, 0, 40, 50))[0]
    np.testing.assert_array_equal(source.valid(Box(0, 0, 40, 50)), image != 7)
    path.with_name("a.tfw").write_text("0.5\n0\n0\n-0.5\n100\n200\n")
    placed = GeoTiffSource(path)
    assert placed.georeference is not None
    assert placed.georeference.transform == (0.5, 0, 99.75, 0, -0.5, 200.25)
    assert placed.identity() != source.identity()


# ---- position


@pytest.mark.parametrize(
    "transform",
    [
        rasterio.Affine(0.1, 0, 400000.1, 0, -0.1, 3000000.7),
        rasterio.Affine(0.3, 0.05, 400000, 0.07, -0.2, 3000000),  # rotated and sheared
        rasterio.Affine(0.5, 0, 400000, 0, 0.5, 3000000),  # south-up
    ],
)
def test_transform_and_crs_are_kept_to_the_last_bit(geotiff: Write, noise: Any, transform: rasterio.Affine) -> None:
    path = geotiff(noise((1, 40, 50)), crs="EPSG:32645", transform=transform)
    known = GeoTiffSource(path).georeference
    with rasterio.open(path) as dataset:
        assert known is not None
        assert known.transform == tuple(dataset.transform)[:6] == tuple(transform)[:6]
        assert rasterio.crs.CRS.from_wkt(known.crs) == dataset.crs
    assert known.gcps == ()


@pytest.mark.parametrize("epsg", [4326, 3857, 27700, 2154, 3035, 2193, 3413])
def test_every_crs_survives(geotiff: Write, noise: Any, epsg: int) -> None:
    path = geotiff(noise((1, 4, 5)), crs=f"EPSG:{epsg}", transform=rasterio.Affine(2, 0, 10, 0, -2, 40))
    known = GeoTiffSource(path).georeference
    with rasterio.open(path) as dataset:
        assert known is not None
        assert rasterio.crs.CRS.from_wkt(known.crs) == dataset.crs


def test_gcps_are_kept_and_nothing_is_fitted(geotiff: Write, noise: Any) -> None:
    points = [
        (0, 0, 84.0, 28.0),
        (0, 50, 84.01, 28.001),
        (40, 0, 83.999, 27.99),
        (40, 50, 84.012, 27.988),
        (20, 20, 84.0041, 27.9952),
    ]
    gcps = [GroundControlPoint(row=r, col=c, x=x, y=y, z=5.0) for r, c, x, y in points]
    source = GeoTiffSource(geotiff(noise((1, 40, 50)), gcps=gcps, crs="EPSG:4326"))
    known = source.georeference
    assert known is not None
    assert known.transform is None
    assert known.gcps == tuple((*p, 5.0) for p in points)
    assert rasterio.crs.CRS.from_wkt(known.crs).to_epsg() == 4326
    assert source.resolution is not None
    assert source.resolution.x == pytest.approx(20, rel=0.15)  # 0.01 degrees at 28 N over 50 pixels


def test_no_position_is_none_and_no_warning(geotiff: Write, noise: Any) -> None:
    source = GeoTiffSource(geotiff(noise((1, 40, 50))))
    assert source.georeference is None
    assert source.resolution is None
    assert GeoTiffSource(source.name, resolution=0.3).resolution == Resolution(0.3, 0.3, "m")


# ---- refusals


def test_palette_is_refused_unless_indices_are_wanted(geotiff: Write, noise: Any) -> None:
    image = noise((1, 40, 50))
    path = geotiff(image, "p.tif", lambda d: d.write_colormap(1, {k: (k, 0, 0, 255) for k in range(256)}))
    with pytest.raises(InputError, match=r"p\.tif has a colour palette.*gdal_translate -expand rgb"):
        GeoTiffSource(path)
    np.testing.assert_array_equal(GeoTiffSource(path, allow_palette=True).read(Box(0, 0, 40, 50)), image)


@pytest.mark.parametrize("stored", [{}, {"photometric": "MINISWHITE"}, {"compress": "CCITTFAX4"}])
def test_images_of_one_bit_are_read_as_rasterio_reads_them(geotiff: Write, noise: Any, stored: dict[str, str]) -> None:
    """GDAL gives them a palette of black and white that the file does not have."""
    image = noise((1, 40, 50)) % 2
    path = geotiff(image, nbits=1, **stored, **UTM)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), image)
        assert file.colorinterp == (ColorInterp.palette,)
    source = open_source(path)
    np.testing.assert_array_equal(source.read(Box(0, 0, 40, 50)), image)
    assert (source.dtype, source.valid(Box(0, 0, 40, 50))) == (np.uint8, None)
    coloured = geotiff(image, "c.tif", lambda d: d.write_colormap(1, {0: (9, 0, 0, 255), 1: (0, 9, 0, 255)}), nbits=1)
    with pytest.raises(InputError, match="has a colour palette"):
        open_source(coloured)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "float64"])
def test_other_dtypes_are_refused_with_the_command_that_converts(geotiff: Write, dtype: str) -> None:
    with pytest.raises(InputError, match=f"{dtype} pixels.*gdal_translate -ot Float32"):
        GeoTiffSource(geotiff(np.zeros((1, 4, 4), dtype), **UTM))


def test_a_vrt_in_tiff_clothes_is_refused(geotiff: Write, noise: Any, tmp_path: Path) -> None:
    image = noise((1, 40, 50))
    secret = geotiff(image, "secret.tif", **UTM)
    vrt = (
        '<VRTDataset rasterXSize="50" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    disguised = tmp_path / "innocent.tif"
    disguised.write_text(vrt)
    with pytest.raises(InputError, match="not a TIFF"):
        GeoTiffSource(disguised)
    np.testing.assert_array_equal(GeoTiffSource(disguised, allow_driver="VRT").read(Box(0, 0, 40, 50)), image)
    assert len(GeoTiffSource(disguised, allow_driver="VRT").identity()["sha256"]) == 2, "the files it names count too"
    host = geotiff(image, "host.tif", **UTM)
    host.with_name("host.tif.msk").write_text(vrt)  # GDAL opens this by itself, with any driver
    with pytest.raises(InputError, match=r"host\.tif\.msk is not a TIFF"):
        GeoTiffSource(host)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tif.*does not exist"):
        GeoTiffSource(tmp_path / "none.tif")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(InputError, match="not a TIFF"):
        GeoTiffSource(tmp_path / "empty.tif")
    (tmp_path / "header.tif").write_bytes(b"II*\x00")
    with pytest.raises(InputError, match=r"header\.tif cannot be opened"):
        GeoTiffSource(tmp_path / "header.tif")


@pytest.mark.parametrize("layout", ["tiled", "strips of one row"])
def test_truncated_names_file_and_box_and_the_rest_still_reads(geotiff: Write, noise: Any, layout: str) -> None:
    image = noise((1, 150, 210))
    path = geotiff(image, "t.tif", **UTM, **LAYOUTS[layout])
    with rasterio.open(path) as dataset:  # cut within the pixels, not the directory, which GDAL puts first
        assert dataset.shape == (150, 210)
    os.truncate(path, path.stat().st_size * 6 // 10)
    source = GeoTiffSource(path)
    with pytest.raises(InputError, match=r"t\.tif cannot be read in rows 14\d to 150, columns 0 to 210"):
        source._decode("pixels", Box(140, 0, 150, 210))
    if layout == "tiled":
        np.testing.assert_array_equal(source.read(Box(0, 0, 30, 30)), image[:, :30, :30])
    else:
        with pytest.raises(InputError, match=r"t\.tif cannot be read"):
            source.read(Box(140, 0, 150, 210))


def test_a_truncated_jpeg_tile_is_an_error_not_grey(geotiff: Write, noise: Any) -> None:
    path = geotiff(noise((1, 128, 128)), "j.tif", tiled=True, blockxsize=128, blockysize=128, compress="jpeg", **UTM)
    with tifffile.TiffFile(path, mode="r+") as file:
        length = file.pages[0].databytecounts[0]
        file.pages[0].tags["TileByteCounts"].overwrite([length // 2])
    source = GeoTiffSource(path)
    for _ in range(2):  # nor does it become grey by asking again, or in another thread
        with pytest.raises(InputError, match=r"j\.tif cannot be read.*Premature end"):
            source.read(Box(0, 0, 128, 128))
        with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="Premature end"):
            pool.submit(source.read, Box(0, 0, 128, 128)).result()


def test_a_bomb_is_refused_before_it_is_read(geotiff: Write, noise: Any) -> None:
    path = geotiff(noise((1, 64, 64)), "bomb.tif", tiled=True, blockxsize=64, blockysize=64, compress="deflate", **UTM)
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength", "TileWidth", "TileLength"):
            file.pages[0].tags[tag].overwrite(32768)
    with pytest.raises(InputError, match=r"pieces of 1024 MiB.*256 MiB"):
        GeoTiffSource(path)
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16, "interleave": "band"}
    many = geotiff(noise((2, 64, 64)), "many.tif", **layout, **UTM)
    with tifffile.TiffFile(many, mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(65535)
    with pytest.raises(InputError, match="16777216 are read"):
        GeoTiffSource(many)


def test_one_huge_compressed_strip_is_refused(geotiff: Write, noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = geotiff(noise((1, 150, 210)), "s.tif", **UTM, **LAYOUTS["one strip"])
    monkeypatch.setattr(
        checks, "MAX_BLOCK_BYTES", 31_499
    )  # one byte less than the pixels, which noise does not compress
    with pytest.raises(InputError, match=r"s\.tif is stored in pieces.*TILED=YES"):
        GeoTiffSource(path)


def test_memory_of_the_reader_is_told(geotiff: Write, noise: Any) -> None:
    tiled, strips = (
        GeoTiffSource(geotiff(noise((1, 150, 210)), f"{k}.tif", **UTM, **LAYOUTS[k]))
        for k in ("tiled", "strips of five rows")
    )
    assert tiled.cache_bytes == GDAL_CACHE_BYTES
    assert strips.cache_bytes == GDAL_CACHE_BYTES + ROW_CACHE_BYTES


# ---- handles


def test_a_file_that_is_replaced_is_noticed(geotiff: Write, noise: Any) -> None:
    image = noise((1, 40, 50))
    path = geotiff(image, **UTM)
    source = GeoTiffSource(path)
    other = geotiff(image[:, ::-1], "b.tif", **UTM)
    os.replace(other, path)
    with pytest.raises(ChangedError, match="changed while"):
        source.read(Box(0, 0, 40, 50))
    np.testing.assert_array_equal(GeoTiffSource(path).read(Box(0, 0, 40, 50)), image[:, ::-1])


def test_handles_are_capped_and_closed(geotiff: Write, noise: Any) -> None:
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    sources = [GeoTiffSource(geotiff(noise((1, 40, 50), seed=k), f"{k}.tif", **tiled, **UTM)) for k in range(20)]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for k, source in enumerate(sources):
            np.testing.assert_array_equal(source.read(Box(0, 0, 40, 50)), noise((1, 40, 50), seed=k))
    assert len(os.listdir("/proc/self/fd")) <= before + HANDLES_PER_THREAD


def test_cache_is_set_in_every_thread(geotiff: Write, noise: Any) -> None:
    source = GeoTiffSource(geotiff(noise((1, 40, 50)), **UTM))
    found: list[Any] = []

    def read() -> None:
        source.read(Box(0, 0, 40, 50))
        with gdal(source.name, "read"):
            found.append((get_gdal_config("GDAL_CACHEMAX"), get_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN")))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found == [(GDAL_CACHE_BYTES, "TRUE")]
    assert isinstance(GDAL_CACHE_BYTES, int)


def test_pickled_and_forked_sources_open_their_own_handle(geotiff: Write, noise: Any) -> None:
    image = noise((1, 150, 210))
    source = GeoTiffSource(geotiff(image, tiled=True, blockxsize=64, blockysize=64, compress="deflate", **UTM))
    source.read(Box(0, 0, 10, 10))
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(Box(60, 60, 100, 100)), image[:, 60:100, 60:100])
    child = os.fork()
    if child == 0:  # pragma: no cover
        os._exit(0 if np.array_equal(source.read(Box(60, 60, 150, 200)), image[:, 60:150, 60:200]) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_colours_of_other_interpretations_stay_bands(geotiff: Write, noise: Any) -> None:
    def describe(dataset: Any) -> None:
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined]

    image = noise((3, 40, 50), "uint16")
    source = GeoTiffSource(geotiff(image, "c.tif", describe, **UTM))
    with rasterio.open(source.name) as dataset:
        np.testing.assert_array_equal(source.read(Box(3, 4, 20, 30)), dataset.read(window=Window(4, 3, 26, 17)))
