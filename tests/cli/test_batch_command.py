"""`tilepipe batch run` through the real engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.cli_files import write_image

from tilepipe.cli.main import main


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def jobs(tmp_path: Path, model: Path) -> Path:
    """Three scenes and a file that is no image."""
    (tmp_path / "in").mkdir()
    for name, bands in (("a", 3), ("b", 3), ("four", 4)):
        write_image(tmp_path / "in" / f"{name}.tif", bands)
    (tmp_path / "in" / "words.tif").write_text("words")
    path = tmp_path / "night.yaml"
    path.write_text(
        f"images: in/*.tif\nmodel: {model}\noutput: out/{{stem}}.labels.tif\nof: [cog, geojson]\n"
        "settings: {window: [10, 20, 100, 80], window_shape: hann, overlap: 16, memory: 8GiB}\n"
    )
    return path


def test_a_night_and_the_next(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = jobs.parent / "out"
    assert main(["batch", "run", str(jobs), "-q"]) == 3
    first = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert first == ["done", "done", "failed", "failed"]
    assert {p.name for p in out.iterdir() if not p.name.startswith(".")} == {
        "a.labels.tif", "a.labels.tif.aux.xml", "a.labels.qml", "a.labels.geojson",
        "b.labels.tif", "b.labels.tif.aux.xml", "b.labels.qml", "b.labels.geojson",
        "night.jsonl", "night.numbers.csv",
    }  # fmt: skip
    records = [json.loads(line) for line in (out / "night.jsonl").read_text().splitlines()]
    assert [record["error"] for record in records] == ["", "", "InputError", "InputError"]
    assert "4 bands" in records[2]["message"]
    own = {"night.jsonl", "night.numbers.csv"}  # what the batch says of itself is written by every run
    before = {name: kept for name, kept in state(out).items() if name not in own}
    for bad in ("four", "words"):
        (jobs.parent / "in" / f"{bad}.tif").unlink()
    assert main(["batch", "run", str(jobs), "-q"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["unchanged", "unchanged"]
    assert {name: kept for name, kept in state(out).items() if name not in own} == before


def test_other_settings_replace_what_the_batch_made_itself(jobs: Path) -> None:
    main(["batch", "run", str(jobs), "-q"])
    before = state(jobs.parent / "out")
    jobs.write_text(jobs.read_text().replace("100, 80", "60, 40"))
    main(["batch", "run", str(jobs), "-q"])
    after = state(jobs.parent / "out")
    assert after["a.labels.tif"][1] != before["a.labels.tif"][1]


def test_the_outputs_are_those_of_segment(jobs: Path, model: Path, tmp_path: Path) -> None:
    main(["batch", "run", str(jobs), "-q"])
    words = ["--window", "10,20,100,80", "--window-shape", "hann", "--overlap", "16", "-q"]
    assert main(["segment", str(tmp_path / "in/a.tif"), str(tmp_path / "a.tif"), "-m", str(model), *words]) == 0
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "out/a.labels.tif").read_bytes()


def test_a_batch_that_ends_before_its_first_image_leaves_nothing(jobs: Path) -> None:
    for bad in (jobs.parent / "in").iterdir():
        bad.unlink()
    jobs.write_text(jobs.read_text().replace("out/", "deep/out/"))
    before = sorted(jobs.parent.rglob("*"))
    assert main(["batch", "run", str(jobs), "-q"]) == 2
    assert sorted(jobs.parent.rglob("*")) == before
