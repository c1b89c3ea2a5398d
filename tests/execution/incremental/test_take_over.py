"""What is not taken over, and why; what a user is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_runs import CODES, CUT, IMAGE, labels_of, segment, work

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.execution.segment import dry_run
from tilepipe.sources.array import ArraySource
from tilepipe.storage import read_json, write_json
from tilepipe.testing import codes_model, constant_model, random_unet, write_geotiff, write_model

CHANGED = CODES.copy()
CHANGED[80:85, 120:125] = 0
NEW = ArraySource(CHANGED)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    segment(tmp_path / "old.tif")
    return tmp_path / "old.tif"


def since_of(output: Path, old: Path, **settings: Any) -> str:
    """Run since `old`; the labels are right whatever is taken. Return what is said."""
    found = segment(output, NEW, since=old, **settings)
    assert (labels_of(output) == CHANGED).all()
    said: str = found.record["since"]
    return said


def test_what_is_said_and_counted(old: Path, tmp_path: Path) -> None:
    said, events = "5 of 6 blocks are taken from old.tif, 1 is computed", []
    planned = dry_run(NEW, codes_model(4), tmp_path / "new.tif", since=old, **CUT)
    assert planned.fit_table[-1].text == said
    assert not work(tmp_path / "new.tif").exists()
    assert since_of(tmp_path / "new.tif", old, listener=events.append) == said
    compared = [event for event in events if event.stage == "changes"]
    assert (compared[-1].done, compared[-1].total, compared[-1].message) == (6, 6, said)
    assert [event.done for event in events if event.stage == "predict"] == [5, 6]
    assert tp.plan(NEW, codes_model(4), since=old, **CUT).fit_table[-1].name == "since"


def test_the_same_output(old: Path) -> None:
    """A changed image is another run: the message says what to type, which replaces the labels."""
    with pytest.raises(UsageError, match=r"exists.* The image has changed since: with `overwrite=True, since='.*'`"):
        segment(old, NEW)
    assert since_of(old, old, overwrite=True).startswith("5 of 6")
    assert segment(old, NEW, since=old).record["taken"] == 5  # nothing is to be done
    again = segment(old, IMAGE, since=old, overwrite=True)
    assert (labels_of(old) == CODES).all()
    assert again.record["taken"] == 5


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"mask": "none"}, "with another `mask`"),
        ({"tile": 40}, "with another `tile`"),
        ({"layers": ["margin"]}, "with another `layers`"),
    ],
)
def test_other_settings(old: Path, tmp_path: Path, chosen: dict[str, Any], why: str) -> None:
    said = since_of(tmp_path / "new.tif", old, **chosen)
    assert said == f"every block is computed: old.tif was made {why}"


def test_another_model(old: Path, tmp_path: Path) -> None:
    found = tp.segment(NEW, constant_model(0.3, 0.7, bands=1), tmp_path / "new.tif", since=old, **CUT)
    assert found.record["since"].startswith("every block is computed: old.tif was made with another model")
    assert found.record["taken"] == 0


def test_other_programs(old: Path, tmp_path: Path) -> None:
    (record,) = work(old).glob("*/run.json")
    written = read_json(record)
    write_json(record, {**written, "surroundings": {**written["surroundings"], "cpu": "VAX"}})
    said = since_of(tmp_path / "new.tif", old)
    assert "old.tif was computed with other programs, which may round otherwise (cpu VAX, now " in said


def test_a_record_of_an_earlier_version(old: Path, tmp_path: Path) -> None:
    (record,) = work(old).glob("*/run.json")
    write_json(record, {name: value for name, value in read_json(record).items() if name != "asked"})
    assert "an earlier version of tilepipe made old.tif" in since_of(tmp_path / "new.tif", old)


def test_without_a_record(old: Path, tmp_path: Path) -> None:
    shutil.rmtree(work(old))
    said = since_of(tmp_path / "new.tif", old)
    assert said.endswith("or the record of the run (.old.tif.tilepipe) is not beside it")
    with pytest.raises(UsageError, match=r"`since` names the labels of an earlier run: .*none\.tif"):
        segment(tmp_path / "b.tif", NEW, since=tmp_path / "none.tif")


def test_labels_that_were_edited_are_not_taken(old: Path, tmp_path: Path) -> None:
    (record,) = work(old).glob("*/run.json")
    written, content = read_json(record), bytearray(old.read_bytes())
    content[-40] ^= 1
    old.write_bytes(content)
    assert "old.tif was changed since its run wrote it" in since_of(tmp_path / "new.tif", old)
    # Each block is compared with the ledger as well, if run.json says that the file is as it was.
    state = {"files": 1, "bytes": len(content), "mtime_ns": old.stat().st_mtime_ns}
    write_json(record, {**written, "products": {"old.tif": {**written["products"]["old.tif"], **state}}})
    since_of(tmp_path / "b.tif", old)


def test_layers_that_are_gone(tmp_path: Path) -> None:
    segment(tmp_path / "old.tif", layers=["margin"])
    (tmp_path / "old.margin.tif").unlink()
    said = since_of(tmp_path / "new.tif", tmp_path / "old.tif", layers=["margin"])
    assert said == "every block is computed: no file of that run holds all of its margin"


def test_a_damaged_line_of_the_ledger_costs_its_block(old: Path, tmp_path: Path) -> None:
    (ledger,) = work(old).glob("*/ledger.jsonl")
    first, *lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join([first.replace("0", "1"), *lines]) + "\n")
    # Tiles blend, so the blocks that its tiles weigh in on are computed too.
    assert since_of(tmp_path / "new.tif", old).startswith("1 of 6")


def test_statistics_over_the_whole_image(tmp_path: Path) -> None:
    from helpers.fakes import Squeeze
    from torch import nn

    card = tp.ModelCard(bands=1, classes=["a", "b", "c", "d"])
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Squeeze(4))
    model = tp.Model.from_torch(module, card)
    chosen: dict[str, Any] = {"tile": 32, "overlap": 8, "block": 40, "statistics": "field"}
    tp.segment(IMAGE, model, tmp_path / "old.tif", **chosen)
    found = tp.segment(NEW, model, tmp_path / "new.tif", since=tmp_path / "old.tif", **chosen)
    assert found.record["since"].startswith("every block is computed: norms or poolings of the model")


def test_labels_in_ome_zarr_and_in_the_work_directory(tmp_path: Path) -> None:
    for name in ("old.ome.zarr", "old.geojson"):
        segment(tmp_path / name)
        found = segment(tmp_path / f"new-{name}.tif", NEW, since=tmp_path / name)
        assert found.record["taken"] == 5
        assert (labels_of(tmp_path / f"new-{name}.tif") == CHANGED).all()


def test_another_file_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, formats and places of files do not count."""
    one, two = tmp_path / "a.tif", tmp_path / "b.tif"
    write_geotiff(one, CODES[None])
    write_geotiff(two, np.ascontiguousarray(CHANGED[None]))
    model = str(write_model(tmp_path / "m.model", random_unet(bands=1, depth=1)))
    said = ["-m", model, "--tile", "32", "--overlap", "8", "--block", "40", "--device", "cpu"]
    assert main(["segment", str(one), str(tmp_path / "old.tif"), *said]) == 0
    capsys.readouterr()
    assert main(["segment", str(two), str(tmp_path / "new.tif"), *said, "--since", str(tmp_path / "old.tif")]) == 0
    assert "\n5 of 6 blocks are taken from old.tif, 1 is computed\n" in capsys.readouterr().err
    assert main(["segment", str(two), str(tmp_path / "old.tif"), *said]) == 2
    assert f"with --overwrite --since {tmp_path / 'old.tif'} only what sees" in capsys.readouterr().err
    (record,) = work(tmp_path / "new.tif").glob("*/run.json")
    assert "--since" not in read_json(record)["command"]
