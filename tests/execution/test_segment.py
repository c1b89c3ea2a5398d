"""The Python face: results, regions, lazy labels, other formats, and questions that are wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine

import tilepipe as tp
from tilepipe.errors import InputError, ModelError, UsageError
from tilepipe.execution.export import export
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution
from tilepipe.testing import FakeSource, codes_model, noise, random_unet

CODES = np.random.default_rng(0).integers(0, 4, (90, 130), dtype=np.uint8)
CUT: dict[str, Any] = {"tile": 32, "overlap": 8, "block": 40}
PLACE = Affine(0.5, 0, 335000.25, 0, -0.5, 3058000.5)


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    size = {"height": 90, "width": 130, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "codes.tif", "w", driver="GTiff", crs="EPSG:32645", transform=PLACE, **size) as file:
        file.write(CODES, 1)
    return tmp_path / "codes.tif"


def test_labels_of_a_result_are_lazy_and_equal(raster: Path) -> None:
    result = tp.segment(raster, codes_model(4), **CUT)
    assert result.paths == (raster.with_name("codes.labels.tif"),)
    assert isinstance(result.labels.dask, dask.array.Array)
    assert (result.labels.dask.compute(scheduler="synchronous") == CODES).all()
    assert (result.labels[20:30, 40:41] == CODES[20:30, 40:41]).all()
    assert (np.asarray(tp.open_labels(result.paths[0])) == CODES).all()
    assert result.failed == []
    assert result.plan == tp.plan(raster, codes_model(4), **CUT)


def test_xarray_coordinates_are_pixel_centres_in_the_crs(raster: Path) -> None:
    result = tp.segment(raster, codes_model(4), raster.with_name("part.tif"), window=(10, 20, 50, 40), **CUT)
    found = result.to_xarray()
    assert found.dims == ("y", "x")
    assert np.array_equal(found.x, 335000.25 + 0.5 * (10.5 + np.arange(50)))
    assert np.array_equal(found.y, 3058000.5 - 0.5 * (20.5 + np.arange(40)))
    assert (found.values == CODES[20:60, 10:60]).all()
    assert found.attrs["_FillValue"] == 255
    assert rasterio.crs.CRS.from_wkt(found.spatial_ref.attrs["crs_wkt"]).to_epsg() == 32645


def test_polygons_alone_still_give_labels(raster: Path) -> None:
    result = tp.segment(raster, codes_model(4), raster.with_name("all.geojson"), **CUT)
    assert (np.asarray(result.labels.dask) == CODES).all()
    again = tp.segment(raster, codes_model(4), raster.with_name("all.geojson"), **CUT)
    assert (np.asarray(again.labels.dask) == CODES).all()


@pytest.mark.long
def test_several_products_by_one_name(raster: Path) -> None:
    result = tp.segment(raster, codes_model(4), raster.with_name("all"), of=["cog", "ome-zarr", "geojson"], **CUT)
    assert [path.name for path in result.paths] == ["all.tif", "all.ome.zarr", "all.geojson"]
    for path in result.paths[:2]:
        assert (np.asarray(tp.open_labels(path)) == CODES).all()


@pytest.mark.parametrize("kind", ["numpy", "dask", "source"])
def test_arrays_and_sources_stand_for_images(kind: str, tmp_path: Path) -> None:
    image = {"numpy": CODES, "dask": dask.array.from_array(CODES, chunks=50), "source": ArraySource(CODES)}[kind]
    assert (tp.predict(image, codes_model(4), tp.Box(3, 4, 40, 50), **CUT) == CODES[3:40, 4:50]).all()
    with pytest.raises(UsageError, match="an array has no place on disk; name the output"):
        tp.segment(image, codes_model(4), **CUT)


def test_predict_writes_nothing_and_takes_the_whole_image_by_default(raster: Path) -> None:
    before = os.listdir(raster.parent)
    assert (tp.predict(raster, codes_model(4), **CUT) == CODES).all()
    assert os.listdir(raster.parent) == before


def test_predict_takes_every_way_to_name_a_part(raster: Path) -> None:
    found = tp.predict(raster, codes_model(4), window=(10, 20, 50, 40), **CUT)
    assert (found == CODES[20:60, 10:60]).all()
    left, top = PLACE * (10, 20)
    right, bottom = PLACE * (60, 60)
    assert (tp.predict(raster, codes_model(4), bounds=(left, bottom, right, top), **CUT) == found).all()


def test_predict_refuses_what_it_cannot_read() -> None:
    with pytest.raises(InputError, match="rows 5 to 6, columns 0 to 130 are damaged"):
        tp.predict(FakeSource(CODES, damaged=tp.Box(5, 0, 6, 130)), codes_model(4), **CUT)


def test_a_plan_runs_and_writes_nothing(raster: Path) -> None:
    before = os.listdir(raster.parent)
    assert tp.plan(raster, codes_model(4), **CUT).tile_count == 24
    assert os.listdir(raster.parent) == before


@pytest.mark.parametrize("call", ["segment", "predict", "plan"])
def test_an_unknown_setting_names_the_known_ones(call: str, raster: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r"setting 'tiles' is not known; did you mean tile\? There are allow, annotations",
    ):
        getattr(tp, call)(raster, codes_model(4), tiles=32)


def test_wrong_names(raster: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="buildigns"):
        tp.plan(raster, "buildigns")
    with pytest.raises(InputError, match="nowhere"):
        tp.plan(tmp_path / "nowhere.tif", codes_model(4))
    with pytest.raises(UsageError, match="product 'jpeg' is not known; use cog"):
        tp.segment(raster, codes_model(4), of=["jpeg"], **CUT)
    with pytest.raises(InputError, match="nowhere"):
        tp.open_labels(tmp_path / "nowhere.tif")
    with pytest.raises(InputError, match="not a label map"):
        tp.open_labels(raster)


def test_export_to_other_formats(raster: Path) -> None:
    labels = tp.segment(raster, codes_model(4), **CUT).paths[0]
    before = labels.read_bytes()
    made = export(labels, labels.with_name("more"), of=["ome-zarr", "geojson"])
    assert [path.name for path in made] == ["more.ome.zarr", "more.geojson"]
    assert (np.asarray(tp.open_labels(made[0])) == CODES).all()
    assert json.loads(made[1].read_text())["type"] == "FeatureCollection"
    back = export(made[0], labels.with_name("back.tif"))
    assert (np.asarray(tp.open_labels(back[0])) == CODES).all()
    assert labels.read_bytes() == before


def test_export_replaces_only_when_told(raster: Path) -> None:
    labels = tp.segment(raster, codes_model(4), **CUT).paths[0]
    output = labels.with_name("more.geojson")
    output.write_text("old")
    with pytest.raises(UsageError, match="exists"):
        export(labels, output)
    assert output.read_text() == "old"
    export(labels, output, overwrite=True)
    assert json.loads(output.read_text())
    with pytest.raises(UsageError, match="is not written"):
        export(labels, labels.with_name("more.jpeg"))


def test_export_onto_itself_is_refused(raster: Path) -> None:
    labels = tp.segment(raster, codes_model(4), **CUT).paths[0]
    before = labels.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="which is read; give another output"):
            export(labels, labels, overwrite=overwrite)
    assert labels.read_bytes() == before


def test_300_classes_are_uint16_all_the_way(tmp_path: Path) -> None:
    codes = (np.arange(90 * 130).reshape(90, 130) % 300).astype(np.uint16)
    valid = np.ones(codes.shape, bool)
    valid[:10, :10] = False
    image = ArraySource(codes, valid=valid)
    result = tp.segment(image, codes_model(300), tmp_path / "l.tif", window_shape="hann", **CUT)
    found = np.asarray(result.labels.dask)
    assert found.dtype == np.uint16
    assert (found == np.where(valid, codes, 65535)).all()


def test_a_region_of_one_pixel_at_another_resolution() -> None:
    """Of an image that is predicted at 0.3 of its resolution, labelled at full, the model's and a third one."""
    model = codes_model(4)
    card = model.card.model_copy(update={"resolution": 3.3})
    coarse = tp.Model.from_torch(model.module, card)
    image = ArraySource(CODES, resolution=Resolution(1.0, 1.0, "m"))
    for resolution in ("full", "model", 2.2):
        whole = tp.predict(image, coarse, resolution=resolution, **CUT)
        for y, x in ((0, 0), (89, 129), (45, 77)):
            plan = tp.plan(image, coarse, resolution=resolution, region=tp.Box(y, x, y + 1, x + 1), **CUT)
            part = tp.predict(image, coarse, tp.Box(y, x, y + 1, x + 1), resolution=resolution, **CUT)
            box = plan.output_region
            assert (part == whole[box.y0 : box.y1, box.x0 : box.x1]).all()
            assert part.shape == box.shape


