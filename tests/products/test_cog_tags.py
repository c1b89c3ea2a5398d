"""Uncertainty layers on disk: against rasterio, rio-cogeo, ome-zarr-models, xarray and brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from ome_zarr_models.v05.image import Image
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.products.cog import read_cog, write_cog
from tilepipe.products.label_map import LabelMap, Legend, Measure, label_map_of
from tilepipe.products.labels import Layer, open_label_file
from tilepipe.products.ome_zarr import read_ome_zarr, write_ome_zarr
from tilepipe.products.pyramid import average
from tilepipe.sources.base import Georeference, Resolution

LEGEND = Legend("margin", (), (), 255, Measure(1 / 254, "how sure"))
UTM = Georeference(CRS.from_epsg(32645).to_wkt(), (0.3, 0.0, 300000.1, 0.0, -0.3, 3000000.7))
SITE = CRS.from_wkt('LOCAL_CS["site",LOCAL_DATUM["unknown",32767],UNIT["metre",1]]').to_wkt()


def values_like(shape: tuple[int, int]) -> NDArray[np.uint8]:
    values = np.random.default_rng(0).integers(3, 250, shape, dtype=np.uint8)
    values[40:300, 60:200] = 255
    return values


def layer_of(values: NDArray[np.uint8], place: Georeference | None = UTM) -> LabelMap:
    return label_map_of(values, LEGEND, georeference=place, resolution=Resolution(0.3, 0.3))


def brute_average(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.full((-(-values.shape[0] // 2), -(-values.shape[1] // 2)), 255, np.uint8)
    for y, x in np.ndindex(*out.shape):
        known = [int(v) for v in values[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel() if v != 255]
        out[y, x] = int(sum(known) / len(known) + 0.5) if known else 255
    return out


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_averages_leave_nodata_out(height: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed).choice([0, 1, 2, 253, 254, 255], (height, width)).astype(np.uint8)
    assert np.array_equal(average(values, 255), brute_average(values))


def test_a_cog_with_its_scale(tmp_path: Path) -> None:
    values, path = values_like((700, 905)), tmp_path / "a.margin.tif"
    write_cog(layer_of(values), path)
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    assert [file.name for file in tmp_path.iterdir()] == ["a.margin.tif"]
    known = values[values != 255].astype(float)
    with rasterio.open(path) as file:
        assert (file.scales, file.offsets, file.units, file.nodata) == ((1 / 254,), (0.0,), ("1",), 255)
        assert (file.descriptions, file.colorinterp[0].name) == (("margin",), "gray")
        assert (tuple(file.transform[:6]), file.crs.to_epsg()) == (UTM.transform, 32645)
        assert np.array_equal(file.read(1), values)
        tags = file.tags(1)
        assert tags["MEANING"] == "how sure"
        found = [float(tags[f"STATISTICS_{name}"]) for name in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV")]
        assert np.allclose(found, [known.min(), known.max(), known.mean(), known.std()])
        assert float(tags["STATISTICS_VALID_PERCENT"]) == pytest.approx(100 * known.size / values.size, abs=0.01)
    with rasterio.open(path, overview_level=0) as file:
        assert np.array_equal(file.read(1), brute_average(values))


def test_a_position_that_only_a_side_file_keeps(tmp_path: Path) -> None:
    place = Georeference(SITE, (2.0, 0, 5, 0, -2.0, 7))
    write_cog(layer_of(values_like((64, 64)), place), tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.crs == CRS.from_wkt(SITE)
        assert file.scales == (1 / 254,)


def test_a_layer_without_a_pixel_has_no_statistics(tmp_path: Path) -> None:
    write_cog(layer_of(np.full((20, 30), 255, np.uint8)), tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as file:
        assert not [name for name in file.tags(1) if name.startswith("STATISTICS")]


def test_an_ome_zarr_image_of_averages(tmp_path: Path) -> None:
    values, path = values_like((1500, 1025)), tmp_path / "a.margin.ome.zarr"
    write_ome_zarr(layer_of(values, None), path)
    import zarr

    group = zarr.open_group(path, mode="r", zarr_format=3)
    assert [dataset.path for dataset in Image.from_zarr(group).datasets[0]] == ["0", "1"]
    assert not (path / "labels").exists()
    assert np.array_equal(np.asarray(group["0"]), values)
    assert np.array_equal(np.asarray(group["1"]), average(values, 255))
    assert group.attrs["tilepipe"]["measure"] == [1 / 254, "how sure"]


@pytest.mark.parametrize("product", ["cog", "ome-zarr"])
def test_read_again_lazily_and_never_taken_for_labels(product: str, tmp_path: Path) -> None:
    values, path = values_like((600, 530)), tmp_path / "a"
    write, read = {"cog": (write_cog, read_cog), "ome-zarr": (write_ome_zarr, read_ome_zarr)}[product]
    write(layer_of(values), path)
    layer = Layer(read(path))
    assert np.array_equal(layer.dask.compute(scheduler="synchronous"), values)
    assert layer.map.legend == LEGEND
    assert np.array_equal(layer[5:7, 3], values[5:7, 3])
    assert layer.map.read(Box(0, 0, 1, 1)).shape == (1, 1)
    decoded = xarray.decode_cf(layer.to_xarray().to_dataset())["margin"].compute()
    assert np.isnan(decoded.values[values == 255]).all()
    assert np.allclose(decoded.values[values != 255], values[values != 255] / 254)
    with pytest.raises(InputError, match="holds the layer margin and no labels"):
        open_label_file(path)
