"""GeoZarr attributes: zarr-cm validates them, rioxarray finds the place that rasterio finds in the COG."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from rasterio.crs import CRS

from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LabelMap, Legend, Measure, label_map_of
from tilepipe.products.ome_zarr import read_ome_zarr, write_ome_zarr
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference

LEGEND = Legend("roofs", ("background", "roof"), ((1, 1, 1), (2, 2, 2)), 255)
MARGIN = Legend("margin", (), (), 255, Measure(1 / 254, "how sure"))
PIXELS = np.random.default_rng(0).integers(0, 2, (1300, 2101), dtype=np.uint8)
LAEA = CRS.from_proj4("+proj=laea +lat_0=12 +lon_0=34 +datum=WGS84 +units=m")
PLACES = {
    "utm": Georeference(CRS.from_epsg(32645).to_wkt(), (0.5, 0.0, 300000.25, 0.0, -0.5, 3000000.75)),
    "turned": Georeference(CRS.from_epsg(32645).to_wkt(), (3.0, 4.0, 300000.0, 4.0, -3.0, 3000000.0)),
    "no code": Georeference(LAEA.to_wkt(), (10.0, 0.0, 0.0, 0.0, -10.0, 0.0)),
    "degrees": Georeference(CRS.from_epsg(4326).to_wkt(), (1e-4, 0.0, -60.0, 0.0, -1e-4, -3.0)),
    "no crs": Georeference(None, (2.0, 0.0, 7.0, 0.0, -2.0, 9.0)),
}


def labels(name: str, legend: Legend = LEGEND) -> LabelMap:
    return label_map_of(PIXELS, legend, georeference=PLACES[name])


def groups_of(folder: Path) -> dict[str, Any]:
    """Return the attributes of each group and array that has some of GeoZarr, by its path."""
    metadata = {path.parent: json.loads(path.read_text()) for path in folder.rglob("zarr.json")}
    return {
        path.relative_to(folder).as_posix(): found
        for path, found in metadata.items()
        if "zarr_conventions" in found["attributes"]
    }


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("kind", ["labels", "layer", "with image"])
def test_levels_lie_where_the_levels_of_the_cog_lie(name: str, kind: str, tmp_path: Path) -> None:
    shown = labels(name, MARGIN if kind == "layer" else LEGEND)
    write_cog(shown, tmp_path / "a.tif")
    write_ome_zarr(shown, tmp_path / "a.zarr", ArraySource(PIXELS) if kind == "with image" else None)
    found = groups_of(tmp_path / "a.zarr")
    inner = "." if kind == "layer" else "labels/roofs"
    assert set(found) >= {".", inner, *(f"{inner}/{level}" if inner != "." else str(level) for level in range(3))}
    with rasterio.open(tmp_path / "a.tif") as cog:
        crs, transform, shape = cog.crs, cog.transform, cog.shape
    for path, node in found.items():
        said = node["attributes"]
        assert said["spatial:dimensions"] == ["y", "x"]
        wkt = said.get("proj:wkt2") or said.get("proj:code")
        assert (CRS.from_user_input(wkt) if wkt else None) == crs
        if node["node_type"] == "array":
            level = int(path.split("/")[-1])
            assert rasterio.Affine(*said["spatial:transform"]) == transform * rasterio.Affine.scale(2**level)
            assert said["spatial:shape"] == node["shape"][-2:] == [-(-size // 2**level) for size in shape]
            continue
        for level, row in enumerate(said["multiscales"]["layout"]):
            array = zarr.open_array(tmp_path / "a.zarr" / path / row["asset"], mode="r")
            assert array.attrs["spatial:transform"] == row["spatial:transform"]
            assert row.get("derived_from") == (said["multiscales"]["layout"][level - 1]["asset"] if level else None)
    read = read_ome_zarr(tmp_path / "a.zarr") if kind != "with image" else None
    assert read is None or read.georeference == PLACES[name]


@pytest.mark.parametrize("name", PLACES)
def test_zarr_cm_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    zarr_cm = pytest.importorskip("zarr_cm")
    write_ome_zarr(labels(name), tmp_path / "a.zarr")
    for node in groups_of(tmp_path / "a.zarr").values():
        zarr_cm.validate_all(node)
        names = {one["name"] for one in node["attributes"]["zarr_conventions"]}
        assert names >= ({"spatial"} if name == "no crs" else {"proj", "spatial"})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="rioxarray knows GeoZarr since 0.20, which needs Python 3.12")
@pytest.mark.parametrize("name", ["utm", "turned", "no code", "degrees"])
def test_rioxarray_finds_the_place(name: str, tmp_path: Path) -> None:
    pytest.importorskip("rioxarray", minversion="0.20")
    import xarray

    write_cog(labels(name), tmp_path / "a.tif")
    write_ome_zarr(labels(name), tmp_path / "a.zarr")
    with rasterio.open(tmp_path / "a.tif") as cog:
        for level in range(3):
            others = [str(other) for other in range(3) if other != level]
            data = xarray.open_zarr(tmp_path / "a.zarr/labels/roofs", consolidated=False, drop_variables=others)
            found = data[str(level)]
            assert found.rio.crs == cog.crs
            assert found.rio.transform() == cog.transform * rasterio.Affine.scale(2**level)


@pytest.mark.parametrize(
    "place", [None, Georeference(CRS.from_epsg(4326).to_wkt(), None, ((0.0, 0.0, 1.0, 2.0, 0.0),) * 3)]
)
def test_without_an_affine_position_there_are_no_such_attributes(place: Any, tmp_path: Path) -> None:
    write_ome_zarr(label_map_of(PIXELS, LEGEND, georeference=place), tmp_path / "a.zarr")
    assert groups_of(tmp_path / "a.zarr") == {}
