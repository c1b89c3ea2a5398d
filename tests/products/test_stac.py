"""STAC items: pystac validates them offline and reads them; footprints against single pixels carried by pyproj."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from helpers.stac_schemas import HAS_SCHEMAS, needs_schemas, refuse_wrong_extensions
from jsonschema import ValidationError
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_gcps

from tilepipe.products.footprint import bounds_of, footprint_of
from tilepipe.products.formats import PRODUCTS, File
from tilepipe.products.label_map import LABELS, LabelMap, Legend, Measure, label_map_of
from tilepipe.products.material import Material
from tilepipe.products.stac import item_of
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.sources.georeference import ground_resolution

LEGEND = Legend("cover", ("water", "wood", "straße", "???"), ((9, 9, 9), (213, 94, 0), (0, 158, 115), (1, 2, 3)), 255)
PIXELS = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (60, 90))
PLACES = {
    "utm": (32645, (500.0, 0.0, 300000.0, 0.0, -500.0, 3000000.0)),
    "mercator": (3857, (0.15, 0.0, 9520400.0, 0.0, -0.15, 3202900.0)),
    "degrees": (4326, (1e-3, 0.0, -60.0, 0.0, -1e-3, -3.0)),
    "turned": (32645, (300.0, 400.0, 300000.0, 400.0, -300.0, 3000000.0)),
    "fiji": (3832, (5e3, 0.0, 33.4e5 - 45 * 5e3, 0.0, -5e3, -18e5)),
    "beyond 180": (4326, (0.01, 0.0, 179.6, 0.0, -0.01, -16.0)),
    "north pole": (3413, (1e4, 0.0, -45e4, 0.0, -1e4, 30e4)),
    "south pole": (3031, (1e4, 0.0, -20e4, 0.0, -1e4, 30e4)),
    "beside the pole": (3413, (1e4, 0.0, 20e4, 0.0, -1e4, 30e4)),
    "half of the earth": (4326, (4.0, 0.0, -180.0, 0.0, -3.0, 90.0)),
}


def map_at(epsg: int, transform: Any, pixels: Any = PIXELS) -> LabelMap:
    place = Georeference(CRS.from_epsg(epsg).to_wkt(), transform)
    return label_map_of(pixels, LEGEND, georeference=place, resolution=ground_resolution(place, *pixels.shape))


def item(labels: LabelMap, *files: File, **facts: Any) -> tuple[dict[str, Any], list[str]]:
    material = Material.of({LABELS: labels})
    assets = tuple(file.asset for file in files)
    material = Material(material.maps, material.tally, facts=facts, assets=assets)
    found = item_of(material, Path("/data/out/a b.item.json"))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found, material.notes


def validated(found: dict[str, Any]) -> Any:
    """The schema of STAC's core lies in the package pystac, those of extensions in eopf. The latter let fields pass
    that an extension does not know, so these are refused here."""
    pystac = pytest.importorskip("pystac")
    from pystac.validation import validate_dict

    validate_dict(found, extensions=[])
    if HAS_SCHEMAS:
        refuse_wrong_extensions(found)
    known = {
        "proj": {"code", "wkt2", "projjson", "geometry", "bbox", "centroid", "shape", "transform"},
        "classification": {"classes", "bitfields"},
        "processing": {"level", "lineage", "software", "facility", "version", "datetime", "expression"},
    }
    for fields in (found["properties"], *found["assets"].values()):
        for key in fields:
            space, _, name = key.partition(":")
            assert not name or space not in known or name in known[space], key
    assert not [uri for uri in found["stac_extensions"] if "/mlm/" in uri], "an item with MLM must hold a model"
    return pystac.Item.from_dict(found)


@pytest.mark.parametrize("name", PLACES)
def test_the_footprint_holds_the_pixels_and_nothing_else(name: str) -> None:
    epsg, transform = PLACES[name]
    labels = map_at(epsg, transform)
    found = footprint_of(labels)
    assert found is not None
    shape = shapely.geometry.shape(found)
    assert shape.is_valid
    west, south, east, north = shape.bounds
    assert west >= -180
    assert east <= 180
    assert south >= -90
    assert north <= 90
    a, b, c, d, e, f = transform
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    rng = np.random.default_rng(1)
    for inside in (True, False):
        x, y = rng.uniform(0, 90, 2000), rng.uniform(0, 60, 2000)
        if not inside:  # a ring of one map's size around the map
            x, y = rng.uniform(-90, 180, 4000), rng.uniform(-60, 120, 4000)
            off = (x < -0.5) | (x > 90.5) | (y < -0.5) | (y > 60.5)
            x, y = x[off], y[off]
        lon, lat = to_degrees.transform(a * x + b * y + c, d * x + e * y + f)
        there = np.isfinite(lon) & (np.abs(lat) <= 90) & (inside | (name != "half of the earth") | (np.abs(lon) < 180))
        lon = (lon[there] + 180) % 360 - 180
        points = shapely.points(lon, lat[there])
        # A chord of a sixteenth of an edge leaves out, or adds, less than a hundredth of the map's width.
        grown = shape.buffer(2e-6) if inside else shape.buffer(-2e-6)
        assert not points.size or (shapely.contains(grown, points) == inside).mean() > 0.99
    rings = [list(part.exterior.coords) for part in getattr(shape, "geoms", [shape])]
    assert all(shapely.LinearRing(ring).is_ccw for ring in rings)
    crosses = name in ("fiji", "beyond 180")
    left, _, right, _ = bounds_of(found)
    assert (found["type"] == "MultiPolygon") == crosses == (left > right)
    assert len(rings[0]) == (5 if name in ("mercator", "degrees", "beyond 180", "half of the earth") else len(rings[0]))


def test_control_points_place_a_footprint() -> None:
    grid = (1e-3, 0.0, 20.0, 0.0, -1e-3, 50.0)
    points = tuple((r, c, 20 + c * 1e-3, 50 - r * 1e-3, 0.0) for r in (0.0, 60.0) for c in (0.0, 90.0))
    assert np.allclose(tuple(from_gcps([GroundControlPoint(*p) for p in points]))[:6], grid)
    labels = label_map_of(PIXELS, LEGEND, georeference=Georeference(CRS.from_epsg(4326).to_wkt(), None, points))
    found, _ = item(labels, File("cog", Path("/data/out/a.tif")))
    assert found["bbox"] == pytest.approx([20.0, 49.94, 20.09, 50.0])
    assert found["assets"]["cog"]["proj:shape"] == [60, 90]
    assert "proj:transform" not in found["assets"]["cog"]
    validated(found)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (None, "no position on the earth"),
        (Georeference(None, (2.0, 0.0, 5.0, 0.0, -2.0, 9.0)), "no coordinate reference system"),
        (Georeference(None, rpcs=(("LINE_OFF", "1"),)), "neither a transform nor control points"),
        (Georeference('LOCAL_CS["site",UNIT["metre",1]]', (2.0, 0.0, 5.0, 0.0, -2.0, 9.0)), "corners outside"),
    ],
)
def test_without_a_place_on_the_earth_there_is_no_geometry_and_that_is_said(place: Any, why: str) -> None:
    labels = label_map_of(PIXELS, LEGEND, georeference=place, resolution=Resolution(0.5, 0.5, "um"))
    found, notes = item(labels, File("ome-zarr", Path("/data/out/a.ome.zarr")))
    assert found["geometry"] is None
    assert "bbox" not in found
    assert "gsd" not in found["properties"]
    assert any(why in note and note.endswith("so the item has no geometry") for note in notes)
    assert found["properties"]["proj:code"] is None
    validated(found)


def test_pystac_reads_what_rasterio_and_numpy_say() -> None:
    pytest.importorskip("pystac")
    from pystac.extensions.classification import ClassificationExtension
    from pystac.extensions.projection import ProjectionExtension

    labels = map_at(*PLACES["utm"])
    found, _ = item(labels, File("cog", Path("/data/out/a b.tif")), File("csv", Path("/data/out/a b.csv")))
    read = validated(found)
    assert read.id == "a b"
    asset = read.assets["cog"]
    assert asset.href == "./a%20b.tif"
    grid = ProjectionExtension.ext(asset)
    assert grid.code == "EPSG:32645"
    assert grid.shape == [60, 90]
    assert tuple(grid.transform or ()) == PLACES["utm"][1]
    assert grid.bbox == [300000.0, 2970000.0, 345000.0, 3000000.0]
    assert shapely.geometry.shape(grid.geometry).equals(shapely.box(*grid.bbox))
    classes = ClassificationExtension.ext(asset).classes or []
    assert [(one.value, one.name, one.title) for one in classes[:4]] == [
        (0, "water", "water"), (1, "wood", "wood"), (2, "stra-e", "straße"), (3, "class-3", "???")
    ]  # fmt: skip
    assert [one.color_hint for one in classes[:4]] == ["090909", "D55E00", "009E73", "010203"]
    assert [one.properties["count"] for one in classes] == [int((one.value == PIXELS).sum()) for one in classes]
    assert [one.value for one in classes if one.nodata] == [255]
    assert asset.to_dict()["nodata"] == 255
    assert "classification:classes" not in read.assets["csv"].to_dict()
    assert read.properties["gsd"] == pytest.approx(ground_resolution(labels.georeference, 60, 90).x, rel=1e-3)  # type: ignore[union-attr]


@needs_schemas
@pytest.mark.parametrize(
    ("asset", "field", "wrong"),
    [
        ("cog", "proj:shape", [60]),
        ("cog", "proj:geometry", {"type": "Polygon", "coordinates": [[1, 2]]}),
        ("cog", "classification:classes", [{"value": "0"}]),
        (None, "processing:software", {"torch": 2}),
        (None, "proj:code", 32645),
    ],
)
def test_the_schemas_of_extensions_refuse_what_is_wrong(asset: str | None, field: str, wrong: Any) -> None:
    found, _ = item(map_at(*PLACES["utm"]), File("cog", Path("/data/out/a.tif")))
    refuse_wrong_extensions(found)
    (found["assets"][asset] if asset else found["properties"])[field] = wrong
    with pytest.raises(ValidationError):
        refuse_wrong_extensions(found)


def test_a_system_without_a_code_is_written_as_wkt2() -> None:
    own = CRS.from_proj4("+proj=laea +lat_0=12 +lon_0=34 +datum=WGS84 +units=m")
    place = Georeference(own.to_wkt(), (10.0, 0.0, 0.0, 0.0, -10.0, 0.0))
    found, _ = item(label_map_of(PIXELS, LEGEND, georeference=place), File("cog", Path("/data/out/a.tif")))
    assert found["properties"]["proj:code"] is None
    assert CRS.from_wkt(found["properties"]["proj:wkt2"]) == own
    assert found["properties"]["proj:wkt2"].startswith("PROJCRS[")
    validated(found)


@pytest.mark.parametrize(
    ("acquired", "fields"),
    [
        ("2024-05-01T10:30:00Z", {"datetime": "2024-05-01T10:30:00Z"}),
        (
            "2024-05-01T10:30:00Z/2024-05-02T00:00:00Z",
            {"datetime": None, "start_datetime": "2024-05-01T10:30:00Z", "end_datetime": "2024-05-02T00:00:00Z"},
        ),
        (
            "",
            {"datetime": None, "start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "2026-01-02T03:04:05Z"},
        ),
    ],
)  # fmt: skip
def test_the_time_is_that_of_the_image_or_an_open_span_which_is_said(acquired: str, fields: dict[str, Any]) -> None:
    found, notes = item(map_at(*PLACES["utm"]), ended="2026-01-02T03:04:05+00:00", acquired=acquired)
    assert {key: found["properties"].get(key) for key in fields} == fields
    assert found["properties"]["created"] == "2026-01-02T03:04:05Z"
    assert bool(notes) == (not acquired)
    assert all("nothing says when the image was taken" in note for note in notes)
    validated(found)


def test_image_and_model_are_named() -> None:
    facts = {"source": "/data/in/x y.tif", "model": "/models/roofs.model", "versions": {"torch": "2", "weights": "ab"}}
    found, _ = item(map_at(*PLACES["utm"]), File("cog", Path("/data/out/a.tif")), plain="All is well.", **facts)
    image, model = found["links"]
    assert (image["rel"], image["href"], image["type"]) == ("derived_from", "../in/x%20y.tif", "image/tiff")
    assert (model["rel"], model["mlm:name"], model["processing:level"]) == ("derived_from", "roofs", "L4")
    assert model["href"] == "../../models/roofs.model"
    assert found["assets"]["cog"]["mlm:name"] == "roofs"
    assert found["properties"]["processing:lineage"] == "Labels by the model roofs. All is well."
    assert found["properties"]["processing:software"] == {"torch": "2"}
    validated(found)
    found, _ = item(map_at(*PLACES["utm"]), File("cog", Path("/data/out/a.tif")), source="array", model="buildings")
    assert found["links"] == []
    assert found["assets"]["cog"]["mlm:name"] == "buildings"


def test_each_model_of_an_ensemble_is_linked() -> None:
    facts = {"source": "/data/in.tif", "model": ["/models/a.model", "forest", "/models/b.model"]}
    found, _ = item(map_at(*PLACES["utm"]), File("cog", Path("/data/out/a.tif")), **facts)
    assert [link.get("mlm:name") for link in found["links"]] == [None, "a", "b"]
    assert found["assets"]["cog"]["mlm:name"] == "a + forest + b"
    validated(found)


def test_a_layer_says_what_its_values_mean() -> None:
    labels = map_at(*PLACES["utm"])
    margin = label_map_of(PIXELS, Legend("margin", (), (), 255, Measure(1 / 254, "how sure")))
    files = [File("cog", Path("/data/out/a.tif")), File("cog", Path("/data/out/a.margin.tif"), "margin")]
    material = Material.of({LABELS: labels, "margin": margin})
    material = Material(material.maps, material.tally, assets=tuple(file.asset for file in files))
    layer = item_of(material, Path("/data/out/a.item.json"))["assets"]["margin-cog"]
    assert layer["roles"] == ["data", "uncertainty"]
    assert layer["description"].startswith("how sure; a value times 0.0039")
    assert "classification:classes" not in layer


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product_has_a_media_type_and_a_role(product: str) -> None:
    assert "/" in PRODUCTS[product].media
    assert PRODUCTS[product].role in ("data", "overview", "metadata")
