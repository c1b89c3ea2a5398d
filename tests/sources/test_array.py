from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import PIL.Image
import pytest
import rasterio
import torch
import xarray
import zarr
from hypothesis import given
from hypothesis import strategies as st
from rasterio import Affine

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources import array as readers
from tilepipe.sources import dask_chunks
from tilepipe.sources.array import ArraySource
from tilepipe.sources.band_choice import Reader, choose_bands
from tilepipe.sources.bands import bands_of
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.open import open_source

SIDES = st.integers(2, 9)


@given(SIDES, SIDES, st.tuples(st.integers(-20, 20), st.integers(-20, 20)), st.integers(1, 25), st.integers(1, 25))
def test_any_box_is_numpys_reflection(
    height: int, width: int, corner: tuple[int, int], rows: int, columns: int
) -> None:
    image = np.arange(2 * height * width, dtype=np.int16).reshape(2, height, width)
    box = Box(*corner, corner[0] + rows, corner[1] + columns)
    padded = np.pad(image, ((0, 0), (50, 50), (50, 50)), mode="reflect")
    expected = padded[:, 50 + box.y0 : 50 + box.y1, 50 + box.x0 : 50 + box.x1]
    np.testing.assert_array_equal(ArraySource(image).read(box), expected)


def test_it_is_a_source_and_two_axes_are_one_band() -> None:
    source = ArraySource(np.zeros((5, 7), np.uint8), resolution=0.5)
    assert isinstance(source, Source)
    assert source.shape == (1, 5, 7)
    assert source.resolution == Resolution(0.5, 0.5, "m")
    assert source.coarser(1, 1) is source