def test_nothing_of_the_images_own_format_is_dragged_along(tmp_path: Path) -> None:
    """JPEG in YCbCr with its own nodata and odd blocks in, a plain palette image out."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 96, 160), dtype=np.uint8)
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "jpeg", "photometric": "ycbcr"}
    size = {"height": 96, "width": 160, "count": 3, "dtype": "uint8", "nodata": 0}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", crs="EPSG:32645", transform=PLACE, **size, **layout
    ) as f:
        f.write(pixels)
    card = codes_model(4).card.model_copy(update={"bands": 3})
    result = tp.segment(tmp_path / "a.tif", tp.Model.from_torch(Quarters(), card), tile=32, overlap=8)
    with rasterio.open(result.paths[0]) as labels:
        assert (labels.count, labels.dtypes, labels.nodata) == (1, ("uint8",), 255)
        assert (labels.compression.name, labels.colorinterp[0].name) == ("deflate", "palette")
        assert labels.block_shapes == [(512, 512)]
        assert set(np.unique(labels.read(1))) <= {0, 1, 2, 3, 255}


class Quarters(torch.nn.Module):
    """The first band in quarters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((x[:, 0] / 64).long(), 4).permute(0, 3, 1, 2).float()


LAYERED: dict[str, Any] = {"tile": 64, "overlap": 32, "block": 64, "window_shape": "hann", "layers": "entropy,margin"}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_layers_lie_beside_the_labels_and_are_lazy(tmp_path: Path) -> None:
    image, model = noise(120, 150), random_unet()
    result = tp.segment(image, model, tmp_path / "a.tif", of=["cog", "ome-zarr", "geojson"], **LAYERED)
    assert [path.name for path in result.paths] == [
        "a.tif", "a.ome.zarr", "a.geojson", "a.margin.tif", "a.margin.ome.zarr", "a.entropy.tif", "a.entropy.ome.zarr",
    ]  # fmt: skip
    assert list(result.layers) == ["margin", "entropy"]
    assert isinstance(result.layers["margin"].dask, dask.array.Array)
    whole = {name: np.asarray(layer) for name, layer in result.layers.items()}
    with rasterio.open(tmp_path / "a.margin.tif") as file:
        assert np.array_equal(file.read(1), whole["margin"])
    plain = tp.segment(image, model, tmp_path / "plain.tif", **{**LAYERED, "layers": ()})
    assert (np.asarray(plain.labels) == np.asarray(result.labels)).all()
    assert plain.layers == {}
    part = tp.segment(image, model, tmp_path / "part.tif", region=tp.Box(33, 20, 111, 140), **LAYERED)
    for name, layer in part.layers.items():
        assert np.array_equal(np.asarray(layer), whole[name][33:111, 20:140])


