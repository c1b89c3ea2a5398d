"""Polygons against rasterio's rasterize: what is written, rasterised again, is the label map, pixel for pixel."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform

from tilepipe.errors import UsageError
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.placing import STEP
from tilepipe.products.polygons import write_geojson
from tilepipe.products.vector_files import write_vectors
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.sources.georeference import ground_resolution

LEGEND = Legend("nuclei", ("background", "tumour", "straße"), ((9, 9, 9), (213, 94, 0), (0, 158, 115)), 255)
ALL = Legend("cover", ("water", "wood", "town"), LEGEND.palette, 255)
UTM, LONLAT = CRS.from_epsg(32645).to_wkt(), CRS.from_epsg(4326).to_wkt()
PLACES = {
    "utm": Georeference(UTM, (0.1493, 0.0, 300000.1, 0.0, -0.1493, 3000000.7)),
    "coarse utm": Georeference(UTM, (30.0, 0.0, 200000.0, 0.0, -30.0, 6000000.0)),
    "geographic": Georeference(LONLAT, (1 / 10800, 0.0, 85.1, 0.0, -1 / 9999, 27.7)),
    "rotated": Georeference(UTM, (0.3, 0.2, 300000.0, 0.2, -0.3, 3000000.0)),
    "south-up": Georeference(UTM, (0.5, 0.0, 300000.0, 0.0, 0.5, 3000000.0)),
    "millimetres": Georeference(UTM, (0.002, 0.0, 300000.0, 0.0, -0.002, 3000000.0)),
}


def random_labels(shape: tuple[int, int], seed: int = 0, size: int = 5) -> NDArray[np.uint8]:
    """Regions of labels 0 to 2 with nodata, with holes, islands and diagonal contacts."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 2, 255], size=(shape[0] // size + 1, shape[1] // size + 1))
    return np.kron(coarse, np.ones((size, size)))[: shape[0], : shape[1]].astype(np.uint8)


def read_features(path: Path) -> list[dict[str, Any]]:
    said = json.loads(path.read_text(encoding="utf-8"))
    assert said["type"] == "FeatureCollection"
    return list(said["features"])


def rasterised(features: list[dict[str, Any]], shape: tuple[int, int], back: Any, key: Any) -> NDArray[np.uint8]:
    """Rasterise rings after `back`, coordinates (N, 2) -> pixels (N, 2)."""
    burnt = [
        ({"type": "Polygon", "coordinates": [back(np.array(r)).tolist() for r in f["geometry"]["coordinates"]]}, key(f))
        for f in features
    ]
    return rasterize(burnt, shape, fill=255, dtype="uint8") if burnt else np.full(shape, 255, np.uint8)