def test_dask_computes_only_what_a_box_needs() -> None:
    seen = []

    def chunk(block: np.ndarray, block_info: dict[int, dict[str, tuple[int, int, int]]]) -> np.ndarray:
        seen.append(tuple(block_info[0]["chunk-location"]))
        return block + 1

    image = np.random.default_rng(0).integers(0, 100, (3, 40, 60)).astype(np.uint8)
    lazy = da.from_array(image, chunks=(3, 20, 20)).map_blocks(
        chunk, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    source = ArraySource(lazy)
    seen.clear()
    np.testing.assert_array_equal(source.read(Box(2, 25, 18, 38)), image[:, 2:18, 25:38] + 1)
    assert seen == [(0, 0, 1)]


def test_validity_outside_masked_and_not_finite() -> None:
    image = np.ones((2, 4, 4), np.float32)
    image[1, 0, 0] = np.nan
    image[0, 0, 1] = np.inf
    mask = np.ones((4, 4), bool)
    mask[3] = False
    found = ArraySource(image, valid=mask).valid(Box(-1, 0, 4, 4))
    expected = np.ones((5, 4), bool)
    expected[0] = expected[4] = False
    expected[1, :2] = False
    np.testing.assert_array_equal(found, expected)
    assert ArraySource(np.ones((4, 4), np.uint8)).valid(Box(0, 0, 4, 4)) is None
    hidden = np.ma.masked_array(np.ones((1, 4, 4), np.uint8), mask=~mask[None])
    np.testing.assert_array_equal(ArraySource(hidden).valid(Box(0, 0, 4, 4)), mask)


def test_reading_gives_a_copy() -> None:
    image = np.zeros((1, 4, 4), np.uint8)
    ArraySource(image).read(Box(0, 0, 4, 4))[:] = 9
    assert image.max() == 0


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((40, 50, 3), np.uint8), "transpose"),
        (
            np.zeros((150, 170, 5), np.uint8),
            r"\(150, 170, 5\), which looks like \(height, width, bands\).*transpose\(2, 0, 1\)",
        ),
        (np.zeros((17, 18, 16), np.uint8), "transpose"),
        (np.zeros((1, 3, 5, 5), np.uint8), r"array\[0\]"),
        (np.array([[0, 70000]], np.int64), "from 0 to 70000.*float32"),
        (np.array([[-1, 40000]], np.int32), "from -1 to 40000"),
        (np.zeros((3, 5, 5), np.complex64), r"abs\(array\)"),
        (np.zeros((5, 5), [("red", "u1")]), r"array\['red'\]"),
        (np.zeros((5, 5), object), "object"),
        (da.zeros((3, 5, 5), dtype=np.int64, chunks=5), r"int64 pixels.*array.astype\('uint16'\)"),
        (da.zeros((3, 5, 5), dtype=np.uint32, chunks=5), r"array.astype\('int16'\)"),
        (da.ones((9, 9), chunks=3)[da.arange(9, chunks=3) > 3], r"array.compute_chunk_sizes\(\)"),
        (torch.zeros(3, 5, 5, device="meta"), "meta"),
        (torch.zeros(3, 5, 5).to_sparse(), r"to_dense\(\)"),
        (torch.zeros(3, 0, 5), "no pixels"),
        (zarr.array(np.zeros((3, 5, 0), np.uint8)), "no pixels"),
        (np.zeros((2, 3, 5, 5), np.uint8), "4 axes"),
        (np.zeros((3, 0, 5), np.uint8), "no pixels"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ArraySource(array)
    with pytest.raises(InputError, match="valid mask"):
        ArraySource(np.zeros((3, 5, 5), np.uint8), valid=np.ones((5, 4), bool))


def test_identity_follows_pixels_and_mask() -> None:
    image = np.zeros((1, 4, 4), np.uint8)
    other = image.copy()
    other[0, 3, 3] = 1
    mask = np.eye(4, dtype=bool)
    known = [ArraySource(a, valid=v).identity() for a in (image, other) for v in (None, mask, ~mask)]
    assert len({str(k) for k in known}) == 6
    assert ArraySource(image.copy()).identity() == known[0]
    assert ArraySource(da.from_array(image)).identity() == ArraySource(da.from_array(image.copy())).identity()


def test_byte_order_and_pickling() -> None:
    image = np.arange(12, dtype=">u2").reshape(1, 3, 4)
    source = pickle.loads(pickle.dumps(ArraySource(image)))
    assert source.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(source.read(Box(0, 0, 3, 4)), image)


IMAGE = np.random.default_rng(3).integers(0, 200, (3, 20, 30)).astype(np.uint8)
WHOLE = Box(0, 0, 20, 30)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (IMAGE / 7, "float32"),
        (IMAGE.astype(np.float16), "float32"),
        (IMAGE.astype(">f8"), "float32"),
        (IMAGE > 100, "uint8"),
        (IMAGE.astype(np.int64), "uint8"),
        (IMAGE.astype(">i4") * 3, "uint16"),
        (IMAGE.astype(np.uint32) * 300, "uint16"),
        (IMAGE.astype(np.int64) - 100, "int16"),
        ((IMAGE // 2).astype(np.int8), "int16"),
        (IMAGE[:, ::-1, ::-1], "uint8"),
        (np.asfortranarray(IMAGE), "uint8"),
        (IMAGE.astype(">u2"), "uint16"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.dtype.str,
)
def test_dtypes_become_what_is_read_by_rule(given: np.ndarray, read: str) -> None:
    source = ArraySource(given)
    box = Box(3, 4, 15, 28)
    assert source.dtype == np.dtype(read)
    assert source.read(box).dtype == np.dtype(read)
    np.testing.assert_array_equal(source.read(box), given[:, 3:15, 4:28].astype(read))
    assert source.identity() != ArraySource(given.astype(read)).identity() or given.dtype == np.dtype(read)
    if given.dtype.kind in "fb":
        lazy = ArraySource(da.from_array(given, chunks=(1, 7, 9)))
        assert lazy.dtype == np.dtype(read)
        np.testing.assert_array_equal(lazy.read(box), source.read(box))


def test_float64_beyond_float32_is_no_image_data_and_counts_in_the_identity() -> None:
    image = np.array([[1.0, 1e300, -1e300, 16777217.0]])
    source = ArraySource(image)
    np.testing.assert_array_equal(source.valid(Box(0, 0, 1, 4)), [[True, False, False, True]])
    assert source.read(Box(0, 3, 1, 4))[0, 0, 0] == 16777216
    known = source.identity()
    image[0, 0] = np.nextafter(1.0, 2)  # the same in float32
    assert ArraySource(image).identity() != known


def test_masks_of_dask_arrays_count() -> None:
    mask = np.zeros(IMAGE.shape, bool)
    mask[:, :4] = True
    mask[0, 10] = True
    hidden = np.ma.masked_array(IMAGE, mask)
    expected = np.ones((20, 30), bool)
    expected[:4] = False
    known = ArraySource(hidden)
    lazy = ArraySource(da.from_array(hidden, chunks=(3, 6, 30)))
    for source in (known, lazy):
        np.testing.assert_array_equal(source.valid(WHOLE), expected)
        np.testing.assert_array_equal(source.read(WHOLE), IMAGE)
        assert not source.complete
    assert lazy.identity() != ArraySource(da.from_array(IMAGE, chunks=(3, 6, 30))).identity()
    untold = da.from_array(IMAGE, chunks=(3, 6, 30)).map_blocks(
        lambda block: np.ma.masked_equal(block, 7), meta=np.empty((0, 0, 0), np.uint8)
    )
    with pytest.raises(InputError, match="masked arrays, which it does not say"):
        ArraySource(untold).read(WHOLE)


def test_a_dask_array_that_computes_something_else_is_refused() -> None:
    whole = da.from_array(IMAGE, chunks=(3, 20, 30))
    meta = np.empty((0, 0, 0), np.uint8)
    fits = whole.map_blocks(lambda block: block.astype(np.int64), meta=meta)
    np.testing.assert_array_equal(ArraySource(fits).read(WHOLE), IMAGE)
    with pytest.raises(InputError, match=r"computed as .* int64"):
        ArraySource(whole.map_blocks(lambda block: block.astype(np.int64) + 300, meta=meta)).read(WHOLE)
    with pytest.raises(InputError, match=r"computed as \(3, 10, 30\)"):
        ArraySource(whole.map_blocks(lambda block: block[:, ::2], meta=meta)).read(WHOLE)


@pytest.mark.parametrize(
    "given",
    [
        torch.from_numpy(IMAGE),
        torch.from_numpy(IMAGE).float().requires_grad_(),
        torch.from_numpy(IMAGE).to(torch.bfloat16),
        torch.from_numpy(IMAGE.transpose(1, 2, 0).copy()).permute(2, 0, 1),
        zarr.array(IMAGE, chunks=(1, 7, 9)),
        xarray.DataArray(IMAGE, dims=("channel", "y", "x")),
        xarray.DataArray(IMAGE.transpose(2, 1, 0), dims=("X", "Lat", "C")),
        xarray.DataArray(da.from_array(IMAGE.transpose(1, 2, 0)), dims=("latitude", "longitude", "band")),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dims', value.dtype)}",
)
def test_arrays_of_other_libraries_are_read_as_numpys(given: Any) -> None:
    source = open_source(given)
    assert source.shape == IMAGE.shape
    box = Box(-3, 4, 15, 28)
    expected = given.detach().float().numpy() if isinstance(given, torch.Tensor) else IMAGE
    np.testing.assert_array_equal(source.read(box), ArraySource(np.asarray(expected)).read(box))
    np.testing.assert_array_equal(open_source(given, bands=["3", "1"]).read(box), source.read(box)[[2, 0]])


def test_named_axes_decide_and_zarr_may_name_them() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    assert ArraySource(xarray.DataArray(image, dims=("band", "y", "x"))).shape == (20, 30, 3)
    stored = zarr.create_array({}, shape=(20, 30, 3), dtype="u1", dimension_names=("y", "x", "c"), chunks=(9, 9, 3))
    stored[:] = IMAGE.transpose(1, 2, 0)
    np.testing.assert_array_equal(ArraySource(stored).read(WHOLE), IMAGE)
    with pytest.raises(InputError, match="transpose"):
        ArraySource(zarr.array(image))


def test_an_array_with_bands_last_is_named_where_a_model_meets_it() -> None:
    small = open_source(np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"if \(8, 9, 3\) is \(height, width, bands\), give array.transpose\(2, 0, 1\)"
    ):
        choose_bands(small, Reader(3, (), "model"), None)


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        (("time", "band", "y", "x"), r"time \(2\).*array.isel\(time=0\)$"),
        (("time", "z", "y", "x"), r"array.isel\(time=0, z=0\)$"),
        (("time", "y", "x"), r"array.isel\(time=0\), or array.rename\({'time': 'band'}\)"),
        (("dim_0", "dim_1", "dim_2"), r"array.rename"),
    ],
)
def test_other_axes_are_named(dims: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_source(xarray.DataArray(np.zeros((2, 3, 5, 5)[: len(dims)], np.uint8), dims=dims))


def raster(path: Path, transform: Affine, **more: Any) -> Path:
    kind = {"driver": "GTiff", "count": 3, "height": 20, "width": 30, "dtype": "uint8", "crs": "EPSG:32645", **more}
    with rasterio.open(path, "w", transform=transform, **kind) as file:
        file.write(IMAGE)
    return path


def as_rioxarray(path: Path, *, coordinates: bool = True) -> xarray.DataArray:
    """Return a DataArray as rioxarray opens a raster, from what rasterio says."""
    with rasterio.open(path) as file:
        spatial = {
            "crs_wkt": file.crs.to_wkt(),
            "spatial_ref": file.crs.to_wkt(),
            "GeoTransform": " ".join(map(str, file.transform.to_gdal())),
        }
        xs = [file.xy(0, column)[0] for column in range(file.width)]
        ys = [file.xy(row, 0)[1] for row in range(file.height)]
        attrs = {} if file.nodata is None else {"_FillValue": np.uint8(file.nodata)}
        places = {"y": ys, "x": xs} if coordinates else {}
        ref = {"spatial_ref": ((), 0, spatial)}
        return xarray.DataArray(file.read(), {**places, **ref}, ("band", "y", "x"), attrs=attrs)


def test_position_nodata_and_pixel_size_are_those_of_the_raster(tmp_path: Path) -> None:
    north, south = Affine(0.5, 0, 3e5, 0, -0.25, 3e6), Affine(0.5, 0, 3e5, 0, 0.25, 3e6)
    for transform in (north, south):
        path = raster(tmp_path / "a.tif", transform, nodata=7)
        file, array = GeoTiffSource(path), ArraySource(as_rioxarray(path))
        assert array.georeference == file.georeference
        assert array.resolution == file.resolution
        np.testing.assert_array_equal(array.valid(WHOLE), file.valid(WHOLE))
        lazy = ArraySource(as_rioxarray(path).chunk(y=6))
        np.testing.assert_array_equal(lazy.valid(WHOLE), file.valid(WHOLE))
        assert lazy.identity() != ArraySource(as_rioxarray(path).chunk(y=6).drop_attrs()).identity()
    turned = raster(tmp_path / "b.tif", Affine.translation(3e5, 3e6) * Affine.rotation(30) * Affine.scale(0.5, -0.5))
    assert ArraySource(as_rioxarray(turned, coordinates=False)).georeference == GeoTiffSource(turned).georeference


def test_nodata_hides_where_all_bands_hold_it_as_in_a_raster(tmp_path: Path) -> None:
    path = raster(tmp_path / "a.tif", Affine(0.5, 0, 3e5, 0, -0.5, 3e6), nodata=7)
    with rasterio.open(path, "r+") as file:
        pixels = IMAGE.copy()
        pixels[:, 2:5, 3:6] = 7
        file.write(pixels)
    found = ArraySource(as_rioxarray(path)).valid(WHOLE)
    np.testing.assert_array_equal(found, GeoTiffSource(path).valid(WHOLE))
    assert not found[2:5, 3:6].any()
    each = as_rioxarray(path).drop_attrs().assign_attrs(nodatavals=(7, 7, 7))
    np.testing.assert_array_equal(ArraySource(each).valid(WHOLE), found)


def test_a_part_or_a_coarser_array_lies_where_its_coordinates_say(tmp_path: Path) -> None:
    whole = as_rioxarray(raster(tmp_path / "a.tif", Affine(0.5, 0, 3e5, 0, -0.5, 3e6)))
    part = open_source(whole.isel(y=slice(4, None), x=slice(6, None))).georeference
    assert part is not None
    assert part.transform == pytest.approx((0.5, 0, 3e5 + 3, 0, -0.5, 3e6 - 2))
    coarse = open_source(whole.coarsen(y=2, x=2).mean()).georeference
    assert coarse is not None
    assert coarse.transform == pytest.approx((1, 0, 3e5, 0, -1, 3e6))
    single = open_source(whole.isel(y=[3], x=[2])).georeference
    assert single is not None
    assert single.transform == pytest.approx((0.5, 0, 3e5 + 1, 0, -0.5, 3e6 - 1.5))


def test_coordinates_of_corners_are_told_by_the_transform() -> None:
    attrs = {"crs": "epsg:32645", "transform": (10.0, 0.0, 5000.0, 0.0, -10.0, 9000.0)}
    places = {"y": 9000 - 10.0 * np.arange(20), "x": 5000 + 10.0 * np.arange(30)}
    array = xarray.DataArray(IMAGE, places, ("band", "y", "x"), attrs=attrs)
    for part, corner in ((array, (5000.0, 9000.0)), (array.isel(x=slice(3, None)), (5030.0, 9000.0))):
        found = open_source(part).georeference
        assert found is not None
        assert found.transform == (10.0, 0.0, corner[0], 0.0, -10.0, corner[1])
        assert found.crs is not None


def test_what_cannot_be_used_of_a_position_is_said() -> None:
    bent = xarray.DataArray(IMAGE, {"y": np.arange(20.0) ** 2, "x": np.arange(30.0)}, ("band", "y", "x"))
    source = open_source(bent.assign_attrs(crs="nowhere"))
    assert source.georeference is None
    assert "nowhere" in source.notes[0]
    assert "regular grid" in source.notes[1]
    assert open_source(xarray.DataArray(IMAGE, dims=("band", "y", "x"))).georeference is None


def test_names_of_bands_are_found() -> None:
    named = xarray.DataArray(IMAGE, {"band": ["blue", "green", "red"]}, ("band", "y", "x"))
    np.testing.assert_array_equal(open_source(named, bands="R,B").read(WHOLE), IMAGE[[2, 0]])
    said = xarray.DataArray(IMAGE, dims=("band", "y", "x"), attrs={"long_name": ("nir", "red", "green")})
    assert [band.name for band in bands_of(open_source(said))] == ["nir", "red", "green"]


def test_a_file_behind_a_data_array_is_read_by_box(tmp_path: Path) -> None:
    xarray.DataArray(IMAGE, dims=("band", "y", "x"), name="image").to_dataset().to_zarr(
        tmp_path / "a.zarr", consolidated=False
    )
    opened = xarray.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False)["image"]
    source = ArraySource(opened)
    assert source.lazy
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(WHOLE), IMAGE)


class Protocol:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return IMAGE


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Protocol(), r"numpy.asarray\(...\)"),
        (IMAGE.tolist(), r"numpy.asarray\(...\)"),
        (PIL.Image.new("RGB", (5, 5)), r"numpy.asarray\(image\), with .transpose\(2, 0, 1\)"),
        (xarray.Dataset({"red": (("y", "x"), IMAGE[0])}), r"dataset.to_dataarray\('band'\)"),
        (3, "path, an array or a source"),
    ],
    ids=["protocol", "list", "picture", "dataset", "number"],
)
def test_what_only_holds_an_array_is_told_how_to_give_it(given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_source(given)


def test_no_library_is_needed_for_it() -> None:
    code = "import sys; sys.modules['xarray'] = None; import numpy; from tilepipe.sources.open import open_source; "
    code += "print(open_source(numpy.zeros((3, 5, 5))).shape)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "(3, 5, 5)"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_a_stated_transform_that_places_no_pixels_is_said_and_not_used(bad: float) -> None:
    attrs = {"crs": "epsg:32645", "transform": (bad, 0.0, 5000.0, 0.0, -10.0, 9000.0)}
    source = open_source(xarray.DataArray(IMAGE, dims=("band", "y", "x"), attrs=attrs))
    assert source.georeference is not None
    assert source.georeference.transform is None
    assert "places no pixels" in source.notes[0]


@given(data=st.data())
def test_large_chunks_are_put_together_one_by_one(data: st.DataObject) -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 50, 60), dtype=np.uint8)
    chunks = ((3, 1), data.draw(st.sampled_from([(50,), (7, 40, 3)])), data.draw(st.sampled_from([(60,), (20, 1, 39)])))
    hidden = np.ma.masked_array(image, np.random.default_rng(1).random(image.shape) > 0.3)
    top, left = data.draw(st.integers(0, 49)), data.draw(st.integers(0, 59))
    box = Box(top, left, data.draw(st.integers(top + 1, 50)), data.draw(st.integers(left + 1, 60)))
    for array in (image, hidden):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dask_chunks, "LARGE_PIECE_BYTES", 0)
            source = ArraySource(da.from_array(array, chunks=chunks))
            found, valid = source.read(box), source.valid(box)
        expected = ArraySource(array)
        np.testing.assert_array_equal(found, expected.read(box))
        assert (valid is None) == (expected.valid(box) is None)
        if valid is not None:
            np.testing.assert_array_equal(valid, expected.valid(box))


