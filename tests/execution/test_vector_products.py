"""Polygons as products of a run and of an export: options change them alone, and what cannot be is refused first."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from helpers.small_runs import CODES, segment, work
from rasterio.features import rasterize

import tilepipe as tp
from tilepipe.errors import LockedError, UsageError
from tilepipe.execution.export import export
from tilepipe.products import formats
from tilepipe.sources.array import ArraySource
from tilepipe.testing import random_unet

MODEL = random_unet()
CODES_OF_BLOCKS = ArraySource(np.kron(CODES[:12, :18], np.ones((5, 5), np.uint8)))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 90, 130), dtype=np.uint8)
    place = {"transform": rasterio.Affine(0.5, 0, 300000, 0, -0.5, 3000000), "crs": "EPSG:32645"}
    with rasterio.open(
        tmp_path / "in.tif", "w", driver="GTiff", count=3, height=90, width=130, dtype="uint8", **place
    ) as file:
        file.write(pixels)
    return tmp_path / "in.tif"


def columns(path: Path) -> dict[str, Any]:
    meta, _, _, fields = pyogrio.raw.read(path, layer=0)
    return dict(zip(meta["fields"], fields, strict=True))


def burnt(path: Path, like: Path) -> Any:
    import shapely

    _, _, shapes, fields = pyogrio.raw.read(path, layer=0)
    with rasterio.open(like) as file:
        pairs = zip(shapely.from_wkb(shapes), fields[1].tolist(), strict=True)
        return rasterize(list(pairs), file.shape, fill=255, transform=file.transform, dtype="uint8"), file.read(1)


def test_a_geopackage_lies_beside_the_raster(image: Path) -> None:
    result = tp.segment(image, MODEL, of="cog,vectors", tile=32, block=40)
    assert [path.name for path in result.paths] == ["in.labels.tif", "in.labels.gpkg"]
    again, labels = burnt(result.paths[1], result.paths[0])
    np.testing.assert_array_equal(again, labels)
    again = export(result.paths[0], image.with_name("b.gpkg"))[0]
    assert again.read_bytes() == result.paths[1].read_bytes()


def test_the_margin_is_told_by_a_run_and_by_an_export_of_its_labels(image: Path) -> None:
    run = tp.segment(image, MODEL, image.with_name("a.tif"), of="cog,vectors", layers="margin", tile=32)
    alone = tp.segment(image, MODEL, image.with_name("b.gpkg"), layers="margin", tile=32)
    assert [path.name for path in alone.paths] == ["b.gpkg"]
    files = [run.paths[1], alone.paths[0], export(run.paths[0], image.with_name("c.gpkg"))[0]]
    found = [columns(path)["margin_avg"] for path in files]
    assert np.unique(found[0]).size > 5
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    with run.paths[2].open("ab") as file:
        file.write(b"changed")
    assert "margin_avg" not in columns(export(run.paths[0], image.with_name("d.gpkg"))[0]), "the layer was changed"


@pytest.mark.long
def test_the_ending_names_the_format(tmp_path: Path) -> None:
    segment(tmp_path / "a.tif")
    for name in ("a.fgb", "a.shp.zip", "a.gpkg"):
        export(tmp_path / "a.tif", tmp_path / name)
        assert (
            len(columns(tmp_path / name)["id"]) == len(columns(tmp_path / "a.gpkg")["id"]) if "gpkg" in name else True
        )
    assert export(tmp_path / "a.tif", tmp_path / "b.fgb", of="vectors") == [tmp_path / "b.fgb"]
    assert export(tmp_path / "a.tif", tmp_path / "c", of="vectors,geoparquet")[1].name == "c.parquet"


def test_options_belong_to_no_run_key_and_change_no_file_unasked(image: Path) -> None:
    output = image.with_name("a.tif")
    first = tp.segment(image, MODEL, output, of="cog,vectors", tile=32)
    before = {path: path.read_bytes() for path in first.paths}
    with pytest.raises(UsageError, match=r"a\.gpkg exists and was written with other options"):
        tp.segment(image, MODEL, output, of="cog,vectors", tile=32, crs="EPSG:4326")
    assert {path: path.read_bytes() for path in first.paths} == before
    second = tp.segment(image, MODEL, output, of="cog,vectors", tile=32, crs="EPSG:4326", overwrite=True)
    assert second.record["request"] == first.record["request"]
    assert second.record["key"] == first.record["key"]
    assert pyogrio.read_info(second.paths[1], layer=0)["crs"] == "EPSG:4326"
    assert output.read_bytes() == before[output]
    stamp = second.paths[1].stat().st_mtime_ns
    tp.segment(image, MODEL, output, of="cog,vectors", tile=32, crs="EPSG:4326")
    assert second.paths[1].stat().st_mtime_ns == stamp, "complete"
    tp.segment(image, MODEL, output, of="cog", tile=32)


def test_options_that_change_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shapefile, vectors to `of`"):
        segment(tmp_path / "a.tif", crs="EPSG:4326")
    with pytest.raises(UsageError, match="GeoJSON is in longitude and latitude"):
        segment(tmp_path / "a.geojson", crs="EPSG:4326")
    for options in ({"min_area": 5}, {"simplify": 1.0, "smooth": True}):
        with pytest.raises(UsageError, match=r"changes polygons.*, and none are written"):
            segment(tmp_path / "a.tif", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"min_area": 0}, {"fill_holes": "some"}, {"simplify": -1.0}, {"smooth": "yes"}])
def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be used; give"):
        segment(tmp_path / "a.geojson", **options)


def test_geojson_is_cleaned_up_as_tables_are(tmp_path: Path) -> None:
    plain = segment(tmp_path / "a.geojson", CODES_OF_BLOCKS).paths[0]
    segment(
        tmp_path / "b.tif", CODES_OF_BLOCKS, of=["cog", "geojson", "vectors"], min_area=30, fill_holes=4, simplify=1.0
    )
    counts = [len(json.loads(path.read_text())["features"]) for path in (plain, tmp_path / "b.geojson")]
    assert counts[0] > counts[1] == len(columns(tmp_path / "b.gpkg")["id"]) > 0
    assert columns(tmp_path / "b.gpkg")["area_px"].min() > 20


def test_a_missing_package_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "pyogrio" else find_spec(name))
    for how in ({"output": tmp_path / "a.gpkg"}, {"output": tmp_path / "a.tif", "of": ["cog", "vectors"]}):
        with pytest.raises(
            UsageError, match=r"pyogrio, which is not installed; run: pip install 'tilepipe\[vectors\]'"
        ):
            segment(**how)
    assert not list(tmp_path.iterdir())
    segment(tmp_path / "a.geojson")


def test_a_geopackage_that_is_open_elsewhere_is_not_replaced(tmp_path: Path) -> None:
    """SQLite keeps changes of an open file beside it, and would apply them to whatever has its name later."""
    segment(tmp_path / "a.tif", of=["cog", "vectors"])
    (tmp_path / "a.gpkg-wal").write_bytes(b"changes")
    with pytest.raises(LockedError, match="open in another program"):
        export(tmp_path / "a.tif", tmp_path / "a.gpkg", overwrite=True)
    (tmp_path / "a.gpkg-wal").unlink()
    export(tmp_path / "a.tif", tmp_path / "a.gpkg", overwrite=True)


def test_labels_of_a_result_are_written_as_a_table(tmp_path: Path) -> None:
    result = segment(tmp_path / "a.tif")
    result.labels.to_vectors(tmp_path / "b.gpkg")
    assert set(columns(tmp_path / "b.gpkg")["class"]) == set(np.unique(CODES))
    with pytest.raises(UsageError, match="is no table of polygons"):
        result.labels.to_vectors(tmp_path / "b.geojson")
    assert work(tmp_path / "a.tif").is_dir()


@pytest.mark.parametrize("name", ["a; b", "a!b", "why?"])
def test_names_that_are_parts_of_an_address_are_refused_before_the_run(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes .* in a path for a part of an address"):
        segment(tmp_path / f"{name}.gpkg")
    assert not list(tmp_path.iterdir())
