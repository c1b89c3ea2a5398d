"""Nights: what is known is not opened, bad images are said once, growing ones wait, several are done at a time."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml

from tilepipe.cli.main import main
from tilepipe.execution.batch import one_image, run_batch, settle
from tilepipe.execution.batch.record import DONE, EDITED, FAILED, KNOWN_BAD, UNCHANGED, WAITING
from tilepipe.execution.batch.run_batch import Options
from tilepipe.execution.batch.status import reasons_of, status_of, summary_line
from tilepipe.testing import write_geotiff

NIGHT = {
    "images": "in/*.tif",
    "model": "forest",
    "output": "out/{stem}.labels.tif",
    "settings": {"force_resolution": True},
}


def image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(exist_ok=True)
    write_geotiff(path, np.random.default_rng(seed).integers(0, 255, (3, 40, 60), np.uint8))
    os.utime(path, (1, 1))


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    for name in "abc":
        image(tmp_path / "in" / f"{name}.tif", ord(name))
    (tmp_path / "in" / "bad.tif").write_text("no image")
    return write(tmp_path)


def write(folder: Path, **changes: Any) -> Path:
    (folder / "night.yaml").write_text(yaml.safe_dump({**NIGHT, "settle": 0, **changes}))
    return folder / "night.yaml"


def run(jobs: Path, **options: Any) -> list[str]:
    return [entry.status for entry in run_batch.run(jobs, options=Options(**options)).entries]


def test_an_image_that_has_changed_in_places(jobs: Path) -> None:
    """What has not changed is taken from its last labels."""
    small = {"tile": 32, "overlap": 16, "block": 1, "window_shape": "hann", "pixel_size": 10.0}
    write(jobs.parent, settings=small, incremental=True)
    run(jobs)
    path = jobs.parent / "in" / "a.tif"
    with rasterio.open(path, "r+") as file:
        file.write(np.zeros((3, 2, 2), np.uint8), window=rasterio.windows.Window(58, 38, 2, 2))
    assert run(jobs) == [DONE, UNCHANGED, KNOWN_BAD, UNCHANGED]
    found = [json.loads(path.read_text()) for path in jobs.parent.glob("out/.a.*/*/run.json")]
    (since,) = [record["since"] for record in found if record["since"]]
    assert since == "2 of 4 blocks are taken from a.labels.tif, 2 are computed"


def test_known_images_are_neither_opened_nor_hashed(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(jobs, max_parallel=2) == [DONE, DONE, FAILED, DONE]

    def never(*_args: object, **_options: object) -> None:
        raise AssertionError("an image was opened")

    with monkeypatch.context() as patch:
        patch.setattr(one_image, "opened", never)
        assert run(jobs) == [UNCHANGED, UNCHANGED, KNOWN_BAD, UNCHANGED]
    before = (jobs.parent / "out" / "night.jsonl").read_bytes()
    assert run(jobs, retry=True) == [UNCHANGED, UNCHANGED, FAILED, UNCHANGED]
    (jobs.parent / "in" / "a.tif").touch()
    image(jobs.parent / "in" / "bad.tif")
    assert run(jobs) == [UNCHANGED, UNCHANGED, DONE, UNCHANGED]
    assert (jobs.parent / "out" / "night.jsonl").read_bytes().startswith(before)
    with monkeypatch.context() as patch:  # the new time of a.tif is known now
        patch.setattr(one_image, "opened", never)
        assert run(jobs) == [UNCHANGED] * 4


def test_a_file_beside_an_image_is_part_of_its_state(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(jobs)
    opened, real = [], one_image.opened

    def counted(image: Path, *args: Any) -> Any:
        opened.append(image.name)
        return real(image, *args)

    monkeypatch.setattr(one_image, "opened", counted)
    (jobs.parent / "in" / "a.tfw").write_text("2\n0\n0\n-2\n500000\n100\n")
    (jobs.parent / "in" / "a.labels.txt").write_text("somebody's notes")
    for _ in range(2):
        assert run(jobs).count(UNCHANGED) == 3
    assert opened == ["a.tif"], "the content decides, once"


def test_the_same_labels_one_and_several_at_a_time(jobs: Path) -> None:
    run(jobs)
    one = [path.read_bytes() for path in sorted((jobs.parent / "out").glob("*.tif"))]
    write(jobs.parent, output="other/{stem}.labels.tif")
    assert run(jobs, max_parallel=3).count(DONE) == 3
    assert [path.read_bytes() for path in sorted((jobs.parent / "other").glob("*.tif"))] == one


def test_several_at_a_time_add_up_to_the_processor_time_of_the_batch(jobs: Path) -> None:
    began = time.process_time()
    entries = run_batch.run(jobs, options=Options(max_parallel=3)).entries
    spent = time.process_time() - began
    known = [entry.processor_seconds for entry in entries if entry.status == DONE]
    assert min(known) > 0
    assert 0.3 * spent < sum(known) <= spent + 0.01  # the search for images and the model's loading come before


def test_a_growing_image_waits(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(jobs.parent, settle=30)
    growing = jobs.parent / "in" / "b.tif"
    growing.touch()
    os.utime(jobs.parent / "in" / "bad.tif", (1, 1))
    slept: list[float] = []

    def copy_goes_on(seconds: float) -> None:
        slept.append(seconds)
        with growing.open("ab") as file:
            file.write(b"\0")

    monkeypatch.setattr(run_batch, "Settling", partial(settle.Settling, sleep=copy_goes_on))
    assert run(jobs) == [DONE, WAITING, FAILED, DONE]
    assert 25 < slept[0] <= 30
    assert not (jobs.parent / "out" / "b.labels.tif").exists()
    os.utime(growing, (time.time() - 60,) * 2)
    assert run(jobs).count(UNCHANGED) == 2
    assert (jobs.parent / "out" / "b.labels.tif").exists()


def test_status_summary_and_report_say_why(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "status", str(jobs)]) == 0
    assert capsys.readouterr().out == "tilepipe batch night: 4 waiting\n"
    assert main(["batch", "run", str(jobs), "--summary", "-q"]) == 3
    out, err = capsys.readouterr()
    assert out.startswith("tilepipe batch night: 3 done, 1 failed")
    assert out.endswith("; failed: bad.tif\n")
    assert err.count("bad.tif: failed:") == 1
    assert main(["batch", "run", str(jobs)]) == 3
    out, err = capsys.readouterr()
    assert "known-bad" in out
    assert "1 known bad: failed before and unchanged since" in err
    assert "bad.tif: failed" not in err
    assert main(["batch", "status", str(jobs)]) == 3
    assert "1 x InputError: IMAGE is not an image" in capsys.readouterr().out
    assert main(["batch", "status", str(jobs), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in found["images"]] == [DONE, DONE, FAILED, DONE]
    assert main(["batch", "retry", str(jobs), "-q", "--progress", "json"]) == 3
    assert main(["batch", "report", str(jobs), "-q"]) == 0
    assert (jobs.parent / "out" / "night.report.html").exists()
    status = status_of(jobs)
    assert [len(entries) for _, entries in reasons_of(status.entries)] == [1]
    assert "\n" not in summary_line("night", status.entries, 75)


def test_overwrite_replaces_what_was_edited(jobs: Path) -> None:
    run(jobs)
    labels = jobs.parent / "out" / "a.labels.tif"
    before = labels.read_bytes()
    with rasterio.open(labels, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(note="mine")
    edited = labels.read_bytes()
    assert run(jobs)[0] == EDITED
    assert labels.read_bytes() == edited
    assert run(jobs, overwrite=True)[0] == DONE
    assert labels.read_bytes() == before


def test_labels_that_cannot_fit_are_refused_before_work(
    jobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("tilepipe.execution.batch.disk.free_space", lambda path: 10)
    assert main(["batch", "run", str(jobs)]) == 6
    err = capsys.readouterr().err
    assert "the products of 4 images need about" in err
    assert str(jobs.parent / "out") in err
    assert not (jobs.parent / "out").exists()
