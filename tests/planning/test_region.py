"""What a user asks for, as a box and a mask: pixels, bounds, polygons, masks, and what cannot be combined."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import job_for, plan_of
from hypothesis import example, given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform_geom

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.events import Event
from tilepipe.execution.block import BlockWorker
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.planning.region import RegionRequest, area_of, resolve_region
from tilepipe.planning.resolution import grids_of
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.testing import codes_model

CODES = np.random.default_rng(1).integers(0, 4, (60, 80), dtype=np.uint8)
CARD = ModelCard(bands=1, classes=["a", "b"], halo=4)
WGS84 = Georeference(CRS.from_epsg(4326).to_wkt(), (1e-4, 0, 7.0, 0, -1e-4, 50.0))
RING = [[10.2, 5.3], [49.7, 5.3], [49.7, 39.8], [30.1, 20.2], [10.2, 39.7], [10.2, 5.3]]
"""(x, y) in pixels: a house upside down."""


def image(georeference: Georeference | None = None, valid: Any = None) -> ArraySource:
    return ArraySource(CODES, georeference=georeference, valid=valid)


def resolved(source: ArraySource, settings: Any, card: ModelCard = CARD) -> tuple[RegionRequest, Any]:
    request = Request.of(settings)
    return resolve_region(source, card, request, grids_of(source, card, request))


def geojson(folder: Path, *rings: list[list[float]], kind: str = "collection") -> Path:
    polygons: list[Any] = [{"type": "Polygon", "coordinates": [ring]} for ring in rings]
    features = [{"type": "Feature", "geometry": polygon, "properties": {}} for polygon in polygons]
    text: Any = {
        "collection": {"type": "FeatureCollection", "features": features},
        "list": features,  # as QuPath may write
        "feature": features[0],
        "geometry": polygons[0],
    }[kind]
    path = folder / "area.geojson"
    path.write_text(json.dumps(text))
    return path


def truth(*rings: list[list[float]]) -> np.ndarray:
    return rasterize([{"type": "Polygon", "coordinates": [ring]} for ring in rings], CODES.shape).astype(bool)


def labels(source: ArraySource, **settings: Any) -> np.ndarray:
    """Labels of the whole image, 255 outside what is asked for."""
    job = job_for(source, codes_model(4), tile=16, overlap=4, **settings)
    found, box = np.full(CODES.shape, 255, np.uint8), job.plan.predicted_region
    worker = BlockWorker(job)
    found[box.slices_in(Box.of_shape(*CODES.shape))] = worker.region()[0]
    worker.close()
    return found


def test_everything_unless_told() -> None:
    asked, mask = resolved(image(), {})
    assert (asked.region, asked.mask, mask) == (Box(0, 0, 60, 80), "auto", None)


def test_a_window_is_column_row_width_height() -> None:
    assert resolved(image(), {"window": (7, 3, 20, 10)})[0].region == Box(3, 7, 13, 27)
    assert resolved(image(), {"region": Box(3, 7, 13, 27)})[0].region == Box(3, 7, 13, 27)


def test_bounds_are_left_bottom_right_top() -> None:
    asked, _ = resolved(image(WGS84), {"bounds": (7.001, 49.996, 7.003, 49.999)})
    assert asked.region == Box(10, 10, 40, 30)


def test_bounds_that_reach_beyond_the_image_are_cut_and_said() -> None:
    asked, _ = resolved(image(WGS84), {"bounds": (6.999, 49.996, 7.003, 50.002)})
    assert asked.region == Box(0, 0, 40, 30)
    assert [str(note) for note in asked.notes] == [
        "warning: the bounds reach beyond array: rows -20 to 40, columns -10 to 30 are asked for, and of these rows 0 "
        "to 40, columns 0 to 30 are in the image (50 %); only these can get labels"
    ]
    assert not resolved(image(WGS84), {"bounds": (7.0, 49.994, 7.008, 50.0)})[0].notes, "all of it, to the edge"


@pytest.mark.parametrize("name", ["region", "mask"])
def test_polygons_that_reach_beyond_the_image_are_cut_and_said(name: str, tmp_path: Path) -> None:
    path = geojson(tmp_path, [[70.0, -10], [90, -10], [90, 30], [70, -10]])
    asked, _ = resolved(image(), {name: path})
    assert asked.region == (Box(0, 70, 30, 80) if name == "region" else Box(0, 0, 60, 80))
    (note,) = asked.notes
    assert f"{path} reach beyond array: rows -10 to 30, columns 70 to 90 are asked for" in note.text
    assert "rows 0 to 30, columns 70 to 80 are in the image (37.5 %)" in note.text
    assert not resolved(image(), {name: geojson(tmp_path, RING)})[0].notes
    rounded = geojson(tmp_path, [[-0.4, -0.1], [80.9, 0], [80, 60.3], [0, 60], [-0.4, -0.1]])
    assert not resolved(image(), {name: rounded})[0].notes, "rounded coordinates of all of the image"


def test_what_is_cut_is_said_by_the_plan_and_warned_of_in_python(tmp_path: Path) -> None:
    model, source, beyond = codes_model(4), image(WGS84), (6.999, 49.996, 7.003, 49.999)
    (said,) = [str(row) for row in tp.plan(source, model, bounds=beyond).fit_table if row.state != "ok"]
    assert said.startswith("warning: the bounds reach beyond array")
    with pytest.warns(UserWarning, match="the bounds reach beyond array") as found:
        assert tp.predict(source, model, bounds=beyond).shape == (30, 30)
    assert found[0].filename == __file__
    heard: list[Event] = []
    for _ in range(2):  # also when there is nothing left to do
        with pytest.warns(UserWarning, match="the bounds reach beyond array") as found:
            tp.segment(source, model, tmp_path / "o.tif", bounds=beyond)
        assert found[0].filename == __file__
        heard.clear()
        tp.segment(source, model, tmp_path / "o.tif", bounds=beyond, listener=heard.append)
        assert [event.message for event in heard].count(said) == 1


@pytest.mark.parametrize("window", [(0, 0, 81, 60), (-1, 0, 5, 5), (80, 0, 1, 1), (0, 59, 1, 2)], ids=str)
def test_outside_is_refused_with_both_extents(window: tuple[int, int, int, int]) -> None:
    column, row, width, height = window
    sentence = f"rows {row} to {row + height}, columns {column} to {column + width} is not inside array, which has 60 "
    with pytest.raises(UsageError, match=re.escape(sentence) + "rows and 80 columns"):
        resolved(image(), {"window": window})


def annotations(folder: Path) -> Path:
    """Polygons as QuPath writes annotations: two classes, a derived class and one polygon without a class."""
    squares = [[[x, 5], [x + 10, 5], [x + 10, 15], [x, 15], [x, 5]] for x in (0, 20, 40, 60)]
    classes: list[Any] = [{"name": "Tumor"}, {"name": "Stroma"}, {"names": ["Tumor", "Positive"]}, None]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [square]},
            "properties": {"objectType": "annotation", **({"classification": name} if name else {})},
        }
        for square, name in zip(squares, classes, strict=True)
    ]
    path = folder / "annotations.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize("how", ["region", "mask"])
def test_only_polygons_of_the_classes_named(how: str, tmp_path: Path) -> None:
    path = annotations(tmp_path)
    asked, area = resolved(image(), {how: path, "classes": "Tumor"})
    whole = Box(0, 0, 60, 80)
    assert asked.region == (Box(5, 0, 15, 10) if how == "region" else whole)
    expected = np.zeros((60, 80), bool)
    expected[5:15, 0:10] = True
    assert (area(whole) == expected).all()
    assert "1 of 4 polygons are of class Tumor" in asked.notes[0].text
    expected[5:15, 40:50] = True
    two = ["Tumor", "Tumor: Positive"]
    both, area = resolved(image(), {how: path, "classes": two})
    assert (area(whole) == expected).all()
    assert area_of(image(), both.mask, str(path), two) is not None
    with pytest.raises(InputError, match="not those of the run"):
        area_of(image(), both.mask, str(path))
    assert resolved(image(), {how: path})[1](whole).sum() == 400


@pytest.mark.parametrize("column", ["class", "Class"])
def test_a_class_may_stand_in_an_attribute_of_that_name(column: str, tmp_path: Path) -> None:
    path = annotations(tmp_path)
    told = json.loads(path.read_text())
    for feature, name in zip(told["features"], ("a", "b", None, 3), strict=True):
        feature["properties"] = {column: name}
    path.write_text(json.dumps(told))
    expected = np.zeros((60, 80), bool)
    expected[5:15, 0:10] = expected[5:15, 60:70] = True
    assert (resolved(image(), {"region": path, "classes": ["a", "3"]})[1](Box(0, 0, 60, 80)) == expected).all()
    with pytest.raises(UsageError, match=r"its classes are 3 \(1\), a \(1\), b \(1\)$"):
        resolved(image(), {"region": path, "classes": "None"})


def test_a_class_that_no_polygon_has_is_refused_with_those_found(tmp_path: Path) -> None:
    listed = r"no polygon of class 'tumor'; its classes are Stroma \(1\), Tumor \(1\), Tumor: Positive \(1\)"
    with pytest.raises(UsageError, match=listed):
        resolved(image(), {"region": annotations(tmp_path), "classes": "tumor"})
    with pytest.raises(UsageError, match=r"its classes are none .*attribute called class"):
        resolved(image(), {"region": geojson(tmp_path, RING), "classes": "Tumor"})
    for mask in ("tissue", "auto", "value:3"):
        with pytest.raises(UsageError, match="`classes` picks polygons of a file"):
            resolved(image(), {"mask": mask, "classes": "Tumor"})


def write_layer(path: Path, layer: str, ring: list[list[float]], crs: str = "EPSG:32632") -> None:
    """One polygon, given in longitude and latitude, as GIS programs write it in another reference system."""
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    shape = shapely.geometry.shape(transform_geom("EPSG:4326", crs, {"type": "Polygon", "coordinates": [ring]}))
    pyogrio.raw.write(
        path, np.array([shapely.to_wkb(shape)], object), [np.array(["house"], object)], ["class_name"],
        layer=layer, geometry_type="Polygon", crs=crs,
    )  # fmt: skip


@pytest.mark.parametrize("ending", [".gpkg", ".shp", ".fgb"])
def test_polygons_of_other_vector_files(ending: str, tmp_path: Path) -> None:
    ring = [[7 + x * 1e-4, 50 - y * 1e-4] for x, y in RING]
    path = tmp_path / f"area{ending}"
    write_layer(path, "area", ring)
    expected = resolved(image(WGS84), {"region": geojson(tmp_path, ring)})[1](Box(0, 0, 60, 80))
    assert expected.sum() > 500
    for settings in ({"region": path}, {"mask": path, "classes": "house"}):
        found = resolved(image(WGS84), settings)[1](Box(0, 0, 60, 80))
        assert (found == expected).mean() > 0.999


def test_a_file_of_several_layers_is_refused_with_a_command(tmp_path: Path) -> None:
    ring = [[7 + x * 1e-4, 50 - y * 1e-4] for x, y in RING]
    for layer in ("houses", "fields"):
        write_layer(tmp_path / "two.gpkg", layer, ring)
    with pytest.raises(UsageError, match=r"2 layers of polygons \(houses, fields\).*ogr2ogr area.gpkg \S+ houses"):
        resolved(image(WGS84), {"region": tmp_path / "two.gpkg"})


def test_no_pixels_are_refused() -> None:
    with pytest.raises(UsageError, match="no pixels"):
        resolved(image(), {"window": (5, 5, 0, 3)})


def test_a_tissue_mask_on_an_image_of_the_ground_is_said_with_what_it_keeps() -> None:
    pixels = np.full((3, 60, 80), 240, np.uint8)
    pixels[:, :, 40:] = np.array([180, 60, 120], np.uint8)[:, None, None]  # and 8 px of margin
    card, um = ModelCard(bands=3, classes=["a", "b"], halo=8), Resolution(0.5, 0.5, "um")
    images = {"slide": ArraySource(pixels, resolution=um), "ground": ArraySource(pixels, georeference=WGS84)}
    said = {name: resolved(source, {"mask": "tissue"}, card)[0].notes for name, source in images.items()}
    (row,) = said["slide"]
    assert (row.name, row.state) == ("tissue", "ok")
    assert row.text.startswith("51.2 % of the region is tissue on a bright background; with a margin of context 61.3 %")
    (note,) = said["ground"]
    assert note.state == "note"
    assert "array lies on the ground: the mask keeps 61.3 % of the region" in note.text
    window = resolved(images["ground"], {"mask": "tissue", "window": (0, 0, 40, 60)}, card)[0]
    assert "keeps 22.5 % of the region" in window.notes[0].text
    (note,) = resolved(images["slide"], {"mask": "tissue", "window": (40, 0, 40, 60)}, card)[0].notes
    assert note.text.startswith("100 % of the region is tissue on a bright background")
    inside = ArraySource(pixels[:, :, 40:], resolution=um)
    (note,) = resolved(inside, {"mask": "tissue"}, card)[0].notes
    assert "finds no background in array: it keeps 100 %" in note.text


@pytest.mark.parametrize(
    "two",
    [
        {"region": Box(0, 0, 1, 1), "window": (0, 0, 1, 1)},
        {"region": Box(0, 0, 1, 1), "bounds": (0, 0, 1, 1)},
        {"bounds": (0, 0, 1, 1), "window": (0, 0, 1, 1)},
    ],
)
def test_one_way_to_name_a_part(two: Any) -> None:
    with pytest.raises(UsageError, match="are both given; name the part of the image in one way"):
        resolved(image(), two)


@pytest.mark.parametrize("mask", ["none", "tissue", "value:0", "other.geojson"])
def test_polygons_and_a_mask_are_not_combined_silently(mask: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"leave out `mask='{mask}'`"):
        resolved(image(), {"region": geojson(tmp_path, RING), "mask": mask})


@pytest.mark.parametrize("kind", ["collection", "list", "feature", "geometry"])
@pytest.mark.parametrize("name", ["region", "mask"])
def test_polygons_in_pixels(name: str, kind: str, tmp_path: Path) -> None:
    path = geojson(tmp_path, RING, kind=kind)
    asked, mask = resolved(image(), {name: path})
    assert asked.region == (Box(5, 10, 40, 50) if name == "region" else Box(0, 0, 60, 80)), "a mask crops nothing"
    assert mask is not None
    assert (mask(Box(0, 0, 60, 80)) == truth(RING)).all()
    assert (labels(image(), **{name: str(path)}) == np.where(truth(RING), CODES, 255)).all()


def test_polygons_in_degrees_for_rasters(tmp_path: Path) -> None:
    ring = [[7.0 + x * 1e-4, 50.0 - y * 1e-4] for x, y in RING]
    found = labels(image(WGS84), region=geojson(tmp_path, ring))
    assert (found == np.where(truth(RING), CODES, 255)).all()


def test_polygons_and_validity_both_count(tmp_path: Path) -> None:
    valid = np.zeros(CODES.shape, bool)
    valid[:, 25:] = True
    found = labels(image(valid=valid), mask=geojson(tmp_path, RING))
    assert (found == np.where(truth(RING) & valid, CODES, 255)).all()


def test_a_mask_inside_a_window(tmp_path: Path) -> None:
    path = geojson(tmp_path, RING)
    assert resolved(image(), {"mask": path, "window": (0, 0, 30, 30)})[0].region == Box(0, 0, 30, 30)
    with pytest.raises(UsageError, match="lie outside the region"):
        resolved(image(), {"mask": path, "window": (60, 50, 10, 10)})


def test_polygons_off_the_image_are_refused(tmp_path: Path) -> None:
    far = [[500, 500], [600, 500], [600, 600], [500, 500]]
    with pytest.raises(UsageError, match=r"lies off .*pixels, x before y"):
        resolved(image(), {"region": geojson(tmp_path, far)})
    swapped = [[49.999, 7.001], [49.998, 7.001], [49.998, 7.002], [49.999, 7.001]]
    for asked in ("region", "mask"):
        with pytest.raises(UsageError, match=r"lies off .*longitude before latitude"):
            resolved(image(WGS84), {asked: geojson(tmp_path, swapped)})
    with pytest.raises(UsageError, match=r"lies off .*`bounds_crs='EPSG:4326'`"):
        resolved(image(WGS84), {"bounds": (1, 2, 3, 4)})


@pytest.mark.parametrize(
    "text",
    [
        "{}", "[]", "3", "null", "polygons", '{"type": "Polygon"}', '{"type": "Polygon", "coordinates": []}',
        '{"features": null}', '{"type": "Polygon", "coordinates": [[["a", "b"]]]}',
        '{"type": "Point", "coordinates": [1, 2]}',
    ],
)  # fmt: skip
def test_what_is_no_polygon_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "area.geojson").write_text(text)
    with pytest.raises(UsageError):
        resolved(image(), {"region": tmp_path / "area.geojson"})


def test_an_area_without_a_pixel_is_refused(tmp_path: Path) -> None:
    sliver = [[10.6, 5.6], [49.4, 5.6], [49.4, 5.9], [10.6, 5.6]]
    with pytest.raises(InputError, match=r"nothing of array is left to label: no pixel's centre lies in the polygons"):
        job_for(image(), codes_model(4), mask=geojson(tmp_path, sliver))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.geojson does not exist"):
        resolved(image(), {"mask": "nowhere.geojson"})


def test_mask_none_computes_everywhere() -> None:
    hidden = image(valid=np.zeros(CODES.shape, bool))
    assert (labels(hidden) == 255).all()
    assert (labels(hidden, mask="none") == CODES).all()


def test_mask_by_value() -> None:
    assert (labels(image(), mask="value:2") == np.where(CODES == 2, 255, CODES)).all()


def test_mask_by_a_value_of_many_digits() -> None:
    """A float image whose no-data value is the lowest float32, and is not declared."""
    lowest = float(np.finfo(np.float32).min)
    pixels = np.where(CODES == 2, np.float32(lowest), CODES.astype(np.float32))
    job = job_for(ArraySource(pixels), codes_model(4), mask=f"value:{lowest}")
    valid = job.source.valid(Box.of_shape(*CODES.shape))
    assert valid is not None
    assert (valid == (CODES != 2)).all()


def key(plan: Any) -> str:
    return str(plan.key({}, "w"))


def test_a_blank_slide_is_refused_in_a_sentence() -> None:
    blank, card = ArraySource(np.full((3, 60, 80), 240, np.uint8)), ModelCard(bands=3, classes=["a", "b"], halo=8)
    with pytest.raises(InputError, match="array is blank: 0 % of it stands out from the background as tissue"):
        resolved(blank, {"mask": "tissue"}, card)


def test_tissue_of_an_earlier_rule_is_not_taken_for_this_one() -> None:
    with pytest.raises(InputError, match="by an earlier rule"):
        area_of(image(), "tissue+8")


def test_each_mask_has_a_key_of_its_own(tmp_path: Path) -> None:
    source = ArraySource(np.random.default_rng(0).integers(0, 256, (3, 60, 80), dtype=np.uint8), resolution=0.5)
    model = Model.from_torch(codes_model(4).module, ModelCard(bands=3, classes=["a"] * 4, resolution=0.5))
    other = [[x + 1, y] for x, y in RING]
    plans = [plan_of(source, model, **how) for how in ({}, {"mask": "none"}, {"mask": "value:1"}, {"mask": "value:2"})]
    plans += [plan_of(source, model, mask="tissue", **how) for how in ({}, {"pixel_size": 0.49})]
    plans += [plan_of(source, model, region=geojson(tmp_path, ring)) for ring in (RING, other)]
    plans += [plan_of(source, model, mask=geojson(tmp_path, ring)) for ring in (RING, other)]
    assert len({key(plan) for plan in plans}) == len(plans)
    assert key(plan_of(source, model, mask=geojson(tmp_path, RING))) == key(plans[-2]), "the same polygons"
    assert plans[4].predicted == plans[5].predicted, "only the margin of the tissue differs"


def test_a_mask_at_another_resolution_lies_on_the_same_ground(tmp_path: Path) -> None:
    """Labels of the model's grid follow the pixel under each centre; full-resolution labels the polygons themselves."""
    source = ArraySource(CODES, resolution=Resolution(1.0, 1.0, "m"))
    card = ModelCard(bands=1, classes=["a"] * 4, resolution=1.7)
    model, settings = Model.from_torch(codes_model(4).module, card), {"mask": geojson(tmp_path, RING)}
    job = job_for(source, model, resolution="model", **settings)
    assert job.plan.predicted == (35, 47)
    assert job.plan.region == Box(0, 0, 60, 80)
    rows = ((np.arange(35) + 0.5) * 60 / 35).astype(int)
    columns = ((np.arange(47) + 0.5) * 80 / 47).astype(int)
    region = job.plan.predicted_region.slices_in(Box(0, 0, 35, 47))
    expected = np.zeros((35, 47), bool)
    expected[region] = truth(RING)[rows[:, None], columns[None, :]][region]
    assert (job.wanted.asked(Box(0, 0, 35, 47)) == expected).all()
    found = tp.predict(source, model, **settings)
    assert ((found != 255) == truth(RING)).all()


