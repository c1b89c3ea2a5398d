"""Products are put in place together, by one writer, and nothing foreign is destroyed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.small_runs import CODES, labels_of, segment, work

from tilepipe.errors import LockedError, StorageError, UsageError
from tilepipe.events import Event
from tilepipe.execution import publish
from tilepipe.execution.outputs import Outputs
from tilepipe.sources.array import ArraySource
from tilepipe.storage import locked


def at_predict(act: Any) -> Any:
    done = []

    def listen(event: Event) -> None:
        if event.stage == "predict" and not done:
            done.append(act())

    return listen


@pytest.mark.parametrize("products", [["cog", "geojson"], ["geojson", "cog"]])
def test_the_order_of_products_is_no_other_output(products: list[str], tmp_path: Path) -> None:
    paths = {"cog": tmp_path / "out.tif", "geojson": tmp_path / "out.geojson"}
    outputs = Outputs({name: paths[name] for name in products}, overwrite=False)
    assert outputs.work == tmp_path / ".out.tif.tilepipe"
    first = segment(tmp_path / "out.tif", of=["cog", "geojson"])
    assert segment(tmp_path / "out.tif", of=products).record == first.record


@pytest.mark.parametrize("of", [["geojson", "cog"], ["geojson"]])
def test_a_run_that_shares_one_output_is_refused(of: list[str], tmp_path: Path) -> None:
    def second() -> None:
        with pytest.raises(LockedError, match="another run holds"):
            segment(tmp_path / ("out.tif" if "cog" in of else "out.geojson"), source=ArraySource(3 - CODES), of=of)

    segment(tmp_path / "out.tif", of=["cog", "geojson"], listener=at_predict(second))
    assert (labels_of(tmp_path / "out.tif") == CODES).all()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["out.tif", "out.ome.zarr"])
def test_what_appears_during_a_run_is_not_destroyed(name: str, overwrite: bool, tmp_path: Path) -> None:
    output = tmp_path / name

    def appear() -> None:
        if name == "out.tif":
            output.write_bytes(b"years of work")
        else:
            output.mkdir()
            (output / "thesis.txt").write_bytes(b"years of work")

    with pytest.raises(UsageError, match="made or changed by somebody else"):
        segment(output, listener=at_predict(appear), overwrite=overwrite)
    kept = output if name == "out.tif" else output / "thesis.txt"
    assert kept.read_bytes() == b"years of work"
    output.rename(tmp_path / "elsewhere")
    stages: list[str] = []
    segment(output, listener=lambda event: stages.append(event.stage), overwrite=overwrite)
    assert stages == ["done"], "finished products only had to be put in place"
    assert (labels_of(output) == CODES).all()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no)
    with pytest.raises(StorageError, match="cannot lock files") as refused:
        segment(tmp_path / "out.tif")
    assert refused.value.exit_code == 6


def test_where_files_cannot_change_places_a_folder_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "rename2", lambda *_: False)
    output = tmp_path / "out.ome.zarr"
    segment(output)
    segment(output, source=ArraySource(3 - CODES), overwrite=True)
    assert (labels_of(output) == 3 - CODES).all()
    assert sorted(os.listdir(tmp_path)) == [".out.ome.zarr.tilepipe", "out.ome.zarr"]


@pytest.mark.parametrize("what", ["work directory", "chunks", "ledger.jsonl", "plan.json"])
def test_what_vanishes_during_a_run_is_noticed(what: str, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"

    def vanish(event: Event) -> None:
        if event.stage != "predict" or event.done != 4:
            return
        run = next(path for path in work(output).iterdir())
        if what == "work directory":
            shutil.rmtree(work(output))
        elif what == "chunks":
            for chunk in list(run.glob("run.zarr/labels/c/*/*"))[:2]:
                chunk.unlink()
        else:
            (run / what).unlink()

    with pytest.raises(StorageError):
        segment(output, listener=vanish)
    assert not output.exists()
    segment(output)
    assert (labels_of(output) == CODES).all()


def test_a_lock_left_by_a_killed_process_is_free(tmp_path: Path) -> None:
    (tmp_path / ".out.tif.lock").write_bytes(b"")
    segment(tmp_path / "out.tif")
    with locked(tmp_path / ".out.tif.lock"), pytest.raises(LockedError):
        segment(tmp_path / "out.tif")
