"""Objects as products of a run and of an export: options change them alone, and slides lie in QuPath's frame."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from helpers.small_runs import CODES, segment, work

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.execution.export import export
from tilepipe.products import objects as module
from tilepipe.sources.array import ArraySource
from tilepipe.sources.slide import SlideSource
from tilepipe.testing import local_mean_model

SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample" / "CMU-1-Small-Region.svs"
Y, X = np.mgrid[:90, :130]
DISCS = ((Y - 40) ** 2 + (X - 40) ** 2 < 400) | ((Y - 40) ** 2 + (X - 73) ** 2 < 225)
IMAGE = ArraySource(np.where(DISCS, 2, CODES // 4).astype(np.uint8))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_objects_lie_beside_the_labels_and_an_export_is_the_same(tmp_path: Path) -> None:
    made = {"of": "cog,objects,objects-parquet,qupath", "split": True, "layers": "margin"}
    result = segment(tmp_path / "a.tif", IMAGE, **made)
    names = [path.name for path in result.paths]
    assert names == ["a.tif", "a.objects.csv", "a.objects.parquet", "a.qupath.geojson", "a.margin.tif"]
    found = rows(tmp_path / "a.objects.csv")
    assert [row["class"] for row in found].count("2") == 2
    assert {"mean_1", "margin_avg", "unsplit"} < found[0].keys()
    for name in names[1:4]:
        export(tmp_path / "a.tif", tmp_path / name.replace("a.", "b."), image=IMAGE, split=True)
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("a.", "b.")).read_bytes()
    assert "mean_1" not in rows(export(tmp_path / "a.tif", tmp_path / "c.objects.csv")[0])[0]


def test_other_options_are_other_objects_of_the_same_labels(tmp_path: Path) -> None:
    segment(tmp_path / "a.tif", IMAGE, of="cog,objects")
    whole = rows(tmp_path / "a.objects.csv")
    with pytest.raises(UsageError, match=r"a\.objects\.csv exists and was written with other"):
        segment(tmp_path / "a.tif", IMAGE, of="cog,objects", split=True)
    segment(tmp_path / "a.tif", IMAGE, of="cog,objects", split=True, overwrite=True)
    assert len(rows(tmp_path / "a.objects.csv")) == len(whole) + 1
    assert len(list(work(tmp_path / "a.tif").iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": True}, "`split=True` changes objects, and none are written"),
        ({"neck": 0.5, "of": "objects"}, "give `split=True` too"),
        ({"annotations": True, "of": "objects"}, "changes objects for QuPath"),
        ({"min_area": 3.0}, "changes polygons or objects"),
        ({"neck": 1.5, "split": True, "of": "objects"}, "cannot be used; give a number above 0 and below 1"),
    ],
)
def test_options_that_change_nothing_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        segment(tmp_path / "a", IMAGE, **{"of": "cog", **options})
    assert not list(tmp_path.iterdir())


def test_what_was_not_split_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LARGEST", 30)
    events: list[Any] = []
    segment(tmp_path / "a.tif", IMAGE, of="cog,objects", split=True, listener=events.append)
    assert any("a.objects.csv: 2 components of more than 30 pixels a side" in event.message for event in events)
    assert main(["export", str(tmp_path / "a.tif"), str(tmp_path / "b.objects.csv"), "--split"]) == 0
    assert "b.objects.csv: 2 components of more than 30 pixels" in capsys.readouterr().err


class Bounded(openslide.OpenSlide):
    @property
    def properties(self) -> Any:
        where = {"x": "1000", "y": "2000", "width": "500", "height": "600"}
        return {**super().properties, **{f"openslide.bounds-{name}": value for name, value in where.items()}}


def test_what_qupath_sees_of_a_slide_with_bounds_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out: coordinates begin at the corner of the bounds. In: a region drawn in QuPath is where it was drawn."""
    monkeypatch.setattr(openslide, "OpenSlide", Bounded)
    slide, model = SlideSource(SAMPLE), local_mean_model(0, 160, bands=3)
    result = tp.segment(slide, model, tmp_path / "a.tif", window=(1100, 2200, 60, 50), of="cog,qupath", tile=64)
    found = json.loads((tmp_path / "a.qupath.geojson").read_text())["features"]
    corners = np.concatenate([np.array(one["geometry"]["coordinates"][0]) for one in found])
    assert (corners >= (100, 200)).all()
    assert (corners <= (160, 250)).all()
    ring = [[100, 200], [160, 200], [160, 250], [100, 250], [100, 200]]
    drawn = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (tmp_path / "r.geojson").write_text(json.dumps(drawn))
    again = tp.segment(slide, model, tmp_path / "b.tif", region=str(tmp_path / "r.geojson"), tile=64)
    np.testing.assert_array_equal(np.asarray(again.labels), np.asarray(result.labels))
    assert again.labels.map.origin == (2200, 1100)
    assert tp.open_labels(tmp_path / "a.tif").map.frame == (2000, 1000)
