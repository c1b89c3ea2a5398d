"""Products lie where the image lies: to the last bit for CRS and transform, to the pixel for regions and polygons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom
from rasterio.windows import Window

import tilepipe as tp
from tilepipe.execution.export import export
from tilepipe.testing import codes_model

PLACES = {
    "north up": ("EPSG:32645", Affine(0.3, 0, 335000.1, 0, -0.3, 3058000.7)),
    "rotated": ("EPSG:32645", Affine(0.25, 0.1, 335000.1, 0.1, -0.25, 3058000.7)),
    "geographic": ("EPSG:4326", Affine(8.98e-05, 0, -54.123456789, 0, -8.9e-05, -3.987654321)),
    "south up": ("EPSG:32645", Affine(0.3, 0, 335000.1, 0, 0.3, 3058000.7)),
}
HEIGHT, WIDTH = 90, 130
CODES = np.kron(np.random.default_rng(3).integers(0, 4, (9, 13), dtype=np.uint8), np.ones((10, 10), np.uint8))


@pytest.fixture(params=sorted(PLACES))
def raster(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    crs, transform = PLACES[request.param]
    size = {"height": HEIGHT, "width": WIDTH, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "codes.tif", "w", driver="GTiff", crs=crs, transform=transform, **size) as file:
        file.write(CODES, 1)
    return tmp_path / "codes.tif"


def test_cog_has_the_very_crs_and_transform(raster: Path) -> None:
    result = tp.segment(raster, codes_model(4), tile=32, overlap=8)
    assert result.paths == (raster.with_name("codes.labels.tif"),)
    with rasterio.open(raster) as image, rasterio.open(result.paths[0]) as labels:
        assert labels.transform == image.transform
        assert labels.crs == image.crs
        assert labels.shape == image.shape
        assert (labels.read(1) == image.read(1)).all()


def test_an_ome_zarr_keeps_crs_and_transform_for_every_format_made_of_it(raster: Path, tmp_path: Path) -> None:
    made = tp.segment(raster, codes_model(4), tmp_path / "l.ome.zarr", window=(37, 21, 50, 60), tile=32, overlap=8)
    tp.segment(raster, codes_model(4), tmp_path / "direct.tif", window=(37, 21, 50, 60), tile=32, overlap=8)
    tp.segment(raster, codes_model(4), tmp_path / "direct.geojson", window=(37, 21, 50, 60), tile=32, overlap=8)
    export(made.paths[0], tmp_path / "exported.tif")
    export(made.paths[0], tmp_path / "exported.geojson")
    with rasterio.open(tmp_path / "direct.tif") as direct, rasterio.open(tmp_path / "exported.tif") as exported:
        assert exported.transform == direct.transform
        assert exported.crs == direct.crs == rasterio.open(raster).crs
        assert (exported.read(1) == direct.read(1)).all()
    read = [json.loads((tmp_path / f"{name}.geojson").read_text())["features"] for name in ("direct", "exported")]
    assert read[0] == read[1]


def test_a_region_overlays_the_image(raster: Path, tmp_path: Path) -> None:
    result = tp.segment(raster, codes_model(4), tmp_path / "part.tif", window=(37, 21, 50, 60), tile=32, overlap=8)
    window = Window(37, 21, 50, 60)
    with rasterio.open(raster) as image, rasterio.open(result.paths[0]) as labels:
        assert labels.transform.almost_equals(image.window_transform(window), 1e-9)
        assert (labels.read(1) == image.read(1, window=window)).all()
        assert labels.crs == image.crs


def test_polygons_rasterise_to_the_same_pixels(raster: Path, tmp_path: Path) -> None:
    result = tp.segment(raster, codes_model(4), tmp_path / "all.geojson", tile=32, overlap=8)
    features = json.loads(result.paths[0].read_text())["features"]
    with rasterio.open(raster) as image:
        back = [(transform_geom("EPSG:4326", image.crs, f["geometry"]), f["properties"]["class_id"]) for f in features]
        found = rasterize(back, out_shape=image.shape, transform=image.transform, fill=255)
    assert (found == CODES).all()


def test_bounds_in_the_images_crs_and_in_degrees(tmp_path: Path) -> None:
    crs, transform = PLACES["north up"]
    size = {"height": HEIGHT, "width": WIDTH, "count": 1, "dtype": "uint8"}
    path = tmp_path / "codes.tif"
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **size) as file:
        file.write(CODES, 1)
    left, top = transform * (30, 10)
    right, bottom = transform * (70, 50)
    result = tp.segment(path, codes_model(4), tmp_path / "b.tif", bounds=(left, bottom, right, top))
    assert result.plan.region == tp.Box(10, 30, 50, 70)
    (west, east), (south, north) = rasterio.warp.transform(crs, "EPSG:4326", [left, right], [bottom, top])
    plan = tp.plan(path, codes_model(4), bounds=(west, south, east, north), bounds_crs="EPSG:4326")
    assert plan.region.contains(tp.Box(11, 31, 49, 69))
    assert tp.Box(9, 29, 51, 71).contains(plan.region)
    with pytest.raises(tp.TilepipeError, match="lies off"):
        tp.plan(path, codes_model(4), bounds=(87, 28, 87.1, 28.1), bounds_crs="EPSG:4326")


def test_slide_polygons_are_level_0_pixels_at_another_resolution(tmp_path: Path) -> None:
    """A pyramid whose level ratio is no integer, predicted at 1 um from 0.5 um: corners lie at whole blocks."""
    code = np.zeros((409, 613), np.uint8)
    code[100:200, 300:500] = 1
    level0 = np.repeat(code[..., None], 3, axis=2)
    text = "Aperio Image Library v11.2.1\n613x409 -> |AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(tmp_path / "codes.svs") as file:
        for level in (level0, level0[::4, ::4][:102, :153]):
            file.write(level, tile=(256, 256), photometric="rgb", description=text, metadata=None)
    model = codes_model(2)
    card = model.card.model_copy(update={"bands": 3, "resolution": 1.0, "unit": "um"})
    result = tp.segment(tmp_path / "codes.svs", tp.Model.from_torch(model.module, card), tile=64, overlap=16)
    names = [path.name for path in result.paths]
    assert names == ["codes.labels.ome.zarr", "codes.labels.geojson"]
    assert result.labels.shape == (409, 613)
    features = json.loads(result.paths[1].read_text())["features"]
    shapes = [(f["geometry"], 1) for f in features if f["properties"]["classification"]["name"] == "class 1"]
    found = rasterize(shapes, out_shape=(409, 613))
    assert np.abs(found.astype(int) - code).sum() <= 2 * 600  # at most the outline, by one pixel
    rows, columns = np.nonzero(found)
    corners = np.array([rows.min(), rows.max(), columns.min(), columns.max()])
    assert np.abs(corners - [100, 199, 300, 499]).max() <= 1  # 613 px are 306 of the model's: 2.003 px each


def test_labels_at_the_models_resolution_cover_the_same_ground(tmp_path: Path) -> None:
    crs, transform = PLACES["rotated"]
    size = {"height": 100, "width": 140, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "codes.tif", "w", driver="GTiff", crs=crs, transform=transform, **size) as file:
        file.write(np.zeros((100, 140), np.uint8), 1)
    model = codes_model(4)
    card = model.card.model_copy(update={"resolution": 0.7})
    result = tp.segment(
        tmp_path / "codes.tif", tp.Model.from_torch(model.module, card), tmp_path / "l.tif", resolution="model"
    )
    with rasterio.open(result.paths[0]) as labels:
        assert labels.shape == result.plan.predicted
        corner = labels.transform * (labels.width, labels.height)
        assert np.allclose(corner, transform * (140, 100), atol=1e-6)


class Bounded(openslide.OpenSlide):
    """A slide whose scanner says that only a part was scanned, as MIRAX and SCN files do."""

    @property
    def properties(self) -> dict[str, str]:
        where = {"x": "20", "y": "10", "width": "560", "height": "380"}
        return {**super().properties, **{f"openslide.bounds-{name}": value for name, value in where.items()}}


def test_polygons_lie_in_the_frame_of_the_bounds_and_outside_them_is_nodata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openslide, "OpenSlide", Bounded)
    code = np.zeros((409, 613), np.uint8)
    code[100:200, 300:500] = 1
    text = "Aperio Image Library v11.2.1\n613x409 -> |AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(tmp_path / "codes.svs") as file:
        pixels = np.repeat(code[..., None], 3, axis=2)
        file.write(pixels, tile=(256, 256), photometric="rgb", description=text, metadata=None)
    model = codes_model(2)
    model = tp.Model.from_torch(model.module, model.card.model_copy(update={"bands": 3}))
    result = tp.segment(tmp_path / "codes.svs", model, tmp_path / "l.geojson", tile=64, overlap=16)
    features = json.loads(result.paths[0].read_text())["features"]
    shapes = [(f["geometry"], int(f["properties"]["classification"]["name"][-1])) for f in features]
    expected = np.full_like(code, 255)
    expected[10:390, 20:580] = code[10:390, 20:580]
    moved = rasterize(shapes, out_shape=code.shape, fill=255, transform=Affine.translation(-20, -10))
    assert (moved == expected).all(), "QuPath counts pixels from the corner of the bounds"