def test_one_thread_computes_a_large_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_chunks, "LARGE_PIECE_BYTES", 8 * 3 * 20 * 20 - 1)
    busy, most = threading.Semaphore(4), []

    def slow(block: Any) -> Any:
        with busy:
            most.append(4 - busy._value)
            time.sleep(0.01)
            return block + 1

    source = ArraySource(da.zeros((3, 40, 40), chunks=(3, 20, 20), dtype=np.uint8).map_blocks(slow, dtype=np.uint8))
    most.clear()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(source.read, [Box(0, 0, 40, 40)] * 4))
    assert all((part == 1).all() for part in parts)
    assert (max(most), len(most)) == (1, 4)  # each chunk once, for all four threads


def test_large_chunks_count_with_what_they_are_made_of() -> None:
    def cache(side: int, dtype: str) -> int:
        return ArraySource(da.zeros((3, 8192, 8192), chunks=(3, side, side), dtype=dtype)).cache_bytes

    kept = dask_chunks.KEPT_BYTES
    assert cache(256, "uint8") == cache(512, "uint8") == readers.USUAL_BYTES + kept
    assert cache(2048, "uint8") == 3 * 2048 * 2048 * 2 * (8 + 1) + kept
    assert cache(4096, "float32") == 3 * 4096 * 4096 * 2 * (8 + 4)  # too large to be kept


