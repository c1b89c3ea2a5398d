"""Statistics per polygon, against rasterio's masks and brute force."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from rasterio.warp import transform_geom

import tilepipe as tp
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.labels import Labels
from tilepipe.sources.base import Georeference, Resolution

RNG = np.random.default_rng(3)
VALUES = RNG.choice([0, 1, 2, 255], (90, 120), p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
TRANSFORM = Affine(10, 0, 500000, 0, -10, 4000000)
LEGEND = Legend("test", ("other", "wood", "water"), ((0, 0, 0),) * 3, 255)
SQUARE = {"type": "Polygon", "coordinates": [[[20, 10], [70, 15], [60, 60], [20, 10]]]}
RING = {
    "type": "Polygon",
    "coordinates": [[[5, 5], [100, 5], [100, 80], [5, 80], [5, 5]], [[30, 30], [30, 50], [50, 50], [50, 30], [30, 30]]],
}


def on_earth(shape: Any) -> Any:
    """Return a polygon in pixels as one in the CRS of the labels."""
    rings = [[list(TRANSFORM * tuple(point)) for point in ring] for ring in shape["coordinates"]]
    return {"type": "Polygon", "coordinates": rings}


def located() -> Labels:
    known = Georeference(crs=CRS.from_epsg(32633).to_wkt(), transform=tuple(TRANSFORM)[:6])
    return Labels(label_map_of(VALUES, LEGEND, georeference=known))


def wanted(shape: Any) -> list[int]:
    inside = ~geometry_mask([shape], VALUES.shape, Affine.identity())
    return [int((VALUES[inside] == value).sum()) for value in (0, 1, 2)]


@pytest.mark.parametrize("labels", [VALUES, Labels(label_map_of(VALUES, LEGEND))], ids=["array", "labels"])
def test_pixels_are_those_of_rasterios_mask(labels: Any) -> None:
    table = tp.zonal(labels, [SQUARE, RING])
    assert table["pixels"] == wanted(SQUARE) + wanted(RING)
    assert table["zone"] == [1, 1, 1, 2, 2, 2]
    inside = ~geometry_mask([RING], VALUES.shape, Affine.identity())
    assert table[3]["nodata"] == int((VALUES[inside] == 255).sum())
    assert sum(table["share"][:3]) == pytest.approx(1)
    assert "area_m2" not in table.columns


def test_polygons_of_every_form_give_the_same(tmp_path: Path) -> None:
    lonlat = [transform_geom("EPSG:32633", "OGC:CRS84", on_earth(shape)) for shape in (SQUARE, RING)]
    document = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "geometry": g, "properties": {"name": f"n{k}"}} for k, g in enumerate(lonlat)],
    }
    (tmp_path / "areas.geojson").write_text(json.dumps(document))

    frame = SimpleNamespace(crs=SimpleNamespace(to_wkt=lambda: "EPSG:32633"))  # what a GeoDataFrame shows of itself
    parts = [{"type": "Feature", "geometry": on_earth(shape), "properties": {}} for shape in (SQUARE, RING)]
    frame.__geo_interface__ = {"type": "FeatureCollection", "features": parts}
    found = tp.zonal(located(), str(tmp_path / "areas.geojson"))
    assert found["name"][::3] == ["n0", "n1"]
    assert found["class"][:3] == ["other", "wood", "water"]
    for given in (document, frame, [on_earth(SQUARE), on_earth(RING)]):
        again = tp.zonal(located(), given)
        assert again["pixels"] == found["pixels"] == wanted(SQUARE) + wanted(RING)
    assert tp.zonal(located(), lonlat, crs="EPSG:4326")["pixels"] == found["pixels"]
    # UTM shrinks by 0.9996 at the middle of its zone.
    assert found["area_m2"][1] == pytest.approx(found["pixels"][1] * 100, rel=2e-3)


def test_labels_of_a_slide_are_measured_in_its_pixels() -> None:
    cut = Labels(label_map_of(VALUES[10:, 20:], LEGEND, origin=(10, 20), resolution=Resolution(0.5, 0.5, "um")))
    table = tp.zonal(cut, [SQUARE])
    assert table["pixels"] == wanted(SQUARE)
    assert table["area_mm2"][0] == pytest.approx(wanted(SQUARE)[0] * 0.25e-6)


def test_what_predict_gives_is_taken_with_its_names() -> None:
    centres = {"y": 4000000 - 10 * (np.arange(90) + 0.5), "x": 500000 + 10 * (np.arange(120) + 0.5)}
    attrs = {"crs": "EPSG:32633", "flag_meanings": "other wood water"}
    array = xarray.DataArray(VALUES, centres, ("y", "x"), attrs=attrs)
    table = tp.zonal(array, [on_earth(RING)])
    assert (table["class"], table["pixels"]) == (["other", "wood", "water"], wanted(RING))


def test_what_lies_elsewhere_counts_nothing_and_nothing_at_all_is_refused() -> None:
    far = {"type": "Polygon", "coordinates": [[[900, 900], [910, 900], [910, 910], [900, 900]]]}
    table = tp.zonal(VALUES, [far, SQUARE])
    assert table["pixels"] == [0, 0, 0, *wanted(SQUARE)]
    for given in ([far], [], 3, "missing.geojson", [{"type": "Point", "coordinates": [1, 2]}]):
        with pytest.raises(tp.TilepipeError):
            tp.zonal(VALUES, given)
    with pytest.raises(tp.TilepipeError, match="one band"):
        tp.zonal(np.zeros((3, 50, 50), np.uint8), [SQUARE])
