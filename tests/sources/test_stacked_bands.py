"""Bands that lie in several files, as those of Sentinel-2 do."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.open import image_files, open_source
from tilepipe.sources.resample import Resampled
from tilepipe.sources.stacked_bands import band_of
from tilepipe.testing import local_mean_model

SIDE = 120
WHOLE = Box(0, 0, SIDE, SIDE)
RNG = np.random.default_rng(3)
SIDES = {"B02": SIDE, "B03": SIDE, "B8A": SIDE // 2, "B11": SIDE // 2, "B09": SIDE // 6}
BANDS = {name: RNG.integers(1, 9000, (1, side, side)).astype("uint16") for name, side in SIDES.items()}


def write(folder: Path, name: str, pixels: Any, left: float = 600000, **profile: Any) -> Path:
    folder.mkdir(exist_ok=True)
    size = 1200 / pixels.shape[1]
    where = {"crs": "EPSG:32631", "transform": rasterio.Affine(size, 0, left, 0, -size, 5700000)}
    known = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    path = folder / f"T31UDQ_20200101T105441_{name}_{size:.0f}m.tif"
    with rasterio.open(path, "w", **{"driver": "GTiff", **known, **where, **profile}) as file:
        file.write(pixels)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, pixels in BANDS.items():
        write(tmp_path / "s2", name, pixels, nodata=0)
    return tmp_path / "s2"


def test_bands_are_stacked_on_the_finest_grid(folder: Path) -> None:
    source = open_source(folder)
    assert source.shape == (5, SIDE, SIDE)
    assert source.dtype == np.uint16
    names = [str(band) for band in getattr(source, "file_bands", ())]
    assert names == ["B02", "B03", "B8A", "B09", "B11"]
    found = source.read(WHOLE)
    for row, name in enumerate(names):
        alone = open_source(next(folder.glob(f"*_{name}_*")))
        expected = alone if alone.shape[1] == SIDE else Resampled(alone, SIDE, SIDE)
        np.testing.assert_array_equal(found[row : row + 1], expected.read(WHOLE))
    np.testing.assert_array_equal(source.read(Box(-5, 7, 50, 90)), np.pad(
        found, ((0, 0), (5, 0), (0, 0)), "reflect")[:, :55, 7:90])  # fmt: skip
    assert source.georeference is not None
    assert source.georeference.transform == (10, 0, 600000, 0, -10, 5700000)
    assert "B09 has 20 x 20 pixels and is resampled" in " ".join(getattr(source, "notes", ()))
    assert pickle.loads(pickle.dumps(source)).identity() == source.identity()
    assert len(image_files(source)) == 5


def test_bands_are_picked_by_name_and_coarse_bands_keep_their_grid(folder: Path) -> None:
    fine = open_source(folder, bands="B03,B2")
    np.testing.assert_array_equal(fine.read(WHOLE), np.concatenate([BANDS["B03"], BANDS["B02"]]))
    coarse = open_source(folder, bands="B11,B8A")
    np.testing.assert_array_equal(coarse.read(Box(0, 0, 60, 60)), np.concatenate([BANDS["B11"], BANDS["B8A"]]))
    assert coarse.identity() != fine.identity()
    labels = tp.predict(folder, local_mean_model(bands=2), tile=64, bands="B11,B8A")
    assert labels.shape == (60, 60)


def test_the_order_of_files_is_none_that_a_model_was_trained_on(tmp_path: Path) -> None:
    """B02, B03, B04 are blue, green, red: a model of red, green, blue would take them the wrong way round."""
    bands = [RNG.integers(1, 9000, (1, SIDE, SIDE)).astype("uint16") for _ in range(3)]
    for numbered, colour, pixels in zip(("B02", "B03", "B04"), ("blue", "green", "red"), bands, strict=True):
        write(tmp_path / "numbers", numbered, pixels)
        write(tmp_path / "others", numbered.replace("3", "5"), pixels)
        write(tmp_path / "colours", colour, pixels)
    model, how = local_mean_model(bands=3), {"tile": 64, "overlap": 16}
    with pytest.raises(
        InputError, match=r"has the bands B02, B03, B04.*`bands=\['B04', 'B03', 'B02'\]` for red, green"
    ):
        tp.plan(tmp_path / "numbers", model, **how)
    rows = {row.name: row for row in tp.plan(tmp_path / "others", model, **how).fit_table}
    assert rows["bands"].state == "warning"
    assert "in the order B02, B04, B05" in rows["bands"].text
    assert "bands=['B05', 'B04', 'B02']" in rows["bands"].text
    told = {row.name: row for row in tp.plan(tmp_path / "numbers", model, bands="B04,B03,B02", **how).fit_table}
    assert told["bands"].state == "ok"
    same = tp.plan(tmp_path / "colours", model, **how)
    assert "bands red, green, blue are read in this order" in next(r.text for r in same.fit_table if r.name == "bands")


@pytest.mark.parametrize("names", [("B02", "B03", "B04"), ("blue", "green", "red")])
def test_one_file_that_calls_its_bands_blue_green_red_is_warned_about(names: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path / "one", "all", RNG.integers(1, 9000, (3, SIDE, SIDE)).astype("uint16"))
    model, how = local_mean_model(bands=3), {"tile": 64, "overlap": 16}
    for order, state in ((names, "warning"), (names[::-1], "ok")):
        with rasterio.open(path, "r+") as file:
            file.descriptions = order
        (row,) = [row for row in tp.plan(path, model, **how).fit_table if row.name == "bands"]
        assert row.state == state
        assert ("which is blue, green, red" in row.text) == (state == "warning")
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    (row,) = [row for row in tp.plan(path, model, bands=names[::-1], **how).fit_table if row.name == "bands"]
    assert row.state == "ok"


def test_more_bands_than_the_model_reads_are_refused_with_red_green_and_blue_to_type(tmp_path: Path) -> None:
    for name in ("B02", "B03", "B04", "B8A"):
        write(tmp_path / "s2", name, BANDS["B02"])
    with pytest.raises(InputError, match=r"has 4 bands .* reads 3; .*`bands=\['B04', 'B03', 'B02'\]` are red, green"):
        tp.predict(tmp_path / "s2", local_mean_model(bands=3), tile=64)


def test_each_band_may_be_a_mosaic(tmp_path: Path) -> None:
    whole = {name: np.concatenate([pixels, pixels[:, ::-1]], axis=2) for name, pixels in BANDS.items()}
    for name, pixels in whole.items():
        side = pixels.shape[1]
        for k in range(2):
            path = write(tmp_path / "tiles", name, pixels[:, :, k * side : (k + 1) * side], 600000 + 1200 * k)
            path.rename(path.with_name(f"{k}_{path.name}"))
    source = open_source(tmp_path / "tiles")
    assert source.shape == (5, SIDE, 2 * SIDE)
    np.testing.assert_array_equal(
        source.read(Box(0, 0, SIDE, 2 * SIDE))[:2], np.concatenate([whole["B02"], whole["B03"]])
    )
    assert source.valid(Box(0, 0, SIDE, 2 * SIDE)) is None


def test_a_pixel_is_nodata_if_all_bands_are(tmp_path: Path) -> None:
    dark = {name: pixels.copy() for name, pixels in BANDS.items() if pixels.shape[1] == SIDE}
    dark["B02"][:, :40], dark["B03"][:, :, :30] = 0, 0
    for name, pixels in dark.items():
        write(tmp_path / "s2", name, pixels, nodata=0)
    expected = np.ones((SIDE, SIDE), bool)
    expected[:40, :30] = False
    np.testing.assert_array_equal(open_source(tmp_path / "s2").valid(WHOLE), expected)


def test_what_is_not_one_image_is_refused(folder: Path) -> None:
    last = write(folder, "B12", BANDS["B11"], left=600020)
    with pytest.raises(InputError, match=r"\(B12\) covers x 600020 to 601220.*gdalwarp -te"):
        open_source(folder)
    last.unlink()
    write(folder, "B12", BANDS["B11"].astype("uint8"))
    with pytest.raises(InputError, match=r"\(B12\) has pixels of type uint8"):
        open_source(folder)


def test_files_of_one_place_without_names_of_bands_are_refused(tmp_path: Path) -> None:
    for day in ("20200101", "20200111"):
        write(tmp_path / "days", "B02", BANDS["B02"]).rename(tmp_path / "days" / f"{day}.tif")
    with pytest.raises(InputError, match=r"all 2 files, from 20200101\.tif to 20200111\.tif, cover the same ground"):
        open_source(tmp_path / "days")


@pytest.mark.parametrize(
    ("path", "band"),
    [
        ("T31UDQ_20200101T105441_B8A_20m.tif", "B8A"), ("LC08_L2SP_198024_20200101_02_T1_SR_B4.TIF", "B4"),
        ("B02.tif", "B02"), ("scene-nir08.tif", "nir08"), ("a/red.tif", "red"), ("redwood_1.tif", ""), ("AB12.tif", ""),
        ("tile_3_4.tif", ""), ("scene_rededge1.tif", "rededge1"),
    ],
)  # fmt: skip
def test_names_of_bands(path: str, band: str) -> None:
    assert band_of(path) == band
