"""A work directory from the first block to the published products: nothing is lost, mixed or overwritten."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_runs import CODES, StopError, files, labels_of, segment, stop_at, work

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, LockedError, StorageError, UsageError
from tilepipe.events import Event
from tilepipe.execution import publish
from tilepipe.execution import segment as pipeline
from tilepipe.sources.array import ArraySource
from tilepipe.storage import locked
from tilepipe.testing import FakeSource, noise, random_unet, whole_image


def test_a_second_run_computes_and_writes_nothing(tmp_path: Path) -> None:
    output, events = tmp_path / "out.tif", []
    first = segment(output)
    before = files(tmp_path)
    second = segment(output, listener=events.append)
    assert [event.stage for event in events] == ["done"]
    assert second.record == first.record
    assert files(tmp_path) == before
    assert (labels_of(output) == CODES).all()


@pytest.mark.parametrize("window", ["crop", "hann"])
def test_an_output_that_was_deleted_is_made_again(window: str, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    segment(output, window_shape=window)
    truth = labels_of(output)
    output.unlink()
    segment(output, window_shape=window)
    assert (labels_of(output) == truth).all()
    assert (truth != 255).all()


def test_a_product_more_is_made_from_the_same_labels(tmp_path: Path) -> None:
    segment(tmp_path / "out.tif")
    result = segment(tmp_path / "out.tif", of=["cog", "geojson"], overwrite=True)
    assert (labels_of(tmp_path / "out.tif") == CODES).all()
    assert len(json.loads(result.paths[1].read_text())["features"]) > 100


def test_an_output_that_was_changed_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    segment(output)
    output.write_bytes(b"edited by hand")
    with pytest.raises(UsageError, match=r"out\.tif exists and was changed since .*; use `overwrite=True`"):
        segment(output)
    assert output.read_bytes() == b"edited by hand"
    segment(output, overwrite=True)
    assert (labels_of(output) == CODES).all()


def test_an_output_that_exists_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    output.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists"):
        segment(output)
    assert os.listdir(tmp_path) == ["out.tif"]
    assert output.read_bytes() == b"old"


def test_overwrite_replaces_only_at_the_end(tmp_path: Path) -> None:
    output, seen = tmp_path / "out.tif", []
    output.write_bytes(b"old")

    def look(event: Event) -> None:
        seen.append((event.stage, output.read_bytes() == b"old"))

    with pytest.raises(StopError):
        segment(output, overwrite=True, listener=stop_at("export"))
    assert output.read_bytes() == b"old"
    segment(output, overwrite=True, listener=look)
    assert seen == [("export", True), ("done", False)]
    assert (labels_of(output) == CODES).all()


@pytest.mark.parametrize("product", ["cog", "ome-zarr"])
def test_a_folder_of_somebody_else_is_never_replaced(product: str, tmp_path: Path) -> None:
    output = tmp_path / ("out.tif" if product == "cog" else "out.ome.zarr")
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"is no .* product"):
        segment(output, overwrite=True)
    assert (output / "thesis.txt").read_text() == "years of work"


def test_a_file_does_not_become_a_zarr_folder(tmp_path: Path) -> None:
    (tmp_path / "out.ome.zarr").write_bytes(b"old")
    with pytest.raises(UsageError, match="is no ome-zarr product"):
        segment(tmp_path / "out.ome.zarr", overwrite=True)
    assert (tmp_path / "out.ome.zarr").read_bytes() == b"old"


def test_a_zarr_product_is_replaced_whole(tmp_path: Path) -> None:
    output = tmp_path / "out.ome.zarr"
    segment(output)
    segment(output, source=ArraySource(3 - CODES), overwrite=True)
    assert (labels_of(output) == 3 - CODES).all()
    assert sorted(os.listdir(tmp_path)) == [".out.ome.zarr.tilepipe", "out.ome.zarr"]


def test_another_key_never_mixes_and_both_work_directories_survive(tmp_path: Path) -> None:
    output, other = tmp_path / "out.tif", ArraySource(3 - CODES)
    with pytest.raises(StopError):
        segment(output, listener=stop_at("predict", 3))
    segment(output, source=other)
    assert (labels_of(output) == 3 - CODES).all()
    assert len([path for path in work(output).iterdir() if path.is_dir()]) == 2
    events: list[Event] = []
    segment(output, overwrite=True, listener=events.append)
    assert (labels_of(output) == CODES).all()
    first = next(event for event in events if event.stage == "predict")
    assert first.done == 3, "three blocks were there"


def test_a_run_in_fp64_resumes_and_never_mixes_with_fp32(tmp_path: Path) -> None:
    image, model, output = noise(130, 170), random_unet(depth=1), tmp_path / "out.tif"
    chosen: dict[str, Any] = {"tile": 64, "block": 64}
    with pytest.raises(StopError):
        tp.segment(image, model, output, listener=stop_at("predict", 3), precision="fp64", **chosen)
    with pytest.raises(StopError):
        tp.segment(image, model, output, listener=stop_at("predict", 1), **chosen)
    assert len({path.parent for path in work(output).glob("*/ledger.jsonl")}) == 2
    counts: list[int] = []
    listener = lambda event: counts.append(event.done) if event.stage == "predict" else None  # noqa: E731
    result = tp.segment(image, model, output, listener=listener, precision="fp64", **chosen)
    assert counts[0] >= 2
    assert (labels_of(output) == whole_image(model, image, torch.float64)).all()
    assert result.certificate.precision == "fp64"
    assert result.certificate.level is not None


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with locked(tmp_path / ".out.tif.lock"), pytest.raises(LockedError, match="another run holds"):
        segment(output)
    segment(output)


def test_an_output_made_by_another_run_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, real = tmp_path / "out.tif", pipeline.locked

    def late(*files: Path) -> Any:
        output.write_bytes(b"made meanwhile")
        return real(*files)

    monkeypatch.setattr(pipeline, "locked", late)
    with pytest.raises(UsageError, match="exists"):
        segment(output)
    assert output.read_bytes() == b"made meanwhile"


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_stopped_while_products_are_put_in_place(renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command goes on, though some of its own products exist already."""
    output, real, calls = tmp_path / "out.tif", publish._replace, []

    def replace(*paths: Path) -> None:
        if len(calls) == renames:
            raise StopError
        calls.append(real(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_replace", replace)
        patch.setattr(pipeline, "drop_arrays", stop_at("drop"))
        with pytest.raises((StopError, AttributeError)):
            segment(output, of=["cog", "geojson"])
    result = segment(output, of=["cog", "geojson"])
    assert (labels_of(output) == CODES).all()
    assert all(path.exists() for path in result.paths)
    assert not list(work(output).glob("*/run.zarr")), "the arrays go once the products are in place"


def test_labels_that_vanished_are_noticed(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with pytest.raises(StopError):
        segment(output, listener=stop_at("predict", 4))
    chunk = next(path for path in sorted(work(output).glob("*/run.zarr/labels/c/*/*")) if path.is_file())
    chunk.unlink()
    said: list[str] = []
    segment(output, listener=lambda event: said.append(event.message))
    assert "was damaged: 1 blocks are computed again" in said[0]
    assert (labels_of(output) == CODES).all()


def test_a_ledger_without_arrays_counts_for_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with pytest.raises(StopError):
        segment(output, listener=stop_at("predict", 4))
    shutil.rmtree(next(work(output).glob("*/run.zarr")))
    segment(output)
    assert (labels_of(output) == CODES).all()


def test_all_tiles_failing_is_an_error_and_is_tried_again(tmp_path: Path) -> None:
    output, image = tmp_path / "out.tif", FakeSource(CODES)
    image.damaged = Box.of_shape(*CODES.shape)
    for _ in range(2):
        with pytest.raises(InputError, match=r"none of \d+ tiles could be read; the first: array: rows 0 to 90"):
            segment(output, source=image)
    assert not output.exists()
    image.damaged = None
    segment(output, source=image)
    assert (labels_of(output) == CODES).all()


@pytest.mark.parametrize(("window", "ask"), [("crop", "overwrite"), ("hann", "delete")])
def test_some_tiles_failing_is_reported_and_tried_again_when_asked(window: str, ask: str, tmp_path: Path) -> None:
    output, image = tmp_path / "out.tif", FakeSource(CODES)
    image.damaged = Box(5, 5, 6, 6)
    result = segment(output, source=image, window_shape=window)
    assert len(result.failed) == 1
    assert "damaged" in result.failed[0]
    labels = labels_of(output)
    assert labels[5, 5] == 255
    assert (labels[40:] == CODES[40:]).all()
    image.damaged = None
    assert segment(output, source=image, window_shape=window).failed == result.failed, "already complete"
    if ask == "overwrite":
        assert not segment(output, source=image, window_shape=window, overwrite=True).failed
    else:
        output.unlink()
        assert not segment(output, source=image, window_shape=window).failed
    assert (labels_of(output) == CODES).all()


FULL = """
import resource, signal, sys
from pathlib import Path
from helpers.small_runs import segment
from tilepipe.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    try:
        segment(Path(sys.argv[1]), overwrite=True)
    except StorageError as error:
        assert Path(sys.argv[1]).read_bytes() == b"old"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(error.exit_code, error)
"""


@pytest.mark.long
def test_a_full_disk_keeps_what_is_there_and_resumes(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: at the store, at a chunk, at the product."""
    output = tmp_path / "out.tif"
    output.write_bytes(b"old")
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", FULL, str(output), "300", "1100", "4000"]
    child = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    lines = child.stdout.splitlines()
    assert [line[:2] for line in lines] == ["6 "] * 3, child.stderr
    assert all("cannot write" in line for line in lines)
    assert "out.tif" in lines[2]
    assert output.read_bytes() == b"old"
    segment(output, overwrite=True)
    assert (labels_of(output) == CODES).all()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write: /proc"):
        segment(Path("/proc/out.tif"))


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folder .*nowhere does not exist"):
        segment(tmp_path / "nowhere" / "out.tif")
    assert not (tmp_path / "nowhere").exists()


def test_run_json_says_what_was_done(tmp_path: Path) -> None:
    result = segment(tmp_path / "out.tif")
    record = json.loads(next(work(tmp_path / "out.tif").glob("*/run.json")).read_text())
    assert record.pop("file") == "run.json"
    record.pop("check")
    assert record == result.record
    assert record["published"]
    assert (record["blocks"], record["tiles"]) == (len(list(result.plan.blocks())), result.plan.tile_count)
    assert record["failed"] == []
    assert {"torch", "zarr", "python"} <= set(record["versions"])
    assert set(record["products"]) == {"out.tif"}