@pytest.mark.parametrize("name", ["region", "mask"])
@pytest.mark.parametrize("code", [32632, 3857, 4326])
def test_a_crs_that_the_file_names_is_honoured(name: str, code: int, tmp_path: Path) -> None:
    ring = {"type": "Polygon", "coordinates": [[[7.0 + x * 1e-4, 50.0 - y * 1e-4] for x, y in RING]]}
    geometry = transform_geom("OGC:CRS84", f"EPSG:{code}", ring)
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
    path = tmp_path / "area.geojson"
    features = [{"type": "Feature", "geometry": geometry}]
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    assert (labels(image(WGS84), **{name: str(path)}) == np.where(truth(RING), CODES, 255)).all()
    with pytest.raises(UsageError, match="has no CRS, so its polygons cannot be placed"):
        resolved(image(), {name: path})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    if code != 4326:
        with pytest.raises(UsageError, match=r"feature 1 holds x .*, which are no longitude and latitude"):
            resolved(image(WGS84), {name: path})


@given(st.sampled_from(["uint8", "int16", "uint16", "float32"]), st.floats(width=32) | st.integers(-70_000, 70_000))
@example("uint8", 256)
@example("uint8", 0.5)
@example("uint8", float("nan"))
@example("float32", float("nan"))
def test_a_mask_is_a_value_that_pixels_can_have(dtype: str, value: float) -> None:
    """Numpy's own conversion there and back is the judge."""
    with np.errstate(all="ignore"):
        held = np.isclose(np.array([value]).astype(dtype).astype(float), value, 0, 0, equal_nan=dtype == "float32")[0]
    source = ArraySource(np.zeros((1, 4, 4), dtype))
    if held:
        assert float(resolved(source, {"mask": f"value:{value}"})[0].mask[6:]) == pytest.approx(value, nan_ok=True)
    else:
        with pytest.raises(UsageError, match="would mask nothing"):
            resolved(source, {"mask": f"value:{value}"})


@pytest.mark.parametrize(("dtype", "word"), [("float32", "1e39"), ("float32", "-1e39"), ("int16", "-32769")])
def test_a_mask_beyond_the_range_is_refused(dtype: str, word: str) -> None:
    with pytest.raises(UsageError, match="would mask nothing"):
        tp.plan(np.zeros((1, 4, 4), dtype), codes_model(4), mask=f"value:{word}")


def test_a_mask_of_the_lowest_float_as_gdal_writes_it_is_taken() -> None:
    assert resolved(ArraySource(np.zeros((1, 4, 4), "float32")), {"mask": "value:-3.40282347e+38"})[1] is None