def counted(counts: Counter[tuple[int, ...]], image: Any, chunks: Any) -> Any:
    """Return an image as a dask array that counts how often each of its chunks is computed."""

    def load(block_info: Any) -> Any:
        counts[tuple(block_info[None]["chunk-location"])] += 1
        return image[tuple(slice(*part) for part in block_info[None]["array-location"])]

    return da.map_blocks(load, chunks=chunks, dtype=image.dtype, meta=np.empty((0, 0, 0), image.dtype))


def test_a_chunk_is_computed_once_however_often_it_is_read() -> None:
    image = np.random.default_rng(0).random((2, 40, 60)).astype(np.float32)
    image[:, 3, 4] = np.nan
    counts: Counter[tuple[int, ...]] = Counter()
    source = ArraySource(counted(counts, image, ((2,), (13, 27), (40, 20))))
    source.identity()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(source.read, [Box(y, 0, y + 10, 60) for y in range(0, 30, 3)] * 3))
        masks = list(pool.map(source.valid, [Box(0, 0, 40, 60)] * 4))
    np.testing.assert_array_equal(parts[1], image[:, 3:13])
    assert all((mask == np.isfinite(image[0])).all() for mask in masks if mask is not None)
    assert set(counts.values()) == {1}
    assert len(counts) == 4


