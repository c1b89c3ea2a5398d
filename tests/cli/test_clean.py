"""tilepipe clean: a list without --remove, JSON, and nothing of an unfinished run unless asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilepipe.cli.clean import age
from tilepipe.cli.main import main

Out = pytest.CaptureFixture[str]


def test_a_finished_run_is_listed_and_removed_only_if_asked(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model), "-q"]) == 0
    (image.parent / ".other.tif.tilepipe" / ("0" * 16)).mkdir(parents=True)
    labels = image.with_name("scene.labels.tif")
    capsys.readouterr()
    assert main(["clean", str(image.parent)]) == 0
    out, err = capsys.readouterr()
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == ["unfinished", "finished"]
    assert rows[1][1].endswith((" KiB", " B"))
    assert Path(rows[1][3]).parent == image.with_name(".scene.labels.tif.tilepipe")
    assert "nothing is removed without --remove" in err
    assert main(["clean", str(image.parent), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["state"], one["removed"]) for one in found] == [("unfinished", False), ("finished", False)]
    assert found[1]["output"] == str(labels)
    assert found[1]["bytes"] > 0 <= found[1]["age_seconds"]
    assert main(["clean", str(image.parent), "--remove"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == ["unfinished", "removed"]
    assert err.startswith("removed: 1, ")
    assert {path.name for path in image.parent.iterdir()} == {
        image.name, labels.name, f"{labels.name}.aux.xml", f"{labels.stem}.qml", ".other.tif.tilepipe",
    }  # fmt: skip
    assert main(["clean", str(image.parent), "--remove", "--unfinished"]) == 0
    assert not image.with_name(".other.tif.tilepipe").exists()


def test_no_record_leaves_the_output_alone(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model), "-q", "--no-record"]) == 0
    assert not [path.name for path in image.parent.iterdir() if path.name.startswith(".")]
    capsys.readouterr()
    assert main(["verify", str(image.with_name("scene.labels.tif")), "-q"]) == 2
    assert "as after tilepipe clean or a run without a record" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "code"), [(["--unfinished"], 2), ([], 4)])
def test_what_cannot_be_meant_is_refused(tmp_path: Path, words: list[str], code: int, capsys: Out) -> None:
    assert main(["clean", str(tmp_path / "none"), *words]) == code
    assert capsys.readouterr().err


def test_an_age_is_in_its_largest_unit() -> None:
    assert [age(s) for s in (0, 119, 120, 7200, 86400, 200000)] == [
        "0 s", "119 s", "2 minutes", "2 hours", "24 hours", "2 days",
    ]  # fmt: skip
