"""Maps over the image: every value lies where the image's pixel lies, at every level and in every kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.errors import InputError, UsageError
from tilepipe.products import ome_zarr
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LABELS, LabelMap, Legend, Measure, label_map_of
from tilepipe.products.ome_zarr import write_ome_zarr
from tilepipe.products.smaller import smaller_maps
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference
from tilepipe.view.map_tiles import SIDE, MapTiles
from tilepipe.view.opened import TRUTH, Truth, open_maps
from tilepipe.view.places import least_certain
from tilepipe.view.small_map import SmallMap

RNG = np.random.default_rng(3)
LEGEND = Legend("things", ("background", "tree", "road"), ((0, 0, 0), (1, 200, 3), (250, 5, 6)), 255)
IMAGE = ArraySource(np.zeros((1, 700, 600), np.uint8))
PLACE = Georeference(rasterio.CRS.from_epsg(32633).to_wkt(), (2.0, 0.0, 100.0, 0.0, -2.0, 900.0))
VALUES = RNG.choice(np.array([0, 1, 2, 255], np.uint8), (700, 600))


def values(tiles: MapTiles, level: int, row: int, column: int) -> NDArray[Any]:
    found = tiles.tile(level, row, column)
    assert found is not None
    return np.frombuffer(found, f"<u{tiles.map.dtype.itemsize}").reshape(SIDE, SIDE)


def padded(array: NDArray[Any], row: int, column: int, nodata: int = 255) -> NDArray[Any]:
    """Return a tile of an array with one more value on each side; nodata beyond the array."""
    whole = np.full((array.shape[0] + 2000, array.shape[1] + 2000), nodata, array.dtype)
    whole[1 : array.shape[0] + 1, 1 : array.shape[1] + 1] = array
    return whole[row * 512 : row * 512 + SIDE, column * 512 : column * 512 + SIDE]


@pytest.mark.parametrize("product", ["tif", "ome.zarr"])
def test_tiles_of_every_level_are_those_of_the_product(
    tmp_path: Path, product: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_zarr, "CHUNK", 512)
    found = label_map_of(VALUES, LEGEND, georeference=PLACE)
    path = tmp_path / f"labels.{product}"
    (write_cog if product == "tif" else write_ome_zarr)(found, path)
    tiles = open_maps(IMAGE, path, None).tiles[LABELS]
    for row, column in ((0, 0), (1, 1)):
        np.testing.assert_array_equal(values(tiles, 0, row, column), padded(VALUES, row, column))
    if product == "tif":
        with rasterio.open(path, overview_level=0) as file:
            halves = file.read(1)
    else:
        import zarr

        halves = np.asarray(zarr.open_array(path / "labels" / "things" / "1", mode="r")[:])
    np.testing.assert_array_equal(values(tiles, 1, 0, 0), padded(halves, 0, 0))
    assert tiles.tile(0, 9, 9) is None


def test_smaller_maps_are_those_of_the_file_and_no_others(tmp_path: Path) -> None:
    write_cog(label_map_of(VALUES, LEGEND), tmp_path / "a.tif")
    found = smaller_maps(tp.open_labels(tmp_path / "a.tif").map, tmp_path / "a.tif")
    assert [level.shape for level in found] == [(700, 600), (350, 300)]
    assert [level.scale for level in found] == [(1, 1), (2, 2)]


@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.5, 4), st.integers(-20, 60), st.integers(0, 3))
def test_a_pixel_has_the_value_under_its_centre(height: int, width: int, scale: float, start: int, level: int) -> None:
    array = RNG.integers(0, 200, (height, width), dtype=np.uint8)
    found = label_map_of(array, LEGEND, origin=(start, 2 * start), scale=(scale, 2 * scale))
    tiles = MapTiles([found], (5000, 5000))
    tile = tiles.tile(level, 0, 0)
    got = np.full((SIDE, SIDE), 255, np.uint8) if tile is None else np.frombuffer(tile, np.uint8).reshape(SIDE, SIDE)
    for y, x in ((0, 0), (3, 7), (40, 20), (60, 61), (513, 513)):
        row = int(np.floor(((y - 0.5) * 2**level - start) / scale))
        column = int(np.floor(((x - 0.5) * 2**level - 2 * start) / (2 * scale)))
        inside = 0 <= row < height and 0 <= column < width
        assert got[y, x] == (array[row, column] if inside else 255)


def test_the_value_at_a_pixel_is_exact() -> None:
    tiles = MapTiles([label_map_of(VALUES, LEGEND, origin=(10, 20))], (800, 800))
    assert all(tiles.at(y + 10, x + 20) == VALUES[y, x] for y, x in ((0, 0), (5, 500), (699, 599)))
    assert tiles.at(9, 20) == tiles.at(10, 19) == tiles.at(710, 20) == 255


def test_a_smaller_version_in_memory_is_that_of_the_product(tmp_path: Path) -> None:
    whole = label_map_of(VALUES, LEGEND, georeference=PLACE)
    write_cog(whole, tmp_path / "a.tif")
    small = SmallMap(whole)
    assert (small.map.read(tp.Box(0, 0, 350, 300)) == 255).all()
    small.fill()
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as file:
        np.testing.assert_array_equal(small.map.read(tp.Box(0, 0, 350, 300)), file.read(1))
    parts = SmallMap(whole)
    for box in (tp.Box(0, 0, 301, 1100), tp.Box(301, 0, 1300, 555), tp.Box(301, 555, 700, 600)):
        parts.add([box])
    np.testing.assert_array_equal(parts._values, small._values)


def placed(array: NDArray[Any], path: Path, **changed: Any) -> Path:
    profile = {"transform": rasterio.Affine(2, 0, 100, 0, -2, 900), "crs": "EPSG:32633", **changed}
    with rasterio.open(path, "w", "GTiff", array.shape[1], array.shape[0], 1, dtype=array.dtype, **profile) as file:
        file.write(array, 1)
    return path


def test_labels_of_another_program_are_shown_as_they_are(tmp_path: Path) -> None:
    array = VALUES.astype(np.int16)
    array[:5] = -7
    tiles = open_maps(IMAGE, placed(array, tmp_path / "theirs.tif"), None).tiles[LABELS]
    wanted = np.where(array < 0, 65535, array).astype(np.uint16)
    np.testing.assert_array_equal(values(tiles, 0, 0, 0), padded(wanted, 0, 0, 65535))
    with pytest.raises(UsageError, match="of 699 x 600 pixels are not on the grid"):
        open_maps(IMAGE, placed(array[1:], tmp_path / "part.tif"), None)


def test_truth_has_the_classes_of_the_labels(tmp_path: Path) -> None:
    write_cog(label_map_of(VALUES, LEGEND), tmp_path / "a.tif")
    truth = np.where(VALUES == 255, 9, VALUES + 10).astype(np.uint8)
    file = placed(truth, tmp_path / "truth.tif")
    tiles = open_maps(IMAGE, tmp_path / "a.tif", Truth(file, {10: 0, 11: 1, 12: 2}, 9)).tiles[TRUTH]
    np.testing.assert_array_equal(values(tiles, 0, 1, 1), padded(VALUES.astype(np.uint16), 1, 1))
    with pytest.raises(InputError, match=r"holds the value (9|1[012]), which is no class"):
        open_maps(IMAGE, tmp_path / "a.tif", Truth(file)).tiles[TRUTH].tile(0, 0, 0)
    with pytest.raises(UsageError, match="shown beside labels"):
        open_maps(IMAGE, None, Truth(file))


def test_labels_of_another_image_are_refused(tmp_path: Path) -> None:
    write_cog(label_map_of(VALUES, LEGEND, georeference=PLACE), tmp_path / "a.tif")
    elsewhere = placed(VALUES, tmp_path / "image.tif", transform=rasterio.Affine(2, 0, 500, 0, -2, 900))
    with pytest.raises(UsageError, match="is not the image of"):
        open_maps(tp.open_source(elsewhere), tmp_path / "a.tif", None)
    with pytest.raises(UsageError, match="is not the image of"):
        open_maps(ArraySource(np.zeros((1, 20, 20), np.uint8)), tmp_path / "a.tif", None)


def layer(codes: NDArray[np.uint8], name: str = "margin") -> LabelMap:
    return label_map_of(codes, Legend(name, (), (), 255, Measure(1 / 254, "")), origin=(100, 200), scale=(2.0, 2.0))


@pytest.mark.parametrize("name", ["margin", "entropy"])
def test_the_least_certain_places_are_found(name: str) -> None:
    codes = np.full((1000, 900), 200, np.uint8)
    codes[128:192, 64:128] = 10
    codes[640:704, 832:896] = 30
    codes[640:700, 0:64] = 20
    codes[700:704, 0:64] = 255
    codes[320:352, 320:384] = 0  # half of its square: the rest is nodata, and a place with less than half counts not
    codes[352:384, 320:384] = 255
    codes[512:576, 512:576] = 255
    codes[512:520, 512:576] = 0
    codes = codes if name == "margin" else np.where(codes == 255, 255, 254 - codes).astype(np.uint8)
    found = least_certain(MapTiles([layer(codes, name)], (2200, 2200)))
    centres = [(100 + 2 * y, 200 + 2 * x) for y, x in ((352, 352), (160, 96), (672, 32), (672, 864))]
    assert [place[:2] for place in found[:4]] == centres
    worst = [0, 10, 20, 30] if name == "margin" else [254, 244, 234, 224]
    assert [place[2] for place in found[:4]] == pytest.approx([code / 254 for code in worst], abs=1e-4)
    assert len(found) == 50 or all(
        abs(a[0] - b[0]) > 128 or abs(a[1] - b[1]) > 128 for a in found for b in found if a != b
    )


def test_places_of_an_empty_layer_are_none() -> None:
    assert least_certain(MapTiles([layer(np.full((100, 100), 255, np.uint8))], (400, 400))) == []


def test_layers_beside_the_labels_are_shown(tmp_path: Path) -> None:
    write_cog(label_map_of(VALUES, LEGEND), tmp_path / "a.tif")
    write_cog(label_map_of(VALUES, Legend("margin", (), (), 255, Measure(1 / 254, ""))), tmp_path / "a.margin.tif")
    write_cog(
        label_map_of(VALUES[1:], Legend("entropy", (), (), 255, Measure(1 / 254, ""))), tmp_path / "a.entropy.tif"
    )
    assert list(open_maps(IMAGE, tmp_path / "a.tif", None).tiles) == [LABELS, "margin"]
