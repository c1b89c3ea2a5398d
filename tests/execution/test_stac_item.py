"""The STAC item of a run and of an export: it names what lies there, and says what it could not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import rasterio
from helpers.small_runs import CODES, segment
from helpers.stac_schemas import HAS_SCHEMAS, refuse_wrong_extensions

from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.execution.export import export
from tilepipe.products.stac import parse_stac
from tilepipe.testing import write_geotiff

GRID = rasterio.Affine(10, 0, 300000, 0, -10, 3000000)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    path = write_geotiff(tmp_path / "in/scene 1.tif", CODES[None], crs="EPSG:32645", transform=GRID)
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2013-04-01 10:01:02")
    return path


def read(path: Path) -> dict[str, Any]:
    parse_stac(path)
    item: dict[str, Any] = json.loads(path.read_text())
    if HAS_SCHEMAS:
        refuse_wrong_extensions(item)
    return item


def there(path: Path, item: dict[str, Any]) -> dict[str, Path]:
    found = {key: path.parent / unquote(asset["href"]) for key, asset in item["assets"].items()}
    assert all(place.exists() for place in found.values())
    return found


def test_a_run_writes_an_item_of_its_files(image: Path, tmp_path: Path) -> None:
    result = segment(tmp_path / "a.tif", image, of=["cog", "csv", "ome-zarr", "stac"], layers=["margin"])
    path = tmp_path / "a.item.json"
    assert path in result.paths
    item = read(path)
    assert set(there(path, item)) == {"cog", "csv", "ome-zarr", "margin-cog", "margin-ome-zarr"}
    assert item["properties"]["datetime"] == result.record["acquired"] == "2013-04-01T10:01:02Z"
    with rasterio.open(tmp_path / "a.tif") as cog:
        for key in ("cog", "ome-zarr", "margin-cog"):
            assert rasterio.Affine(*item["assets"][key]["proj:transform"]) == cog.transform
            assert tuple(item["assets"][key]["proj:shape"]) == cog.shape
            assert item["assets"][key]["nodata"] == cog.nodata
        assert item["properties"]["proj:code"] == cog.crs.to_string()
        counts = np.bincount(cog.read(1).ravel(), minlength=4)
    assert [one["count"] for one in item["assets"]["cog"]["classification:classes"][:4]] == counts.tolist()
    assert (tmp_path / unquote(item["links"][0]["href"])).samefile(image)
    path.write_text("{}")
    with pytest.raises(UsageError, match=r"a.item.json exists and was changed since tilepipe wrote it"):
        segment(tmp_path / "a.tif", image, of=["cog", "csv", "ome-zarr", "stac"], layers=["margin"])


def test_an_export_names_the_files_of_the_run_from_where_it_lies(image: Path, tmp_path: Path) -> None:
    segment(tmp_path / "a.tif", image, of=["cog", "csv", "png", "stac"])
    (tmp_path / "a.csv").write_text("changed by hand\n")
    (tmp_path / "out").mkdir()
    paths = export(tmp_path / "a.tif", tmp_path / "out/b.item.json", of=["stac", "geojson"])
    assert [path.name for path in paths] == ["b.item.json", "b.geojson"]
    item = read(paths[0])
    found = there(paths[0], item)
    assert {key: place.resolve() for key, place in found.items()} == {
        "cog": tmp_path / "a.tif", "png": tmp_path / "a.png", "geojson": tmp_path / "out/b.geojson",
    }  # fmt: skip
    assert item["properties"]["datetime"] == "2013-04-01T10:01:02Z"
    assert item["id"] == "b"
    again = export(tmp_path / ".a.tif.tilepipe", tmp_path / "c.item.json")
    assert there(again[0], read(again[0])).keys() == {"cog", "png"}


def test_labels_of_nobody_get_an_item_too(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segment(tmp_path / "a.tif", image, record=False)
    assert main(["export", str(tmp_path / "a.tif"), str(tmp_path / "b.item.json")]) == 0
    assert "nothing says when the image was taken" in capsys.readouterr().err
    item = read(tmp_path / "b.item.json")
    assert there(tmp_path / "b.item.json", item).keys() == {"cog"}
    assert item["links"] == []
    assert "processing:software" not in item["properties"]
    words = ["export", str(tmp_path / "a.tif"), str(tmp_path / "b.item.json"), "--overwrite", "--image", str(image)]
    assert main(words) == 0
    assert read(tmp_path / "b.item.json")["properties"]["datetime"] == "2013-04-01T10:01:02Z"


def test_a_damaged_item_is_none(tmp_path: Path) -> None:
    for text, why in (("{", "Expecting"), ("[]", "no STAC item"), ('{"type": "Feature"}', "no STAC item")):
        (tmp_path / "a.item.json").write_text(text)
        with pytest.raises(ValueError, match=why):
            parse_stac(tmp_path / "a.item.json")