def pixels_of(place: Georeference, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (column, row) of (longitude, latitude), each (N, 2)."""
    a, b, c, d, e, f = place.transform
    native = np.column_stack(transform(CRS.from_epsg(4326), CRS.from_wkt(place.crs), *points.T))
    return np.linalg.solve([[a, b], [d, e]], (native - (c, f)).T).T


@pytest.mark.parametrize("name", PLACES)
def test_round_trip_on_the_earth(tmp_path: Path, name: str) -> None:
    place, labels = PLACES[name], random_labels((200, 1100), size=9)
    write_geojson(label_map_of(labels, ALL, georeference=place), tmp_path / "a.geojson")

    def back(ring: NDArray[np.float64]) -> NDArray[np.float64]:
        assert np.abs(ring).max() <= 180
        pixels = pixels_of(place, ring)
        np.testing.assert_allclose(pixels, np.round(pixels), atol=0.02)  # corners stay within 2 % of a pixel
        return pixels

    features = read_features(tmp_path / "a.geojson")
    again = rasterised(features, labels.shape, back, lambda f: f["properties"]["class_id"])
    np.testing.assert_array_equal(again, labels)
    assert {f["properties"]["class_name"] for f in features} == set(ALL.classes)


@pytest.mark.parametrize(
    ("origin", "scale"), [((0, 0), (1.0, 1.0)), ((2048, 333), (4.00012, 3.9987)), ((7, 0), (0.5, 2))]
)
def test_round_trip_in_level_0_pixels(tmp_path: Path, origin: tuple[int, int], scale: tuple[float, float]) -> None:
    labels = random_labels((200, 1100), seed=1, size=9)
    write_geojson(label_map_of(labels, ALL, origin=origin, scale=scale), tmp_path / "a.geojson")

    def back(ring: NDArray[np.float64]) -> NDArray[np.float64]:
        return (ring - origin[::-1]) / scale[::-1]

    features = read_features(tmp_path / "a.geojson")
    again = rasterised(
        features, labels.shape, back, lambda f: ALL.classes.index(f["properties"]["classification"]["name"])
    )
    np.testing.assert_array_equal(again, labels)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(0, 99))
def test_round_trip_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, size: int, seed: int
) -> None:
    path, labels = tmp_path_factory.mktemp("json") / "a.geojson", random_labels((height, width), seed, size)
    write_geojson(label_map_of(labels, ALL), path)
    again = rasterised(
        read_features(path),
        labels.shape,
        np.asarray,
        lambda f: ALL.classes.index(f["properties"]["classification"]["name"]),
    )
    np.testing.assert_array_equal(again, labels)


def test_a_slide_speaks_qupath(tmp_path: Path) -> None:
    labels = np.zeros((90, 100), np.uint8)
    labels[5:85, 10:90] = 1
    labels[40:50, 40:50] = 0
    labels[0, 0] = 255
    write_geojson(label_map_of(labels, LEGEND, origin=(1000, 2000), scale=(2.0, 2.0)), tmp_path / "a.geojson")
    (feature,) = read_features(tmp_path / "a.geojson")
    assert UUID(feature["id"]).version == 5
    assert feature["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "tumour", "color": [213, 94, 0]},
    }
    outer, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"])
    assert (outer[0] == outer[-1]).all()
    assert outer.min(0).tolist() == [2020, 1010]  # the corners of the pixels, not their centres
    assert outer.max(0).tolist() == [2180, 1170]
    assert hole.min(0).tolist() == [2080, 1080]
    assert hole.max(0).tolist() == [2100, 1100]


def area(ring: list[list[float]]) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in itertools.pairwise(np.array(ring) - ring[0])) / 2


def test_rings_turn_as_rfc_7946_asks(tmp_path: Path) -> None:
    write_geojson(
        label_map_of(random_labels((60, 60), size=2), ALL, georeference=PLACES["utm"]), tmp_path / "a.geojson"
    )
    for feature in read_features(tmp_path / "a.geojson"):
        outer, *holes = feature["geometry"]["coordinates"]
        assert area(outer) > 0
        assert all(area(hole) < 0 for hole in holes)


@pytest.mark.parametrize("name", [*PLACES, "mercator at 60 degrees"])
def test_areas_are_those_of_tables_and_of_pyproj(tmp_path: Path, name: str) -> None:
    north = Georeference(CRS.from_epsg(3857).to_wkt(), (10.0, 0.0, 1e6, 0.0, -10.0, 8399738.0))
    place, labels = PLACES.get(name, north), random_labels((120, 200), size=20)
    known = label_map_of(labels, ALL, georeference=place, resolution=ground_resolution(place, *labels.shape))
    write_geojson(known, tmp_path / "a.geojson")
    features = read_features(tmp_path / "a.geojson")
    areas = [feature["properties"]["area_m2"] for feature in features]
    write_vectors(known, tmp_path / "a.parquet")
    np.testing.assert_allclose(areas, pq.read_table(tmp_path / "a.parquet")["area_m2"].to_numpy(), rtol=1e-9)
    geod = Geod(ellps="WGS84")
    shapes = [shapely.orient_polygons(shapely.from_geojson(json.dumps(one["geometry"]))) for one in features]
    expected = [geod.geometry_area_perimeter(shape)[0] for shape in shapes]
    np.testing.assert_allclose(areas, expected, rtol=3e-3)  # corners are rounded to a hundredth of a pixel


def test_areas_without_a_reference_system_are_those_of_the_pixels(tmp_path: Path) -> None:
    labels, place = random_labels((60, 60), size=2), Georeference(None, (0.5, 0.0, 7.0, 0.0, -0.25, 9.0))
    write_geojson(
        label_map_of(labels, ALL, georeference=place, resolution=Resolution(0.25, 0.5)), tmp_path / "a.geojson"
    )
    total = dict.fromkeys(range(3), 0.0)
    for feature in read_features(tmp_path / "a.geojson"):
        total[feature["properties"]["class_id"]] += feature["properties"]["area_m2"]
    assert total == {k: (labels == k).sum() * 0.125 for k in range(3)}


@pytest.mark.parametrize("place", [None, PLACES["utm"]], ids=["slide", "raster"])
def test_a_region_over_four_blocks_is_one_feature(tmp_path: Path, place: Georeference | None) -> None:
    labels = np.zeros((1100, 1200), np.uint8)
    labels[900:1090, 800:1190] = 1
    labels[1000:1050, 1000:1100] = 0
    write_geojson(label_map_of(labels, LEGEND, georeference=place), tmp_path / "a.geojson")
    (feature,) = read_features(tmp_path / "a.geojson")
    assert len(feature["geometry"]["coordinates"]) == 2, "one ring outside, one for the hole"


def test_class_0_is_left_out_only_when_it_is_the_background(tmp_path: Path) -> None:
    labels = np.zeros((4, 5), np.uint8)
    write_geojson(label_map_of(labels, ALL), tmp_path / "water.geojson")
    write_geojson(label_map_of(labels, LEGEND), tmp_path / "background.geojson")
    assert len(read_features(tmp_path / "water.geojson")) == 1
    assert read_features(tmp_path / "background.geojson") == []


def test_same_map_same_bytes_and_ids_differ(tmp_path: Path) -> None:
    labels = random_labels((50, 50))
    for name in "ab":
        write_geojson(label_map_of(labels, LEGEND), tmp_path / f"{name}.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    ids = [feature["id"] for feature in read_features(tmp_path / "a.geojson")]
    assert len(ids) == len(set(ids)) > 10


def test_long_edges_follow_the_curve(tmp_path: Path) -> None:
    """30 m pixels: between corners 1000 pixels apart, a straight line in degrees would leave the raster's edge."""
    place = PLACES["coarse utm"]
    write_geojson(label_map_of(np.ones((1000, 1000), np.uint8), LEGEND, georeference=place), tmp_path / "a.geojson")
    (feature,) = read_features(tmp_path / "a.geojson")
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert len(ring) == 4 * (1000 // STEP + 1) + 1
    middles = (ring[:-1] + ring[1:]) / 2
    columns, rows = pixels_of(place, middles).T
    off = np.minimum.reduce([np.abs(columns), np.abs(columns - 1000), np.abs(rows), np.abs(rows - 1000)])
    assert off.max() < 0.05


def test_ground_control_points_place_polygons(tmp_path: Path) -> None:
    """Points of an affine placement give that placement."""
    a, b, c, d, e, f = PLACES["utm"].transform
    gcps = tuple((r, q, a * q + b * r + c, d * q + e * r + f, 0.0) for r in (0, 50, 100) for q in (0, 60, 120))
    labels = random_labels((100, 120))
    for name, place in (("gcps", Georeference(UTM, None, gcps)), ("affine", PLACES["utm"])):
        write_geojson(label_map_of(labels, LEGEND, georeference=place), tmp_path / f"{name}.geojson")
    fitted, exact = (read_features(tmp_path / f"{name}.geojson") for name in ("gcps", "affine"))
    for one, other in zip(fitted, exact, strict=True):
        for ring, wanted in zip(one["geometry"]["coordinates"], other["geometry"]["coordinates"], strict=True):
            np.testing.assert_allclose(ring, wanted, rtol=0, atol=3e-8)


def test_across_the_180th_meridian_a_polygon_is_cut(tmp_path: Path) -> None:
    place = Georeference(CRS.from_epsg(32660).to_wkt(), (1000.0, 0, 800000.0, 0, -1000.0, 1000.0))
    write_geojson(label_map_of(np.ones((50, 100), np.uint8), LEGEND, georeference=place), tmp_path / "a.geojson")
    (feature,) = read_features(tmp_path / "a.geojson")
    assert feature["geometry"]["type"] == "MultiPolygon"
    for (outer,) in feature["geometry"]["coordinates"]:
        assert np.ptp(np.array(outer)[:, 0]) < 2


def test_pixels_off_the_earth_are_refused(tmp_path: Path) -> None:
    place = Georeference(CRS.from_string("+proj=ortho +lat_0=0 +lon_0=0").to_wkt(), (1e6, 0, -9e6, 0, -1e6, 9e6))
    with pytest.raises(UsageError, match="longitude"):
        write_geojson(label_map_of(np.ones((18, 18), np.uint8), LEGEND, georeference=place), tmp_path / "a.geojson")
    assert not list(tmp_path.iterdir())


def test_without_a_crs_coordinates_stay_native(tmp_path: Path) -> None:
    place = Georeference(None, (2.0, 0.0, 500.0, 0.0, -2.0, 900.0))
    write_geojson(label_map_of(np.ones((3, 4), np.uint8), LEGEND, georeference=place), tmp_path / "a.geojson")
    (feature,) = read_features(tmp_path / "a.geojson")
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert [ring.min(0).tolist(), ring.max(0).tolist()] == [[500, 894], [508, 900]]


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        write_geojson(label_map_of(random_labels((5, 5)), LEGEND), tmp_path / "a.geojson")
    assert (tmp_path / "a.geojson").read_text() == "mine"
