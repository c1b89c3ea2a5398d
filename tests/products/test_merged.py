"""The VRT over many label rasters, read by GDAL and compared with the rasters; the index of outlines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LabelMap, Legend, label_map_of
from tilepipe.products.merged import groups_of, why_not_merged, write_index, write_vrt
from tilepipe.sources.base import Georeference

LEGEND = Legend("land", ("background", "wood & <b>"), ((0, 0, 0), (10, 200, 30)), 255)
UTM = rasterio.crs.CRS.from_epsg(32645).to_wkt()


def written(path: Path, y: float, x: float, crs: str | None = UTM, size: float = 2.0) -> tuple[Path, LabelMap]:
    pixels = np.random.default_rng(len(path.name) + int(x)).integers(0, 2, (30, 40)).astype(np.uint8)
    pixels[:3] = 255
    place = Georeference(crs, (size, 0.0, x, 0.0, -size, y))
    labels = label_map_of(pixels, LEGEND, georeference=place)
    path.parent.mkdir(exist_ok=True)
    write_cog(labels, path)
    return path, labels


def test_gdal_reads_the_pixels_of_all_rasters(tmp_path: Path) -> None:
    maps = [written(tmp_path / "out" / f"{k}.tif", 1000 - 60 * (k // 2), 500 + 80 * (k % 2)) for k in range(3)]
    write_vrt(tmp_path / "all.vrt", maps)
    with rasterio.open(tmp_path / "all.vrt") as found:
        assert (found.width, found.height, found.nodata) == (80, 60, 255)
        assert found.crs.to_epsg() == 32645
        assert found.colormap(1)[1][:3] == (10, 200, 30)
        for path, _ in maps:
            with rasterio.open(path) as one:
                row, column = ~found.transform * (one.transform.c, one.transform.f)
                window = Window(row, column, one.width, one.height)
                assert np.array_equal(found.read(1, window=window), one.read(1))
        assert (found.read(1)[30:, 40:] == 255).all()


def test_rasters_that_do_not_fit_get_a_vrt_of_their_own(tmp_path: Path) -> None:
    north = rasterio.crs.CRS.from_epsg(32646).to_wkt()
    maps = [
        written(tmp_path / "a.tif", 0, 0),
        written(tmp_path / "b.tif", 0, 80),
        written(tmp_path / "c.tif", 0, 0, north),
        written(tmp_path / "d.tif", 0, 0, size=3.0),
    ]
    found = groups_of(maps)
    assert {name: [path.name for path, _ in group] for name, group in found.items()} == {
        "EPSG_32645-1": ["a.tif", "b.tif"], "EPSG_32646-2": ["c.tif"], "EPSG_32645-3": ["d.tif"],
    }  # fmt: skip
    assert groups_of([]) == {}
    assert (
        why_not_merged(label_map_of(np.zeros((2, 2), np.uint8), LEGEND)) == "it has no reference system or no transform"
    )


def test_a_raster_off_the_grid_keeps_its_place(tmp_path: Path) -> None:
    maps = [written(tmp_path / "a.tif", 0, 0), written(tmp_path / "b.tif", 0, 80.5)]
    write_vrt(tmp_path / "all.vrt", maps)
    assert 'xOff="40.25"' in (tmp_path / "all.vrt").read_text()
    with rasterio.open(tmp_path / "all.vrt") as found:
        assert found.width == 81


def test_an_index_of_outlines(tmp_path: Path) -> None:
    _, labels = written(tmp_path / "a.tif", 3_000_000, 500_000)
    write_index(tmp_path / "all.geojson", [({"image": "a"}, labels), ({"image": "b"}, None)])
    found = json.loads((tmp_path / "all.geojson").read_text())
    (ring,) = found["features"][0]["geometry"]["coordinates"]
    assert ring[0] == pytest.approx([87.0, 27.12], abs=0.01)
    assert found["features"][1] == {"type": "Feature", "geometry": None, "properties": {"image": "b"}}
