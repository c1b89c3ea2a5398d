"""One CSV file with the numbers of all images of a batch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from helpers.cli_files import write_image

from tilepipe.errors import UsageError
from tilepipe.execution.batch import run_batch
from tilepipe.execution.batch.record import Entry
from tilepipe.execution.batch.table import refuse_foreign, write_table
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.tally import Tally


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def entry(name: str, status: str = "done", values: int = 0, message: str = "") -> Entry:
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :values] = 1
    legend = Legend("cover", ("background", "=wood"), ((0, 0, 0), (1, 2, 3)), 255)
    numbers = Tally(label_map_of(labels, legend)).numbers().to_dict() if values else {}
    return Entry(name, f"{name}.labels.tif", status, numbers=numbers, message=message)


def test_a_row_for_each_class_of_each_image(tmp_path: Path) -> None:
    write_table(
        tmp_path / "t.csv", [entry("a", values=3), entry("b", "failed", message="no, image"), entry("c", values=5)]
    )
    found = rows(tmp_path / "t.csv")
    assert [(row["image"], row["status"], row["class"], row["pixels"]) for row in found] == [
        ("a", "done", "background", "97"),
        ("a", "done", "'=wood", "3"),
        ("b", "failed", "", ""),
        ("c", "done", "background", "95"),
        ("c", "done", "'=wood", "5"),
    ]
    assert found[2]["message"] == "no, image"


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    refuse_foreign(path)
    path.write_text("name,value\n")
    with pytest.raises(UsageError, match="is not the table of a batch"):
        refuse_foreign(path)
    path.unlink()
    write_table(path, [entry("a", values=1)])
    refuse_foreign(path)


def test_a_batch_has_the_numbers_of_images_that_are_done_already(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.tif")
    fields = {"images": "*.tif", "model": "forest", "output": "out/{stem}.labels.tif", "of": ["cog", "csv"]}
    jobs = tmp_path / "night.yaml"
    jobs.write_text(yaml.safe_dump({**fields, "images": "a.tif", "settings": {"force_resolution": True}}))
    run_batch.run(jobs)
    jobs.write_text(yaml.safe_dump({**fields, "settings": {"force_resolution": True}}))
    report = run_batch.run(jobs)
    assert [one.status for one in report.entries] == ["unchanged", "done"], report.entries
    found = rows(tmp_path / "out" / "night.numbers.csv")
    assert [Path(row["image"]).name for row in found] == ["a.tif", "a.tif", "b.tif", "b.tif"]
    for name in ("a", "b"):
        own = rows(tmp_path / "out" / f"{name}.labels.csv")
        assert [{key: row[key] for key in own[0]} for row in found if Path(row["image"]).stem == name] == own
        with rasterio.open(tmp_path / "out" / f"{name}.labels.tif") as file:
            labels = file.read(1)
        assert [int(row["pixels"]) for row in own] == [(labels == k).sum() for k in range(len(own))]
    before = (tmp_path / "out" / "night.numbers.csv").stat().st_mtime_ns
    run_batch.run(jobs)
    assert (tmp_path / "out" / "night.numbers.csv").stat().st_mtime_ns == before
