"""GeoJSON as the world writes it: read as rasterio burns it, or refused in a sentence that says what to type."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from tilepipe.errors import InputError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference
from tilepipe.sources.geojson import read_geojson
from tilepipe.sources.geojson_place import frame, placed

TO_MAP = Affine(1, 0, 300000, 0, -1, 3000000)
UTM = Georeference(CRS.from_epsg(32645).to_wkt(), tuple(TO_MAP)[:6])
NO_CRS = Georeference(None, tuple(TO_MAP)[:6])


def lying(place: Georeference | None) -> ArraySource:
    return ArraySource(np.zeros((1, 80, 80), np.uint8), georeference=place, name="i.tif")


def ring(x0: int, y0: int, x1: int, y1: int, *height: float) -> list[list[float]]:
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    return [[*(TO_MAP * corner), *height] for corner in corners]


def poly(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def lon_lat(geometry: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(transform_geom("EPSG:32645", "OGC:CRS84", geometry)))
    return found


def collection(*geometries: Any, **top: Any) -> dict[str, Any]:
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    return {"type": "FeatureCollection", **top, "features": features}


def named(name: str) -> dict[str, Any]:
    return {"type": "name", "properties": {"name": name}}


A, B = ring(10, 10, 60, 30), ring(20, 40, 40, 70)
LL = [lon_lat(poly(A)), lon_lat(poly(B))]
BOTH = lon_lat({"type": "MultiPolygon", "coordinates": [[A], [B]]})
MERCATOR = [dict(transform_geom("EPSG:32645", "EPSG:3857", poly(r))) for r in (A, B)]
TRUTH = rasterize([poly(A), poly(B)], (80, 80), transform=TO_MAP).astype(bool)
LINE = {"type": "LineString", "coordinates": [[85.0, 27.0], [85.1, 27.1]]}
POINT = {"type": "Point", "coordinates": [85.0, 27.0]}

GOOD: dict[str, Any] = {
    "features": collection(*LL),
    "one feature": collection(BOTH)["features"][0],
    "a bare geometry": BOTH,
    "a bare collection": {"type": "GeometryCollection", "geometries": LL},
    "a list of features": collection(*LL)["features"],
    "collections in collections": collection(
        LL[0],
        {"type": "GeometryCollection", "geometries": [POINT, {"type": "GeometryCollection", "geometries": LL[1:]}]},
    ),
    "crs null": collection(*LL, crs=None),
    "crs without a name": collection(*LL, crs={"type": "name", "properties": {"name": None}}),
    "urn": collection(poly(A), poly(B), crs=named("urn:ogc:def:crs:EPSG::32645")),
    "code": collection(poly(A), poly(B), crs=named("EPSG:32645")),
    "uri": collection(poly(A), poly(B), crs=named("http://www.opengis.net/def/crs/EPSG/0/32645")),
    "old code": collection(poly(A), poly(B), crs={"type": "EPSG", "properties": {"code": 32645}}),
    "wkt": collection(poly(A), poly(B), crs=named(str(UTM.crs))),
    "mercator": collection(*MERCATOR, crs=named("urn:ogc:def:crs:EPSG::3857")),
    "lon/lat by the authority's name": collection(*LL, crs=named("urn:ogc:def:crs:EPSG::4326")),
    "crs84": collection(*LL, crs=named("urn:ogc:def:crs:OGC:1.3:CRS84")),
    "heights": collection(lon_lat(poly(ring(10, 10, 60, 30, 13.0))), lon_lat(poly(ring(20, 40, 40, 70, 13.0)))),
    "open rings": collection(*[lon_lat(poly(r[:-1])) for r in (A, B)]),
    "no geometry": collection(*LL, None),
    "empty polygons": collection(*LL, poly(), {"type": "MultiPolygon", "coordinates": []}, poly([]), poly(A[:2])),
    "lines and points": collection(LINE, *LL, POINT),
    "no properties": {"features": [{"geometry": g} for g in LL]},
}


def written(folder: Path, document: Any, encoding: str = "utf-8") -> Path:
    path = folder / "p.geojson"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("kind", GOOD)
def test_every_form_gives_the_same_pixels(tmp_path: Path, kind: str) -> None:
    found = read_geojson(written(tmp_path, GOOD[kind]))
    burnt = rasterize(placed(found, lying(UTM)), (80, 80), transform=TO_MAP).astype(bool)
    np.testing.assert_array_equal(burnt, TRUTH)


def test_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    text = json.dumps(GOOD["features"], indent=1).replace("\n", "\r\n")
    assert len(read_geojson(written(tmp_path, text, "utf-8-sig")).polygons) == 2


def test_what_is_skipped_is_said(tmp_path: Path) -> None:
    assert read_geojson(written(tmp_path, GOOD["features"])).skipped == ""
    said = read_geojson(written(tmp_path, collection(LINE, *LL, POINT, POINT, None, poly()))).skipped
    assert "1 LineString and 2 Point and 1 without geometry and 1 empty polygon skipped" in said


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (collection(LINE, POINT), "holds 1 LineString and 1 Point and no polygon"),
        (collection(None), "holds 1 without geometry and no polygon"),
        (collection(LL[0], {"type": "Polygon"}), "feature 2 holds a polygon that is none"),
        (collection(LL[0], poly([["a", "b"]] * 4)), "feature 2 holds a polygon that is none"),
        (collection(poly([[1]] * 4)), "feature 1 holds a polygon that is none"),
        (collection({"type": "Curve", "coordinates": []}), "feature 1 has a geometry of type 'Curve'"),
        (collection(*LL, crs=named("EPSG:999999")), 'its crs "EPSG:999999" is not known; write it like'),
        (collection(*LL, crs=named("/etc/hostname")), "its crs .* is not known"),
        (collection(*LL, crs={"type": "link", "properties": {"href": "http://x"}}), "its crs .* is not known"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1], [0, 0]]]}', "is no finite number"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1e999, 1], [1, 1], [0, 0]]]}', "is no finite number"),
        (
            f'{{"type": "Polygon", "coordinates": [[[0, 0], [1{"0" * 400}, 1], [1, 1], [0, 0]]]}}',
            "polygon that is none",
        ),
        ("[" * 100_000, "nested too deeply"),
        ('{"features": ' + '{"geometries": [' * 100_000, "nested too deeply"),
        ({"type": "Topology", "objects": {}, "arcs": []}, r"its type is 'Topology'.*ogr2ogr -t_srs OGC:CRS84 \S+ \S+"),
        ({"geometryType": "esriGeometryPolygon", "features": []}, "Esri's JSON"),
        ({"type": "FeatureCollection", "features": None}, "it should hold a FeatureCollection"),
        ({"features": [{"geometry": LL[0], "properties": "x"}]}, "properties of feature 1 are no object"),
        ("{}\n{}", "Extra data.*one feature per line.*ogr2ogr"),
        ("<kml></kml>", "is XML and not GeoJSON"),
        ("3", "it should hold a FeatureCollection"),
    ],
)
def test_what_is_refused_names_the_feature(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_geojson(written(tmp_path, document))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(InputError, match=r"is UTF-16, and GeoJSON is UTF-8: iconv -f UTF-16 -t UTF-8 \S+p\.geojson"):
        read_geojson(written(tmp_path, collection(*LL), encoding))


def test_other_files_are_named_with_the_command(tmp_path: Path) -> None:
    for name, content, what in (
        ("a b.gpkg", b"", "is not read"),
        ("c.json", b"SQLite format 3\x00", "is a GeoPackage"),
        ("d.geojson", b"\x00\x00\x27\x0a", "is a Shapefile"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{what}.*ogr2ogr -t_srs OGC:CRS84 .*{name.split('.')[0]}.*geojson"):
            read_geojson(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        read_geojson(tmp_path / "none.geojson")
    with pytest.raises(InputError, match="is not a file"):
        read_geojson(tmp_path)


def test_metres_without_a_crs_are_no_degrees(tmp_path: Path) -> None:
    for crs in ({}, {"crs": named("EPSG:4326")}):
        found = read_geojson(written(tmp_path, collection(LL[0], poly(B), **crs)))
        with pytest.raises(
            InputError, match=r"feature 2 holds x 300020, y 2999960.*ogr2ogr -a_srs EPSG:32645 with_crs"
        ):
            placed(found, lying(UTM))


def test_swapped_degrees_that_cannot_be_are_said_to_be_swapped(tmp_path: Path) -> None:
    far = poly([[50.0, 120.0], [51.0, 120.0], [51.0, 121.0], [50.0, 120.0]])  # latitude 120
    with pytest.raises(InputError, match="seem to be swapped: GeoJSON has longitude first"):
        placed(read_geojson(written(tmp_path, collection(far))), lying(UTM))


def test_an_image_without_crs_takes_its_own_numbers_only(tmp_path: Path) -> None:
    own = read_geojson(written(tmp_path, collection(poly(A))))
    assert placed(own, lying(NO_CRS)) == placed(own, lying(None)) == [poly(A)]
    other = read_geojson(written(tmp_path, collection(poly(A), crs=named("EPSG:32645"))))
    with pytest.raises(InputError, match=r"is in EPSG:32645, and i\.tif has no CRS.*gdal_edit\.py -a_srs"):
        frame(other, NO_CRS, "i.tif")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["Polygon", "Point", "EPSG:4326", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "features", "geometry", "geometries", "coordinates", "crs"]), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.geojson"
    path.write_text(json.dumps(document))
    with suppress(InputError):
        for feature in read_geojson(path).polygons:
            assert rasterize([feature.geometry], (4, 4)).shape == (4, 4)
