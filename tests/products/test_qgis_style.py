"""Styles for QGIS: one file for a raster and for polygons, and never in the place of a style that somebody made.

`tests/promises/test_qgis.py` opens them in QGIS.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.small_runs import CODES, CUT, IMAGE, segment

import tilepipe as tp
from tilepipe.errors import StorageError, UsageError
from tilepipe.execution.export import export
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.qgis_style import style_path
from tilepipe.products.vector_files import write_vectors
from tilepipe.sources.array import ArraySource
from tilepipe.testing import codes_model

COLORS = ((30, 30, 30), (213, 94, 0), (0, 158, 115))
LEGEND = Legend("land & cover", ("background", "roof <flat>", "wood\x1b"), COLORS, 255)
LABELS = label_map_of(np.kron(np.array([[0, 1], [2, 255]], np.uint8), np.ones((20, 20), np.uint8)), LEGEND)
MINE = b"<qgis>what I drew for an hour</qgis>"


@pytest.mark.parametrize(
    ("name", "style"),
    [("a.tif", "a.qml"), ("a.labels.TIF", "a.labels.qml"), ("a.shp.zip", "a.qml"), ("a.b.fgb", "a.b.qml")],
)
def test_names_that_qgis_looks_for(name: str, style: str) -> None:
    assert style_path(Path("folder", name)) == Path("folder", style)


def test_the_raster_has_an_entry_for_each_class_and_no_other(tmp_path: Path) -> None:
    write_cog(LABELS, tmp_path / "a.tif")
    entries = ElementTree.parse(tmp_path / "a.qml").findall("./pipe/rasterrenderer/colorPalette/paletteEntry")
    assert [(one.get("value"), one.get("label"), one.get("color")) for one in entries] == [
        ("0", "background", "#1e1e1e"), ("1", "roof <flat>", "#d55e00"), ("2", "wood\\u001b", "#009e73"),
    ]  # fmt: skip


@pytest.mark.parametrize("ending", [".fgb", ".shp.zip", ".parquet"])
def test_polygons_have_the_same_file_as_the_raster(tmp_path: Path, ending: str) -> None:
    write_cog(LABELS, tmp_path / "a.tif")
    write_vectors(LABELS, tmp_path / f"b{ending}")
    assert (tmp_path / "a.qml").read_bytes() == (tmp_path / "b.qml").read_bytes()
    found = [one.get("label") for one in ElementTree.parse(tmp_path / "b.qml").findall("./renderer-v2/categories/*")]
    assert found == ["roof <flat>", "wood\\u001b"], "the background has no polygons"


def test_a_geopackage_carries_its_style(tmp_path: Path) -> None:
    write_vectors(LABELS, tmp_path / "a.gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gpkg"]
    with sqlite3.connect(tmp_path / "a.gpkg") as file:
        ((table, column, qml, default),) = file.execute(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        )
        assert file.execute("SELECT table_name, column_name FROM gpkg_geometry_columns").fetchall() == [(table, column)]
    assert default == 1
    assert len(ElementTree.fromstring(qml).findall("./renderer-v2/categories/*")) == 2


@pytest.mark.parametrize("write", [write_cog, write_vectors])
def test_a_style_that_somebody_made_is_not_replaced(write: object, tmp_path: Path) -> None:
    path = tmp_path / ("a.tif" if write is write_cog else "a.fgb")
    style_path(path).write_bytes(MINE)
    with pytest.raises(UsageError, match="a style that tilepipe did not write"):
        write(LABELS, path)  # type: ignore[operator]
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.qml", MINE)]


def test_a_run_replaces_a_style_only_when_asked(tmp_path: Path) -> None:
    output, style = tmp_path / "a.tif", tmp_path / "a.qml"
    style.write_bytes(MINE)
    with pytest.raises(UsageError, match=r"a\.qml exists without a\.tif; use `overwrite=True`"):
        segment(output)
    assert style.read_bytes() == MINE
    segment(output, overwrite=True)
    assert style.read_bytes() != MINE
    style.write_bytes(MINE)
    segment(output)  # nothing is to be done
    assert style.read_bytes() == MINE
    output.unlink()
    with pytest.raises(UsageError, match="made or changed by somebody else"):
        segment(output)
    assert style.read_bytes() == MINE
    style.unlink()
    segment(output)
    assert style.read_bytes() != MINE


def test_a_style_that_is_saved_during_a_run_is_kept(tmp_path: Path) -> None:
    segment(tmp_path / "a.tif", ArraySource(3 - CODES))
    style = tmp_path / "a.qml"
    with pytest.raises(UsageError, match=r"a\.qml was made or changed by somebody else"):
        segment(tmp_path / "a.tif", overwrite=True, listener=lambda _: style.write_bytes(MINE))
    assert style.read_bytes() == MINE


def test_a_style_is_not_taken_from_another_file(tmp_path: Path) -> None:
    """a.qml is for a.tif and for a.fgb: with other classes it would name one of them wrongly."""
    raster = segment(tmp_path / "a.tif").paths[0]
    export(raster, tmp_path / "a.fgb")
    before = (tmp_path / "a.qml").read_bytes()
    other = tp.segment(IMAGE, codes_model(7), tmp_path / "b.tif", **CUT).paths[0]
    with pytest.raises(UsageError, match=r"a\.qml is the style of a\.tif, which has other classes"):
        export(other, tmp_path / "a.fgb", overwrite=True)
    assert (tmp_path / "a.qml").read_bytes() == before
    raster.unlink()
    export(other, tmp_path / "a.fgb", overwrite=True)
    assert (tmp_path / "a.qml").read_bytes() != before


def test_a_style_that_is_a_folder_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.qml").mkdir()
    with pytest.raises(UsageError, match=r"a\.qml exists without a\.tif"):
        segment(tmp_path / "a.tif")
    with pytest.raises((UsageError, StorageError)):
        segment(tmp_path / "a.tif", overwrite=True)
    assert not (tmp_path / "a.tif").exists()
