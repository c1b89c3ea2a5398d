"""Numbers of a run: in run.json and as a CSV file, the same whatever the blocks."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_runs import CODES, StopError, segment, stop_at

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution
from tilepipe.sources.find_tissue import Found
from tilepipe.sources.tissue import Tissue
from tilepipe.testing import codes_model, random_unet


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def counts(labels: Any, classes: int = 4) -> list[int]:
    return [int((np.asarray(labels) == k).sum()) for k in range(classes)]


@pytest.mark.parametrize("of", [["cog", "csv"], ["csv", "cog"], ["csv"], ["ome-zarr", "csv", "geojson"]])
def test_numbers_are_those_of_the_labels(of: list[str], tmp_path: Path) -> None:
    result = segment(tmp_path / "out", of=of)
    assert result.numbers is not None
    assert [one.pixels for one in result.numbers.classes] == counts(CODES)
    rows = table(tmp_path / "out.csv")
    assert [int(row["pixels"]) for row in rows] == counts(CODES)
    assert [row["class"] for row in rows] == list(result.labels.classes)


def test_numbers_do_not_depend_on_blocks_and_survive_a_stop(tmp_path: Path) -> None:
    first = segment(tmp_path / "a.tif").numbers
    with pytest.raises(StopError):
        segment(tmp_path / "b.tif", listener=stop_at("export"), block=16)
    assert segment(tmp_path / "b.tif", block=16).numbers == first
    assert segment(tmp_path / "b.tif", block=16).numbers == first, "those of a finished run are read from run.json"


def test_only_what_has_a_label_counts(tmp_path: Path) -> None:
    result = segment(tmp_path / "out.tif", window=(10, 20, 50, 40))
    assert result.numbers is not None
    assert [one.pixels for one in result.numbers.classes] == counts(CODES[20:60, 10:60])
    assert result.numbers.nodata == 0


@pytest.mark.parametrize("resolution", ["full", "model", 1.0])
def test_a_pixel_size_that_is_stated_gives_areas(resolution: Any, tmp_path: Path) -> None:
    model = codes_model(4)
    model = tp.Model(model.card.model_copy(update={"unit": "um", "resolution": 0.5}), model.module)
    result = tp.segment(
        ArraySource(CODES), model, tmp_path / "out.tif", pixel_size=0.25, resolution=resolution, tile=32
    )
    assert result.numbers is not None
    assert result.numbers.unit == "mm2"
    area = sum(one.area or 0 for one in result.numbers.classes)
    assert area == pytest.approx(90 * 130 * 0.25**2 / 1e6, rel=1e-6)
    size = result.labels.map.resolution
    assert size is not None
    assert size.y == pytest.approx({"full": 0.25, "model": 0.5, 1.0: 90 * 0.25 / round(90 * 0.25)}[resolution])


def test_tissue_is_measured_without_its_margin(tmp_path: Path) -> None:
    pixels = np.full((3, 400, 300), 240, np.uint8)
    pixels[1, 100:200, 50:250] = 90
    slide = ArraySource(pixels, resolution=Resolution(0.5, 0.25, "um"))
    result = tp.segment(slide, random_unet(), tmp_path / "out", mask="tissue", tile=64, of=["csv"])
    assert result.numbers is not None
    assert result.numbers.tissue == pytest.approx(102 * 202 * 0.125e-6, rel=0.01), "a pixel more on each side"
    labelled = sum(one.area or 0 for one in result.numbers.classes)
    assert labelled > 1.2 * result.numbers.tissue, "the margin around tissue gets labels too"
    for one in result.numbers.classes:
        assert one.density == (one.objects or 0) / result.numbers.tissue
    assert {row["tissue_mm2"] for row in table(tmp_path / "out.csv")} == {f"{result.numbers.tissue:.6f}"}


def test_tissue_of_a_part_is_that_of_the_part() -> None:
    found = np.zeros((10, 10), bool)
    found[2:4, 5:8] = True
    mask = Tissue(Found(found, ~found, "bright"), 1, 100, 200)
    full = np.kron(found, np.ones((10, 20)))
    for box in (Box(0, 0, 100, 200), Box(25, 110, 33, 131), Box(0, 0, 5, 5)):
        assert mask.pixels(box) == pytest.approx(full[box.slices_in(Box.of_shape(100, 200))].sum())