def test_a_nodata_value_costs_no_further_computation() -> None:
    counts: Counter[tuple[int, ...]] = Counter()
    image = IMAGE.copy()
    image[:, 2, 5] = 7
    lazy = counted(counts, image, ((3,), (20,), (30,)))
    source = ArraySource(xarray.DataArray(lazy, dims=("band", "y", "x"), attrs={"_FillValue": 7}))
    source.identity()
    np.testing.assert_array_equal(source.valid(WHOLE), (image != 7).any(axis=0))
    np.testing.assert_array_equal(source.read(WHOLE), image)
    assert counts == {(0, 0, 0): 1}


def test_chunks_that_are_kept_take_no_more_than_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_chunks, "KEPT_BYTES", 2 * 3 * 5 * 30)
    counts: Counter[tuple[int, ...]] = Counter()
    source = ArraySource(counted(counts, IMAGE, ((3,), (5,) * 4, (30,))))
    for _ in range(2):
        np.testing.assert_array_equal(source.read(WHOLE), IMAGE)
        assert source._chunks is not None
        assert sum(chunk.nbytes for chunk in source._chunks._kept.values()) <= 2 * 3 * 5 * 30
    assert max(counts.values()) == 2
    monkeypatch.setattr(dask_chunks, "KEPT_BYTES", 10)
    np.testing.assert_array_equal(source.read(WHOLE), IMAGE)
    assert pickle.loads(pickle.dumps(ArraySource(IMAGE))).read(WHOLE).shape == IMAGE.shape


def test_the_callers_scheduler_computes_and_a_copy_elsewhere_does_not_use_it() -> None:
    names: list[str] = []

    def here(block: Any) -> Any:
        names.append(threading.current_thread().name)
        return block

    lazy = da.from_array(IMAGE, chunks=(3, 10, 30)).map_blocks(here, meta=np.empty((0, 0, 0), np.uint8))
    with ThreadPoolExecutor(1, thread_name_prefix="callers") as pool, dask.config.set(scheduler="threads", pool=pool):
        ArraySource(lazy).read(WHOLE)
        assert set(names) == {"callers_0"}
        names.clear()
        cloudpickle.loads(cloudpickle.dumps(ArraySource(lazy))).read(WHOLE)
    ArraySource(lazy).read(WHOLE)
    assert set(names) <= {"MainThread"}
