"""A pixel size for each image of a batch, in the jobs file or in a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tilepipe.errors import UsageError
from tilepipe.execution.batch.pixel_sizes import read_table, size_of
from tilepipe.execution.batch.run_batch import run
from tilepipe.testing import write_slide

PIXELS = np.random.default_rng(0).integers(100, 200, (3, 64, 64)).astype(np.uint8)


@pytest.fixture
def jobs(tmp_path: Path) -> Any:
    """Write a jobs file of two slides, of which only the second says its pixel size."""
    write_slide(tmp_path / "a.svs", [PIXELS], mpp=None)
    write_slide(tmp_path / "b.svs", [PIXELS], mpp=0.5)

    def write(sizes: object) -> Path:
        fields = {"images": "*.svs", "model": "nuclei", "output": "out/{stem}.tif", "settings": {"pixel_size": sizes}}
        (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(fields))
        return tmp_path / "jobs.yaml"

    return write


def test_a_table_gives_each_image_its_size(jobs: Any) -> None:
    report = run(jobs({"a": 0.25}), dry_run=True)
    assert [entry.status for entry in report.entries] == ["new", "new"]
    without = run(jobs({"b": 0.5}), dry_run=True)
    assert [entry.status for entry in without.entries] == ["failed", "new"]
    assert "does not say its pixel size" in without.entries[0].message


def test_a_csv_file_does_too(jobs: Any, tmp_path: Path) -> None:
    (tmp_path / "sizes.csv").write_text("image,pixel size\na.svs,0.25\n# none\nb,0.5\n")
    assert [entry.status for entry in run(jobs("sizes.csv"), dry_run=True).entries] == ["new", "new"]
    assert read_table("sizes.csv", tmp_path) == {"a.svs": 0.25, "b": 0.5}


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"c": 0.25}, "names an image that the batch does not have: 'c' is unknown"),
        ({"a": "big"}, "the pixel size of a is 'big'; give a number above 0"),
        ({"a": -1}, "the pixel size of a is -1; give a number above 0"),
        ("none.csv", "cannot be read as a table of pixel sizes"),
    ],
)
def test_a_wrong_table_stops_the_batch(jobs: Any, sizes: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run(jobs(sizes), dry_run=True)


def test_the_full_name_counts_before_the_stem(tmp_path: Path) -> None:
    table = {"a": 1.0, "a.svs": 2.0, "below/a.svs": 3.0}
    assert size_of(table, tmp_path / "a.svs", tmp_path) == 2.0
    assert size_of(table, tmp_path / "below" / "a.svs", tmp_path) == 3.0
    assert size_of(table, tmp_path / "a.tif", tmp_path) == 1.0
    assert size_of(table, tmp_path / "c.tif", tmp_path) is None
