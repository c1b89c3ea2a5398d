"""Clean: what runs leave is listed and removed; never what a run works on, and what is unfinished only if asked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tilepipe as tp
from tilepipe.errors import InputError, UsageError
from tilepipe.evaluation.verify.verify import verify
from tilepipe.events import Event
from tilepipe.execution.clean import Leftover, clean, leftovers
from tilepipe.execution.export import export
from tilepipe.storage import locked

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 100, 100), dtype=np.uint8)

WHOLE = tp.Box(0, 0, 100, 100)


@pytest.fixture(scope="module")
def model() -> tp.Model:
    torch.manual_seed(0)
    card = tp.ModelCard(bands=3, classes=("a", "b"), mean=[128] * 3, std=[64] * 3, stride=1, halo=0)
    return tp.Model.from_torch(nn.Conv2d(3, 2, 1), card)


class StopError(Exception):
    pass


def stopped(model: tp.Model, output: Path) -> None:
    """Begin a run that stops before its products are written."""

    def stop(event: Event) -> None:
        if event.stage == "export":
            raise StopError

    with pytest.raises(StopError):
        tp.segment(IMAGE, model, output, listener=stop)


def files(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_runs_are_listed_with_size_and_age(model: tp.Model, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    tp.segment(IMAGE, model, tmp_path / "deep" / "a.tif")
    stopped(model, tmp_path / "b.tif")
    before = files(tmp_path)
    found = {one.output: one for one in leftovers(tmp_path)}
    assert files(tmp_path) == before
    assert {output.name: one.state for output, one in found.items()} == {"a.tif": "finished", "b.tif": "unfinished"}
    one = found[tmp_path / "deep" / "a.tif"]
    inside = [p for p in one.path.rglob("*") if p.is_file()]
    assert one.bytes == sum(p.stat().st_size for p in inside) < 1 << 16  # a small record
    assert one.changed == max(p.stat().st_mtime for p in inside)
    hour_ago = time.time() - 3600
    for path in inside:
        os.utime(path, (hour_ago, hour_ago))
    (aged,) = leftovers(tmp_path / "deep")
    assert 3600 <= aged.to_json()["age_seconds"] < 3700
    assert leftovers(one.path.parent) == [aged]


def test_finished_goes_and_unfinished_stays_unless_asked(model: tp.Model, tmp_path: Path) -> None:
    tp.segment(IMAGE, model, tmp_path / "a.tif")
    stopped(model, tmp_path / "b.tif")
    made = (tmp_path / "a.tif").read_bytes()
    gone = {one.output.name: one.removed for one in clean(leftovers(tmp_path))}
    assert gone == {"a.tif": True, "b.tif": False}
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "a.tif.aux.xml", "a.qml", ".b.tif.tilepipe"}
    assert (tmp_path / "a.tif").read_bytes() == made
    (one,) = clean(leftovers(tmp_path), unfinished=True)
    assert one.removed
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "a.tif.aux.xml", "a.qml"}


def test_what_a_run_works_on_is_never_removed(model: tp.Model, tmp_path: Path) -> None:
    states: list[Leftover] = []

    def look(event: Event) -> None:
        if event.stage == "export":
            states.extend(clean(leftovers(tmp_path), unfinished=True))

    tp.segment(IMAGE, model, tmp_path / "a.tif", listener=look)
    assert {(one.state, one.removed) for one in states} == {("running", False)}
    assert (tmp_path / "a.tif").exists()
    listed = leftovers(tmp_path)
    with locked(tmp_path / ".a.tif.lock"):  # a run that began after the list was made
        assert [(one.state, one.removed) for one in clean(listed)] == [("running", False)]
    assert not (tmp_path / ".a.tif.lock").exists()


def test_a_run_that_began_anew_since_it_was_listed_stays(model: tp.Model, tmp_path: Path) -> None:
    tp.segment(IMAGE, model, tmp_path / "a.tif")
    (listed,) = leftovers(tmp_path)
    (listed.path / "run.json").unlink()
    assert [(one.state, one.removed) for one in clean([listed])] == [("unfinished", False)]


def test_nothing_of_somebody_else_is_touched(model: tp.Model, tmp_path: Path) -> None:
    work = tmp_path / ".a.tif.tilepipe"
    tp.segment(IMAGE, model, tmp_path / "a.tif")
    (work / "notes").mkdir()
    (work / "mine.txt").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "0123456789abcdef").mkdir(parents=True)
    (tmp_path / ".link.tilepipe").symlink_to(elsewhere)
    (work / "fedcba9876543210").symlink_to(elsewhere)
    (one,) = clean(leftovers(tmp_path), unfinished=True)
    assert one.removed
    assert {p.name for p in work.iterdir()} == {"notes", "mine.txt", "fedcba9876543210"}
    assert (elsewhere / "0123456789abcdef").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        leftovers(tmp_path / "none")


def test_without_a_record_a_run_leaves_its_products_alone(model: tp.Model, tmp_path: Path) -> None:
    kept = tp.segment(IMAGE, model, tmp_path / "kept.tif", layers="margin")
    result = tp.segment(IMAGE, model, tmp_path / "a.tif", layers="margin", record=False)
    assert not [p.name for p in tmp_path.iterdir() if "a.tif" in p.name and p.name.startswith(".")]
    assert (result.labels.map.read(WHOLE) == kept.labels.map.read(WHOLE)).all()
    assert result.certificate.sentences == kept.certificate.sentences
    with pytest.raises(UsageError, match="no record of one beside it, as after tilepipe clean or a run without"):
        verify(tmp_path / "a.tif")
    with pytest.raises(UsageError, match="exists"):
        tp.segment(IMAGE, model, tmp_path / "a.tif", layers="margin")
    again = tp.segment(IMAGE, model, tmp_path / "kept.tif", layers="margin", record=False)
    assert again.paths == kept.paths
    assert not (tmp_path / ".kept.tif.tilepipe").exists()


def test_without_a_record_some_product_must_hold_the_labels(model: tp.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"record=False.*needs a product that holds every label"):
        tp.segment(IMAGE, model, tmp_path / "a.geojson", record=False)
    assert not list(tmp_path.iterdir())


def test_an_export_leaves_nothing_whether_it_ends_well_or_not(model: tp.Model, tmp_path: Path) -> None:
    tp.segment(IMAGE, model, tmp_path / "a.tif", record=False)
    export(tmp_path / "a.tif", tmp_path / "b.geojson")

    def stop(event: Event) -> None:
        raise StopError

    with pytest.raises(StopError):
        export(tmp_path / "a.tif", tmp_path / "c.geojson", listener=stop)
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "a.tif.aux.xml", "a.qml", "b.geojson"}


def test_a_killed_export_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / ".a.tif.tilepipe" / "export" / "products").mkdir(parents=True)
    assert [one.state for one in leftovers(tmp_path)] == ["finished"]
    (tmp_path / ".a.tif.tilepipe" / "export" / "replaced").mkdir()
    assert [one.state for one in leftovers(tmp_path)] == ["unfinished"]
