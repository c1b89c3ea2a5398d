"""STAC item collections and GeoParquet tables as images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers.cut_files import COLUMNS, PIXELS, ROWS, WHOLE, cut, write

from tilepipe.errors import InputError
from tilepipe.sources.open import open_source


def item(**assets: Any) -> dict[str, Any]:
    return {"type": "Feature", "stac_version": "1.0.0", "properties": {}, "assets": assets}


def collection(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def asset(href: str, *bands: str, **more: Any) -> dict[str, Any]:
    named = {"eo:bands": [{"name": band, "common_name": "red" if band == "B04" else ""} for band in bands]}
    return {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"], **named, **more}


@pytest.fixture
def tiles(tmp_path: Path) -> list[str]:
    return [f"tiles/{file.name}" for file in sorted(cut(tmp_path / "tiles", ROWS, COLUMNS, overlap=2).glob("*.tif"))]


def test_items_of_a_collection_are_one_image(tmp_path: Path, tiles: list[str]) -> None:
    picture = {"href": "tiles/none.png", "roles": ["thumbnail"]}
    path = collection(tmp_path / "items.json", [item(image=asset(name), thumbnail=picture) for name in tiles])
    source = open_source(path)
    np.testing.assert_array_equal(source.read(WHOLE), PIXELS)
    assert source.identity() == open_source(tmp_path / "tiles").identity()
    one = tmp_path / "one.geojson"
    one.write_text(json.dumps(item(image=asset((tmp_path / tiles[0]).as_uri()))))
    assert open_source(one).shape == (3, 64, 70)


def test_assets_of_one_band_are_stacked(tmp_path: Path) -> None:
    for k, band in enumerate(("B04", "B03")):
        write(tmp_path / f"{band}.tif", WHOLE, PIXELS[k : k + 1])
    write(tmp_path / "visual.tif", WHOLE)
    assets = {"r": asset("B04.tif", "B04"), "green": asset("B03.tif"), "tci": asset("visual.tif", "a", "b", "c")}
    path = collection(tmp_path / "items.json", [item(**assets)])
    source = open_source(path)
    assert [str(band) for band in getattr(source, "file_bands", ())] == ["B04 red", "green"]
    np.testing.assert_array_equal(open_source(path, bands="R,green").read(WHOLE), PIXELS[:2])


@pytest.mark.parametrize("column", ["location", "assets"])
def test_a_table_of_files(tmp_path: Path, tiles: list[str], column: str) -> None:
    rows: list[Any] = list(tiles) if column == "location" else [{"image": asset(name)} for name in tiles]
    pyarrow.parquet.write_table(pyarrow.table({"id": tiles, column: rows}), tmp_path / "index.parquet")
    np.testing.assert_array_equal(open_source(tmp_path / "index.parquet").read(WHOLE), PIXELS)


def test_what_names_no_files_here_is_refused(tmp_path: Path, tiles: list[str]) -> None:
    write(tmp_path / "tiles" / "red.tif", WHOLE, PIXELS[:1])
    (tmp_path / "below").mkdir()
    for name, items, words in (
        (
            "a.json",
            [item(image=asset("https://example.org/a.tif"))],
            "not on this machine; only an address that you type",
        ),
        ("a.json", [item(image=asset("tiles/no.tif"))], "no.tif does not exist"),
        ("a.json", [item(image=asset(tiles[0])), item(image=asset(tiles[1]), b=asset(tiles[2]))], "1 have the asset b"),
        ("a.json", [item(image={"href": "a.png", "roles": ["data"]})], "names no GeoTIFF"),
        ("a.json", [item(red=asset("tiles/red.tif"), all=asset(tiles[0]))], "has 3 bands; assets that are stacked"),
        ("below/a.json", [item(image=asset("../" + tiles[0]))], "only files in the folder of a.json are opened"),
    ):
        with pytest.raises(InputError, match=words):
            open_source(collection(tmp_path / name, items))
    assert open_source(tmp_path / "below" / "a.json", allow=tmp_path / "tiles").shape == (3, 64, 70)
    (tmp_path / "shapes.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(InputError, match="no pixels but shapes"):
        open_source(tmp_path / "shapes.geojson")
    pyarrow.parquet.write_table(pyarrow.table({"id": tiles}), tmp_path / "index.parquet")
    with pytest.raises(InputError, match=r"has no column that names files .*columns are id"):
        open_source(tmp_path / "index.parquet")
    (tmp_path / "index.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        open_source(tmp_path / "index.parquet")
