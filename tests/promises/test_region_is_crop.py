"""A region is a crop of the whole: drawn boxes, polygons and masks give the labels of a run over everything, in every
mode, and nodata elsewhere. What is outside them is seen by the network as it is.
"""

from __future__ import annotations

import json
import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from helpers.fakes import global_model, job_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.evaluation.verify.verify import verify
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.job import make_job
from tilepipe.execution.region_labels import region_labels
from tilepipe.models.model import Model
from tilepipe.planning.settings import Request
from tilepipe.sources.base import Resolution
from tilepipe.sources.tissue import tissue
from tilepipe.testing import noise, random_unet

HEIGHT, WIDTH = 110, 130
WHOLE = Box(0, 0, HEIGHT, WIDTH)
CROP: dict[str, Any] = {"tile": 48, "overlap": 24, "window_shape": "crop", "block": 60}
SMALL: dict[str, Any] = {"tile": 32, "overlap": 16, "window_shape": "gaussian", "block": 40}


@dataclass(frozen=True)
class Mode:
    """One way to compute labels."""

    model: str
    settings: dict[str, Any]
    resolution: float | None = None


MODES = {
    "crop windows": Mode("unet", CROP),
    "blended": Mode("unet", SMALL),
    "one tile": Mode("unet", {"tile": 256}),
    "coarser": Mode("unet", CROP, 1.7),
    "much coarser, blended": Mode("unet", SMALL, 3.3),
    "finer": Mode("unet", SMALL, 0.6),
    "a field": Mode("squeeze", {"tile": 48, "statistics": "field"}),
    "a field, coarser": Mode("squeeze", {"tile": 48, "statistics": "field"}, 1.4),
    "the whole image": Mode("squeeze", {"tile": 64, "statistics": "whole"}),
    "each tile": Mode("squeeze", {**SMALL, "statistics": "tile"}),
}


FAST = [
    ("crop windows", "raster"), ("blended", "slide"), ("coarser", "raster"), ("a field", "raster"),
    ("the whole image", "slide"),
]  # fmt: skip


def modes(*fast: tuple[str, str]) -> pytest.MarkDecorator:
    """Return all modes on both images; those that are not `fast` belong to the long tests."""
    pairs = [(name, kind) for name in MODES for kind in ("raster", "slide")]
    marks = [() if pair in fast else (pytest.mark.long,) for pair in pairs]
    return pytest.mark.parametrize(
        ("name", "kind"), [pytest.param(*pair, marks=mark) for pair, mark in zip(pairs, marks, strict=True)]
    )


@cache
def model_of(name: str) -> Model:
    """Return a model, with a resolution for images whose pixels have a size of 1."""
    mode = MODES[name]
    model = random_unet(depth=1) if mode.model == "unet" else global_model(mode.model)
    return Model.from_torch(model.module, model.card.model_copy(update={"resolution": mode.resolution}))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a raster with pixels of 1 m and holes, and a slide with pixels of 1 um."""
    folder = tmp_path_factory.mktemp("crop")
    pixels = noise(HEIGHT, WIDTH).read(WHOLE)
    place = {"crs": "EPSG:32645", "transform": rasterio.Affine(1, 0, 335000.25, 0, -1, 3058000.75)}
    size = {"height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint8"}
    rng = np.random.default_rng(3)
    holes = rng.random((HEIGHT, WIDTH)) < 0.003
    holes[60:75, 90:] = True
    with rasterio.open(folder / "holes.tif", "w", driver="GTiff", nodata=0, **size, **place) as file:
        file.write(np.where(holes, 0, np.maximum(pixels, 1)))
    tifffile.imwrite(
        folder / "slide.svs", pixels.transpose(1, 2, 0), tile=(64, 64), photometric="rgb",
        description=f"Aperio Image Library v11.2.1\n{WIDTH}x{HEIGHT} -> |AppMag = 20|MPP = 1.0", metadata=None,
    )  # fmt: skip
    return {"raster": folder / "holes.tif", "slide": folder / "slide.svs"}


WHOLES: dict[tuple[str, str], NDArray[Any]] = {}


def given_of(name: str, path: Path, **more: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return image, model and settings of a mode; micrometres are the unit of slides."""
    model = model_of(name)
    if path.suffix == ".svs":
        model = Model.from_torch(model.module, model.card.model_copy(update={"unit": "um"}))
    return path, model, {**MODES[name].settings, **more}


def whole_of(name: str, path: Path) -> NDArray[Any]:
    """Return the labels of the whole image, computed once."""
    key = name, path.suffix
    if key not in WHOLES:
        image, model, chosen = given_of(name, path)
        WHOLES[key] = tp.predict(image, model, **chosen)
        assert WHOLES[key].shape == (HEIGHT, WIDTH)
        classes = WHOLES[key][WHOLES[key] != 255]
        assert np.bincount(classes, minlength=3).max() < 0.97 * classes.size, "labels that vary"
    return WHOLES[key]


