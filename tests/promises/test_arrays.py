"""An array is the image that it holds: the same labels at the same place as from a raster of the same pixels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import torch
import xarray
import zarr
from rasterio import Affine

import tilepipe as tp

SIDE = 96
TRANSFORM = Affine(0.5, 0, 300000, 0, -0.5, 3000000)
IMAGE = np.random.default_rng(5).integers(0, 200, (3, SIDE, SIDE)).astype(np.uint8)


def model() -> tp.Model:
    """Return a model whose class 1 is where the mean of the bands is above 100.5."""
    module = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        module.weight.zero_()
        module.weight[1] = 1 / 3
        module.bias.copy_(torch.tensor([0, -100.5]))
    return tp.Model.from_torch(module, tp.ModelCard(bands=3, classes=["dark", "bright"]))


def located() -> xarray.DataArray:
    centres = (np.arange(SIDE) + 0.5) * 0.5
    places = {"y": 3000000 - centres, "x": 300000 + centres}
    return xarray.DataArray(IMAGE, places, ("band", "y", "x"), attrs={"crs": "EPSG:32645"}).transpose("x", "y", "band")


def xarray_of(array: Any) -> xarray.DataArray:
    return xarray.DataArray(da.asarray(array), dims=("band", "y", "x"))


def test_a_data_array_gives_what_its_raster_gives(tmp_path: Path) -> None:
    kind: dict[str, Any] = {"driver": "GTiff", "count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32645", transform=TRANSFORM, **kind) as file:
        file.write(IMAGE)
    settings: Any = {"tile": 32, "window": (10, 20, 80, 60)}
    tp.segment(tmp_path / "a.tif", model(), tmp_path / "file.tif", **settings)
    for name, image in {"given": located(), "lazy": located().chunk(x=20)}.items():
        assert tp.plan(image, model(), **settings).shape == tp.plan(tmp_path / "a.tif", model(), **settings).shape
        tp.segment(image, model(), tmp_path / f"{name}.tif", **settings)
        with rasterio.open(tmp_path / "file.tif") as wanted, rasterio.open(tmp_path / f"{name}.tif") as found:
            np.testing.assert_array_equal(found.read(), wanted.read())
            assert (found.crs, found.transform) == (wanted.crs, wanted.transform)
    assert tp.verify(tmp_path / "given.tif", image=located(), model=model()).holds


@pytest.mark.parametrize(
    "image",
    [
        IMAGE.astype(np.float64),
        IMAGE.astype(np.float16),
        IMAGE.astype(np.int64),
        IMAGE.astype(">u4"),
        torch.from_numpy(IMAGE),
        zarr.array(IMAGE, chunks=(1, 40, 40)),
        da.from_array(IMAGE.astype(np.float64), chunks=(1, 50, 7)),
    ],
    ids=lambda image: f"{type(image).__name__} {image.dtype}",
)
def test_values_decide_and_not_what_holds_them(image: Any) -> None:
    np.testing.assert_array_equal(tp.predict(image, model()), IMAGE.astype(int).sum(0) > 301)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_data_array_gives_a_data_array_that_aligns_with_it(lazy: bool) -> None:
    image = located().assign_coords(time=np.datetime64("2026-05-01"))
    found = tp.predict(image.chunk(x=20) if lazy else image, model(), tp.Box(10, 20, 40, 70))
    assert isinstance(found, xarray.DataArray)
    assert (found.dims, found.dtype, found.name) == (("y", "x"), np.uint8, "labels")
    part = image.isel(y=slice(10, 40), x=slice(20, 70))
    for axis in ("y", "x", "time"):
        np.testing.assert_array_equal(found[axis], part[axis])
    np.testing.assert_array_equal(found, part.transpose("band", "y", "x").astype(int).sum("band") > 301)
    assert "32645" in found.spatial_ref.attrs["crs_wkt"]
    assert found.spatial_ref.attrs["GeoTransform"] == "300010.0 0.5 0.0 2999995.0 0.0 -0.5"
    assert xarray.align(found, part, join="exact")[0].shape == (30, 50)
    assert found.attrs["flag_meanings"] == "dark bright"


def test_a_data_array_gives_probabilities_logits_and_layers_with_names() -> None:
    image = located().rename(y="Lat", x="Lon", band="C")
    chances = tp.predict(image, model(), returns="probabilities")
    assert (chances.dims, list(chances.band.values)) == (("band", "Lat", "Lon"), ["dark", "bright"])
    np.testing.assert_array_equal(chances.Lat, image.Lat)
    logits = tp.predict(image, model(), returns="logits")
    assert (logits.dims, logits.dtype) == (("band", "Lat", "Lon"), np.float32)
    np.testing.assert_array_equal(logits.argmax("band"), tp.predict(image, model()))
    margin = tp.predict(image, model(), returns="margin")
    assert (margin.dims, margin.attrs["scale_factor"] > 0) == (("Lat", "Lon"), True)


def test_a_data_array_on_the_grid_of_the_model_has_the_centres_of_its_pixels() -> None:
    card = model().card.model_copy(update={"resolution": 1.0, "unit": "m"})
    found = tp.predict(located(), tp.Model(card, model().module), resolution="model")
    assert found.shape == (SIDE // 2, SIDE // 2)
    np.testing.assert_allclose(found.x, 300000 + 0.5 + np.arange(SIDE // 2))
    np.testing.assert_allclose(found.y, 3000000 - 0.5 - np.arange(SIDE // 2))


def test_labels_become_netcdf_and_come_back(tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    result = tp.segment(located(), model(), tmp_path / "labels.tif")
    for name, labels in (("run", result.to_xarray()), ("memory", tp.predict(located(), model()))):
        labels.to_netcdf(tmp_path / f"{name}.nc")
        with xarray.open_dataarray(tmp_path / f"{name}.nc", mask_and_scale=False) as back:
            np.testing.assert_array_equal(back, result.labels[:])
            np.testing.assert_array_equal(back.x, labels.x)
            assert list(np.atleast_1d(back.attrs["flag_values"])) == [0, 1]
            assert "32645" in back.spatial_ref.attrs["crs_wkt"]


@pytest.mark.parametrize("settings", [{"tile": 32}, {"tile": 32, "window_shape": "hann", "overlap": 16}, {}])
def test_each_chunk_of_a_dask_array_is_computed_once_in_a_run(settings: Any, tmp_path: Path) -> None:
    counts: Counter[tuple[int, ...]] = Counter()

    def load(block_info: Any) -> Any:
        counts[tuple(block_info[None]["chunk-location"])] += 1
        return IMAGE[tuple(slice(*part) for part in block_info[None]["array-location"])]

    meta = np.empty((0, 0, 0), np.uint8)
    image = da.map_blocks(load, chunks=((3,), (40, 50, 6), (90, 6)), dtype=np.uint8, meta=meta)
    result = tp.segment(image, model(), tmp_path / "labels.tif", **settings)
    assert counts == Counter(dict.fromkeys(counts, 1))
    assert len(counts) == 6
    assert result.plan.memory.total > image.nbytes
    counts.clear()
    np.testing.assert_array_equal(tp.predict(image, model(), **settings), result.labels[:])
    assert counts == Counter(dict.fromkeys(counts, 1))


@pytest.mark.parametrize("hold", [lambda array: array, tp.open_source, xarray_of], ids=["array", "source", "xarray"])
@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_a_second_call_sees_what_lies_below_a_lazy_array_now(hold: Any, kind: str) -> None:
    """The name of a dask array may stand for other data in the next call, and a Zarr may be written again."""
    below = np.zeros((3, SIDE, SIDE), np.uint8)

    class Below:
        shape, dtype, ndim = below.shape, below.dtype, 3

        def __getitem__(self, where: Any) -> Any:
            return below[where]

    stored = zarr.array(below, chunks=(3, 40, 50))
    image = hold(stored if kind == "zarr" else da.from_array(Below(), chunks=(3, 40, 50), name="same", asarray=False))
    for value, label in ((0, 0), (200, 1), (0, 0)):
        below[:] = value
        stored[:] = value
        for settings in ({}, {"tile": 32}):
            assert (np.asarray(tp.predict(image, model(), **settings)) == label).all(), (value, settings)


def test_chunks_of_unknown_size_are_refused_with_what_to_type() -> None:
    image = da.from_array(IMAGE, chunks=(3, 50, 50))
    unknown = image[:, (image[0] > 300).compute().any(axis=1) | True][:, da.from_array(np.ones(SIDE, bool), chunks=50)]
    with pytest.raises(tp.TilepipeError, match="compute_chunk_sizes"):
        tp.predict(unknown, model())
