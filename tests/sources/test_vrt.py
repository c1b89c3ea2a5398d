"""Virtual rasters, read by our own parser and compared with GDAL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.cut_files import COLUMNS, PIXELS, ROWS, cut, write
from rasterio.shutil import copy

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.open import open_source
from tilepipe.testing import local_mean_model

SHAPE = (140, 200)
PLACE = "<GeoTransform>400000, 0.5, 0, 3000000, 0, -0.5</GeoTransform>"


def source(name: str, band: int, to: tuple[int, int], box: tuple[int, int, int, int], more: str = "") -> str:
    """Return a source that draws `box` (y, x, height, width) of a file at `to` (y, x)."""
    y, x, height, width = box
    size = f'xSize="{width}" ySize="{height}"'
    kind = "ComplexSource" if more else "SimpleSource"
    return (
        f'<{kind}><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
        f'<SrcRect xOff="{x}" yOff="{y}" {size}/><DstRect xOff="{to[1]}" yOff="{to[0]}" {size}/>{more}</{kind}>'
    )


def vrt(path: Path, bands: Sequence[str], attributes: str = 'dataType="Byte"') -> Path:
    """Write a VRT with the content of each band."""
    drawn = "".join(f'<VRTRasterBand {attributes} band="{k}">{band}</VRTRasterBand>' for k, band in enumerate(bands, 1))
    srs = "<SRS>EPSG:32645</SRS>"
    path.write_text(f'<VRTDataset rasterXSize="{SHAPE[1]}" rasterYSize="{SHAPE[0]}">{srs}{PLACE}{drawn}</VRTDataset>')
    return path


def tiles(folder: Path, band: int, more: str = "") -> str:
    """Return sources of all files of `cut`, which reach over the edges of the VRT, and one that lies outside."""
    found = [source("tiles/t_000_000.tif", band, (SHAPE[0] + 5, 0), (0, 0, 64, 70), more)]
    for file in sorted((folder / "tiles").glob("*.tif")):
        with rasterio.open(file) as opened:
            to = round((3000000 - opened.transform.f) * 2), round((opened.transform.c - 400000) * 2)
            found.append(source(f"tiles/{file.name}", band, to, (0, 0, opened.height, opened.width), more))
    return "".join(found)


def compare(path: Path) -> tp.Source:
    """Compare a VRT with what GDAL reads from it."""
    found, whole = open_source(path), Box.of_shape(*SHAPE)
    with rasterio.open(path) as opened:
        assert found.shape == (opened.count, *opened.shape)
        assert found.georeference is not None
        assert found.georeference.transform == tuple(opened.transform)[:6]
        np.testing.assert_array_equal(found.read(whole), opened.read())
        valid = found.valid(whole)
        np.testing.assert_array_equal(opened.dataset_mask() > 0, True if valid is None else valid)
    return found


def test_a_vrt_of_tiles_is_what_gdal_reads(tmp_path: Path) -> None:
    cut(tmp_path / "tiles", ROWS, COLUMNS, overlap=4)
    path = vrt(tmp_path / "all.vrt", [tiles(tmp_path, band) for band in (3, 1, 2)])
    compare(path)
    one = write(tmp_path / "one.tif", Box(0, 0, *SHAPE), PIXELS[[2, 0, 1]])
    model = local_mean_model(bands=3)
    np.testing.assert_array_equal(tp.predict(path, model, tile=64), tp.predict(one, model, tile=64))
    assert tp.segment(path, model).paths[0].name == "all.labels.tif"


def test_pieces_of_files_lie_where_they_are_drawn(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", Box(0, 0, 100, 100))
    drawn = source("a.tif", 1, (0, 0), (0, 0, 100, 100)) + source("a.tif", 1, (20, 30), (50, 10, 40, 60))
    everywhere = source("a.tif", 1, (0, 100), (0, 0, 100, 100)) + source("a.tif", 1, (100, 0), (7, 0, 40, 100))
    found = open_source(vrt(tmp_path / "v.vrt", [drawn + everywhere]))
    with rasterio.open(tmp_path / "v.vrt") as opened:
        np.testing.assert_array_equal(found.read(Box.of_shape(*SHAPE)), opened.read())
    expected = np.ones(SHAPE, bool)
    expected[100:, 100:] = False  # GDAL has no word for pixels that no file covers, and says that they are data
    np.testing.assert_array_equal(found.valid(Box.of_shape(*SHAPE)), expected)


def test_nodata_of_a_vrt(tmp_path: Path) -> None:
    holes = np.where(np.random.default_rng(0).random((150, 210)) < 0.4, 0, PIXELS).astype("uint8")
    folder = tmp_path / "tiles"
    folder.mkdir()
    for k, box in enumerate((Box(0, 0, 80, 210), Box(50, 0, 150, 210))):
        write(folder / f"t_{k}.tif", box, holes if k else 255 - holes)
    bands = [f"<NoDataValue>0</NoDataValue>{tiles_of_two(band, '<NODATA>0</NODATA>')}" for band in (1, 2, 3)]
    found = compare(vrt(tmp_path / "v.vrt", bands))
    picked = open_source(tmp_path / "v.vrt", bands=(2,))
    part = Box(100, 0, 130, 90)
    np.testing.assert_array_equal(picked.valid(part), found.read(part)[1] != 0)
    write(folder / "t_0.tif", Box(0, 0, 80, 210), holes, nodata=7)
    with pytest.raises(InputError, match=r"takes 0\.0 for no data and .*t_0\.tif states 7\.0"):
        open_source(tmp_path / "v.vrt")


def test_other_nodata_in_each_band_of_a_vrt(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", Box(0, 0, 150, 210))
    one = [source("a.tif", band, (0, 0), (0, 0, 150, 210), f"<NODATA>{band}</NODATA>") for band in (1, 2, 3)]
    path = vrt(tmp_path / "v.vrt", [f"<NoDataValue>{k}</NoDataValue>{drawn}" for k, drawn in enumerate(one, 1)])
    with pytest.raises(InputError, match=r"another value in each band, .* gdal_translate -of HFA .* `driver='HFA'`"):
        open_source(path)
    # What the message says is read as GDAL reads it: a pixel holds no data if none of its bands does.
    copy(path, tmp_path / "out.img", driver="HFA")
    with rasterio.open(tmp_path / "out.img") as known:
        assert set(known.nodatavals) == {1, 2, 3}
        expected = known.dataset_mask() > 0
    found = open_source(tmp_path / "out.img", driver="HFA").valid(Box.of_shape(*SHAPE))
    np.testing.assert_array_equal(np.ones(SHAPE, bool) if found is None else found, expected)


def tiles_of_two(band: int, more: str = "") -> str:
    """Return the sources of two files that overlap."""
    first = source("tiles/t_0.tif", band, (0, 0), (0, 0, 80, 210), more)
    return first + source("tiles/t_1.tif", band, (50, 0), (0, 0, 100, 210), more)


def test_bands_of_several_files(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / f"{k}.tif", Box(0, 0, 150, 210), PIXELS[k : k + 1])
    bands = [source(f"{k}.tif", 1, (0, 0), (0, 0, 150, 210)) for k in (2, 0, 1)]
    found = compare(vrt(tmp_path / "v.vrt", bands))
    assert "stacked" in str(found.identity()["reader"])
    picked = open_source(tmp_path / "v.vrt", bands=(3, 1))
    np.testing.assert_array_equal(picked.read(Box(0, 0, 50, 50)), PIXELS[[1, 2], :50, :50])


WHOLE_FILE = source("a.tif", 1, (0, 0), (0, 0, 100, 100))
REFUSED: dict[str, tuple[str, str, str]] = {
    "pixel function": (WHOLE_FILE, 'dataType="Byte" subClass="VRTDerivedRasterBand"', "it has VRTDerivedRasterBand"),
    "raw bytes": ("<ImageOffset>0</ImageOffset>", 'dataType="Byte" subClass="VRTRawRasterBand"', "VRTRawRasterBand"),
    "scaled": (source("a.tif", 1, (0, 0), (0, 0, 9, 9), "<ScaleRatio>2</ScaleRatio>"), "", "it has ScaleRatio"),
    "filtered": ("<KernelFilteredSource/>", "", "it has KernelFilteredSource"),
    "remote": (source("/vsicurl/http://127.0.0.1/a.tif", 1, (0, 0), (0, 0, 9, 9)), "", "which is not on this machine"),
    "resized": (WHOLE_FILE.replace('<DstRect xOff="0" yOff="0" xSize="100"', '<DstRect xOff="0" yOff="0" xSize="50"'),
                "", r"drawn in another size \(100 x 100 pixels as 100 x 50\)"),
    "between": (WHOLE_FILE.replace('<DstRect xOff="0"', '<DstRect xOff="0.5"'), "", r"between pixels \(DstRect 0, 0"),
    "too much": (source("a.tif", 1, (0, 0), (50, 0, 100, 100)), "", r"that are not there; it has 100 x 100 pixels"),
    "band": (source("a.tif", 4, (0, 0), (0, 0, 100, 100)), "", "draws band 4 of .*, which has 3 bands"),
    "type": (WHOLE_FILE, 'dataType="UInt16"', "pixels of type UInt16 and .* pixels of type uint8"),
    "elsewhere": (source("../a.tif", 1, (0, 0), (0, 0, 9, 9)), "", r"which lies in .*`allow="),
    "nothing": (source("b.tif", 1, (0, 0), (0, 0, 9, 9)), "", r"b\.tif does not exist"),
    "damaged": ("<SimpleSource>", "", "is damaged"),
    "a vrt in it": (source("v.vrt", 1, (0, 0), (0, 0, 9, 9)), "", "is not a TIFF file"),
    "no file": ("", "", "a band without files"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_vrt_that_does_more_is_refused(tmp_path: Path, case: str) -> None:
    band, attributes, words = REFUSED[case]
    (tmp_path / "here").mkdir()
    for folder in (tmp_path, tmp_path / "here"):
        write(folder / "a.tif", Box(0, 0, 100, 100))
    path = vrt(tmp_path / "here" / "v.vrt", [band], attributes or 'dataType="Byte"')
    with pytest.raises(InputError, match=words) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    if case == "elsewhere":
        assert open_source(path, allow=tmp_path).shape == (1, *SHAPE)


def test_a_vrt_with_entities_or_another_subclass_is_refused(tmp_path: Path) -> None:
    path = vrt(tmp_path / "v.vrt", [WHOLE_FILE])
    text = path.read_text()
    for changed, words in (
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + text, "defines entities"),
        (text.replace("<VRTDataset", '<VRTDataset subClass="VRTWarpedDataset"'), "it has VRTWarpedDataset"),
        (text.replace("<SRS>", "<PixelFunctionLanguage>Python</PixelFunctionLanguage><SRS>"), "PixelFunctionLanguage"),
    ):
        path.write_text(changed)
        with pytest.raises(InputError, match=words):
            open_source(path)


def test_the_alpha_that_gdalbuildvrt_adds_is_where_files_lie(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", Box(0, 0, 100, 100))
    constant = "<ScaleOffset>255</ScaleOffset><ScaleRatio>0</ScaleRatio>"
    alpha: Any = "<ColorInterp>Alpha</ColorInterp>" + source("a.tif", 1, (0, 0), (0, 0, 100, 100), constant)
    found, whole = open_source(vrt(tmp_path / "v.vrt", [WHOLE_FILE, alpha])), Box.of_shape(*SHAPE)
    with rasterio.open(tmp_path / "v.vrt") as opened:
        np.testing.assert_array_equal(found.valid(whole), opened.dataset_mask() > 0)