def valid_of(path: Path) -> NDArray[np.bool_]:
    """Return what rasterio says is image data."""
    if path.suffix == ".svs":
        return np.ones((HEIGHT, WIDTH), bool)
    with rasterio.open(path) as file:
        return np.asarray(file.dataset_mask() > 0)


@st.composite
def rings(draw: st.DrawFn) -> list[list[float]]:
    """Draw a closed ring in pixels (x, y): a star, a thin sliver, or one that reaches beyond the image."""
    kind = draw(st.sampled_from(["star", "sliver", "beyond"]))
    x, y = draw(st.floats(5, WIDTH - 5)), draw(st.floats(5, HEIGHT - 5))
    if kind == "sliver":
        angle, long, thin = draw(st.floats(0, math.pi)), draw(st.floats(10, 90)), draw(st.floats(0.2, 2))
        dx, dy = math.cos(angle) * long / 2, math.sin(angle) * long / 2
        across = -math.sin(angle) * thin, math.cos(angle) * thin
        points = [[x - dx, y - dy], [x + dx, y + dy], [x + dx + across[0], y + dy + across[1]]]
    else:
        far = 150 if kind == "beyond" else 45
        count = draw(st.integers(3, 9))
        points = [
            [x + radius * math.cos(2 * math.pi * k / count), y + radius * math.sin(2 * math.pi * k / count)]
            for k, radius in enumerate(draw(st.lists(st.floats(3, far), min_size=count, max_size=count)))
        ]
    points = [[px + 0.0137, py + 0.0171] for px, py in points]  # no border runs through the centres of pixels
    return [*points, points[0]]


@st.composite
def areas(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw one to three polygons, some with a hole, as one MultiPolygon or as features of their own."""
    polygons = []
    for ring in draw(st.lists(rings(), min_size=1, max_size=3)):
        middle = np.mean(ring[:-1], axis=0)
        hole = [[float(v) for v in middle + 0.4 * (np.array(p) - middle)] for p in ring]
        polygons.append([ring, hole] if draw(st.booleans()) else [ring])
    if draw(st.booleans()):
        return [{"type": "MultiPolygon", "coordinates": polygons}]
    return [{"type": "Polygon", "coordinates": polygon} for polygon in polygons]


def truth(geometries: list[dict[str, Any]]) -> NDArray[np.bool_]:
    """Return GDAL's mask of polygons in pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterize(geometries, (HEIGHT, WIDTH)).astype(bool)


def write(geometries: list[dict[str, Any]], image: Path, folder: Path) -> Path:
    """Write polygons given in pixels: as QuPath does for slides, in the raster's own CRS otherwise."""
    found: dict[str, Any] = {"type": "FeatureCollection"}
    if image.suffix == ".tif":
        with rasterio.open(image) as file:
            a, _, c, _, e, f = tuple(file.transform)[:6]
        place = [json.loads(json.dumps(g), parse_float=float) for g in geometries]
        for g in place:
            parts = g["coordinates"] if g["type"] == "MultiPolygon" else [g["coordinates"]]
            for part in parts:
                for ring in part:
                    ring[:] = [[c + a * x, f + e * y] for x, y in ring]
        found["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32645"}}
        geometries = place
    found["features"] = [{"type": "Feature", "geometry": g, "properties": {}} for g in geometries]
    path = folder / "area.geojson"
    path.write_text(json.dumps(found))
    return path


CALM = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@modes(*FAST)
@CALM
@given(geometries=areas(), how=st.sampled_from(["region", "mask"]))
def test_polygons(
    images: dict[str, Path], tmp_path: Path, name: str, kind: str, geometries: list[dict[str, Any]], how: str
) -> None:
    asked = truth(geometries)
    image, model, chosen = given_of(name, images[kind], **{how: write(geometries, images[kind], tmp_path)})
    if not asked.any():
        with pytest.raises(tp.TilepipeError):
            tp.predict(image, model, **chosen)
        return
    job = make_job(tp.open_source(image), model, Request.of(chosen))
    found, box = region_labels(job, tp.open_source(image)), job.plan.region
    expected = np.where(asked & valid_of(images[kind]), whole_of(name, images[kind]), 255)
    assert (found == expected[box.y0 : box.y1, box.x0 : box.x1]).all()
    outside = asked.copy()
    outside[box.y0 : box.y1, box.x0 : box.x1] = False
    assert not outside.any(), "nothing that is asked for lies outside the box"


@modes(("coarser", "slide"), ("a field", "raster"))
@CALM
@given(data=st.data())
def test_boxes(images: dict[str, Path], name: str, kind: str, data: st.DataObject) -> None:
    y0, x0 = data.draw(st.integers(0, HEIGHT - 1)), data.draw(st.integers(0, WIDTH - 1))
    region = Box(y0, x0, data.draw(st.integers(y0 + 1, HEIGHT)), data.draw(st.integers(x0 + 1, WIDTH)))
    image, model, chosen = given_of(name, images[kind], region=region)
    found = tp.predict(image, model, **chosen)
    assert (found == whole_of(name, images[kind])[region.y0 : region.y1, region.x0 : region.x1]).all()