def test_a_layer_that_was_removed_is_written_again(tmp_path: Path) -> None:
    image, model = noise(80, 70), random_unet()
    first = np.asarray(tp.segment(image, model, tmp_path / "a.tif", **LAYERED).layers["margin"])
    (tmp_path / "a.margin.tif").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"exists and was changed since tilepipe wrote it; use `overwrite=True`"):
        tp.segment(image, model, tmp_path / "a.tif", **LAYERED)
    assert (tmp_path / "a.margin.tif").read_bytes() == b"mine"
    (tmp_path / "a.margin.tif").unlink()
    again = tp.segment(image, model, tmp_path / "a.tif", **LAYERED)
    assert np.array_equal(np.asarray(again.layers["margin"]), first)


def test_layers_on_another_grid_than_the_prediction(tmp_path: Path) -> None:
    image, model = noise(90, 120), random_unet()
    coarse = tp.Model.from_torch(model.module, model.card.model_copy(update={"resolution": 2.0, "unit": "m"}))
    image.resolution = Resolution(1.0, 1.0)  # type: ignore[misc]
    full = tp.segment(image, coarse, tmp_path / "full.tif", **LAYERED).layers["margin"]
    own = tp.segment(image, coarse, tmp_path / "own.tif", resolution="model", **LAYERED).layers["margin"]
    assert (full.shape, own.shape) == ((90, 120), (45, 60))
    assert np.array_equal(np.asarray(full), np.kron(np.asarray(own), np.ones((2, 2), np.uint8)))


def test_layers_that_nothing_can_hold(raster: Path) -> None:
    model = codes_model(4)
    with pytest.raises(UsageError, match="cog, ome-tiff or ome-zarr; add one of them to `of`"):
        tp.segment(raster, model, raster.with_name("a.geojson"), layers="margin", **CUT)
    with pytest.raises(UsageError, match="or use segment for several"):
        tp.predict(raster, model, layers=["margin"], **CUT)
    assert [path.name for path in raster.parent.iterdir()] == ["codes.tif"]
