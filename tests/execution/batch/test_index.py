"""The report of a batch: written with the batch if reports are asked for, and after it; other files are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.pages import check_self_contained

from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.execution.batch.index import report_of_batch
from tilepipe.execution.batch.run_batch import run
from tilepipe.testing import write_geotiff

JOBS = """
images: scenes/*.tif
model: forest
output: labels/{{stem}}.labels.tif
of: {of}
settings: {{force_resolution: true}}
"""


def batch(folder: Path, of: str) -> Path:
    (folder / "scenes").mkdir()
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 255, (3, 40 + k, 60), np.uint8)
        write_geotiff(folder / "scenes" / f"{k}.tif", pixels)
    (folder / "scenes" / "2 <b>.tif").write_text("no image")
    (folder / "night.yaml").write_text(JOBS.format(of=of))
    return folder / "night.yaml"


def test_a_batch_with_reports_has_a_page_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = batch(tmp_path, "[cog, report]")
    with pytest.raises(UsageError, match="was processed yet; run: tilepipe batch run"):
        report_of_batch(jobs)
    assert main(["batch", "run", str(jobs), "-q"]) == 3
    page = tmp_path / "labels" / "night.report.html"
    found = check_self_contained(page.read_text())
    assert "3 images 2 done 1 failed" in found.text
    assert "What failed 2 <b>.tif InputError" in found.text
    assert [one["href"] for one in found.every("a")] == [name for k in "01" for name in [f"{k}.labels.html"] * 2]
    assert len(found.every("img")) == 2
    before = page.read_bytes()
    capsys.readouterr()
    assert main(["report", str(jobs), str(tmp_path / "all.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'all.html'}\n"
    links = {one["href"] for one in check_self_contained((tmp_path / "all.html").read_text()).every("a")}
    assert links == {"labels/0.labels.html", "labels/1.labels.html"}
    assert report_of_batch(jobs) == page
    assert page.read_bytes() == before, "a page depends on the record alone"
    assert main(["report", str(jobs), "--image", "x.tif"]) == 2


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    jobs = batch(tmp_path, "[cog]")
    run(jobs)
    page = tmp_path / "labels" / "night.report.html"
    assert not page.exists(), "no report was asked for"
    page.write_text("what somebody else needs")
    with pytest.raises(UsageError, match="is not the report of a batch"):
        report_of_batch(jobs)
    jobs.write_text(JOBS.format(of="[cog, report]"))
    with pytest.raises(UsageError, match="is not the report of a batch"):
        run(jobs)
    assert page.read_text() == "what somebody else needs"
    report_of_batch(jobs, overwrite=True)
    report_of_batch(jobs)
    (tmp_path / "scenes" / "0.tif").unlink()
    assert "0.labels" not in report_of_batch(jobs).read_text(), "the page shows the images that are there"