@modes(("coarser", "raster"), ("finer", "raster"))
def test_nodata_is_exactly_what_holds_no_image_data(images: dict[str, Path], name: str, kind: str) -> None:
    assert ((whole_of(name, images[kind]) != 255) == valid_of(images[kind])).all()


@pytest.mark.parametrize("name", ["blended", "coarser"])
def test_tissue(images: dict[str, Path], name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(225, 245, (3, HEIGHT, WIDTH)).astype(np.uint8)
    stain = noise(HEIGHT, WIDTH).read(WHOLE)
    pixels[:, 20:70, 30:60] = stain[:, 20:70, 30:60] // 2 + np.array([90, 0, 60], np.uint8)[:, None, None]
    path = tmp_path / "stained.svs"
    tifffile.imwrite(
        path, pixels.transpose(1, 2, 0), tile=(64, 64), photometric="rgb",
        description=f"Aperio Image Library v11.2.1\n{WIDTH}x{HEIGHT} -> |AppMag = 20|MPP = 1.0", metadata=None,
    )  # fmt: skip
    image, model, chosen = given_of(name, path)
    whole = tp.predict(image, model, **chosen)
    margin = float(tp.plan(image, model, **chosen, mask="tissue").mask.removeprefix("tissue/2+"))
    asked = tissue(tp.open_source(path), margin)(WHOLE)
    assert 0.1 < asked.mean() < 0.9
    assert (tp.predict(image, model, **chosen, mask="tissue") == np.where(asked, whole, 255)).all()


@pytest.mark.parametrize(
    "name", ["coarser", *(pytest.param(name, marks=pytest.mark.long) for name in ("crop windows", "blended"))]
)
@CALM
@given(geometries=areas())
def test_layers_and_products(
    images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, name: str, geometries: list[dict[str, Any]]
) -> None:
    """A run on disk, in blocks, with layers; the products hold what the region asks for and no more."""
    asked, folder = truth(geometries), tmp_path_factory.mktemp("run")
    if not asked.any():
        return
    image, model, chosen = given_of(name, images["raster"], layers="margin")
    area = write(geometries, images["raster"], folder)
    key = name, "layers"
    if key not in WHOLES:
        result = tp.segment(image, model, folder / "whole.tif", **chosen)
        WHOLES[key] = np.stack([np.asarray(result.labels.dask), np.asarray(result.layers["margin"].dask)])
    found = tp.segment(image, model, folder / "part.tif", region=area, **chosen)
    box = found.plan.region
    expected = np.where(asked & valid_of(images["raster"]), WHOLES[key], 255)[:, box.y0 : box.y1, box.x0 : box.x1]
    assert (np.asarray(found.labels.dask) == expected[0]).all()
    assert (np.asarray(found.layers["margin"].dask) == expected[1]).all()


@pytest.mark.long
@pytest.mark.parametrize("name", ["crop windows", "blended", "one tile", "coarser", "much coarser, blended", "finer"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometries=areas(), data=st.data())
def test_the_plan_counts_the_tiles_that_a_run_predicts(
    tmp_path: Path, name: str, geometries: list[dict[str, Any]], data: st.DataObject
) -> None:
    if not truth(geometries).any():
        return
    source = noise(HEIGHT, WIDTH)
    source.resolution = Resolution(1.0, 1.0, "m")
    path = write(geometries, Path("an array"), tmp_path)
    output = data.draw(st.sampled_from(["full", "model", 2.3]))
    job = None
    with suppress(InputError):
        job = job_for(source, model_of(name), mask=path, resolution=output, **MODES[name].settings)
    if job is None:  # the area lies between the centres of larger pixels
        assert output != "full"
        return
    worker = BlockWorker(job)
    predicted = worker.region()[1].tiles
    worker.close()
    assert job.plan.left is not None
    assert job.plan.tile_count == predicted
    plan, region = job.plan, job.plan.predicted_region
    useful = worker.tiles.useful(plan.tiles(), region, worker.tiles.wanted(region))
    over = {plan.grid.block_of(tile) for tile, _ in useful}
    assert job.plan.left.blocks == len(over)


@pytest.mark.parametrize("name", ["coarser", pytest.param("blended", marks=pytest.mark.long)])
def test_verify_finds_the_labels_again(images: dict[str, Path], tmp_path: Path, name: str) -> None:
    """With the polygons of the run and what lies around them, and on the grid of the product."""
    ring = [[10.2, 8.3], [120.4, 30.1], [90.7, 100.2], [20.3, 80.9], [10.2, 8.3]]
    area = write([{"type": "Polygon", "coordinates": [ring]}], images["raster"], tmp_path)
    image, model, chosen = given_of(name, images["raster"])
    result = tp.segment(image, model, tmp_path / "part.tif", region=area, **chosen)
    found = verify(result, image, model, mask=area, windows=4)
    assert found.again is not None
    assert found.again.pixels > 1000
    assert found.again.different == 0
    assert found.holds
