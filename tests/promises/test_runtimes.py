"""The promises hold for each runtime: same bytes, a region is a crop, a killed run goes on with its own runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.banded_runs import banded_job, small_bands
from helpers.fakes import job_for, open_queue, run_labels
from helpers.runtimes import RUNTIMES
from helpers.small_runs import StopError, stop_at

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import ModelError
from tilepipe.execution.executors import blocks, serial
from tilepipe.execution.keys import PLAN
from tilepipe.execution.region_labels import region_labels
from tilepipe.sources.array import ArraySource
from tilepipe.storage import read_json, write_json
from tilepipe.testing import noise, random_unet, whole_image

CROP = {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96}
HANN = {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 64}
IMAGE = noise(200, 230)


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("cut", [pytest.param(CROP, marks=pytest.mark.long), HANN], ids=["crop", "hann"])
def test_same_bytes_for_each_block_batch_and_executor(runtime: str, cut: dict[str, Any], tmp_path: Path) -> None:
    settings = {**cut, "runtime": runtime}
    truth = run_labels(IMAGE, random_unet(), tmp_path / "one", **settings)
    assert 0.05 < (truth == 0).mean() < 0.95
    for name, engine, more in (
        ("block", serial.run, {"block": 150}),
        ("threads", blocks.run, {}),
        ("batch", serial.run, {"batch": 2}),
    ):
        found = run_labels(IMAGE, random_unet(), tmp_path / name, engine, **settings | more)
        assert np.array_equal(found, truth), name
    if cut is CROP:
        assert (truth != whole_image(random_unet(), IMAGE)).mean() < 1e-4


@pytest.mark.long
def test_two_worker_processes_give_the_same_bytes(runtime: str, tmp_path: Path) -> None:
    settings = {**CROP, "runtime": runtime}
    truth = run_labels(IMAGE, random_unet(), tmp_path / "one", **settings)
    assert np.array_equal(run_labels(IMAGE, random_unet(), tmp_path / "two", blocks.run, workers=2, **settings), truth)


def test_a_region_is_a_crop(runtime: str) -> None:
    settings: Any = {**CROP, "runtime": runtime, "device": "cpu"}
    whole = tp.predict(IMAGE, random_unet(), **settings)
    assert np.array_equal(tp.predict(IMAGE, random_unet(), Box(70, 31, 151, 190), **settings), whole[70:151, 31:190])


def test_a_stopped_run_goes_on_with_its_own_runtime(runtime: str, tmp_path: Path) -> None:
    settings: Any = {**CROP, "runtime": runtime, "device": "cpu"}
    truth = tp.segment(IMAGE, random_unet(), tmp_path / "whole.tif", **settings)
    output = tmp_path / "out.tif"
    with pytest.raises(StopError):
        tp.segment(IMAGE, random_unet(), output, listener=stop_at("predict", 2), **settings)
    result = tp.segment(IMAGE, random_unet(), output, **settings)
    assert np.array_equal(np.asarray(result.labels), np.asarray(truth.labels))
    assert result.plan.compute.runtime.startswith(f"{runtime} ")
    assert any(runtime in sentence and "those of torch" in sentence for sentence in result.certificate.sentences)
    assert result.record["versions"][runtime] in result.plan.compute.runtime


@pytest.fixture
def in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    small_bands(monkeypatch, height=16, kept=120)


@pytest.mark.usefixtures("in_bands")
def test_bands_keep_the_promises(runtime: str, tmp_path: Path) -> None:
    image, settings = noise(420, 230), {"runtime": runtime, "device": "cpu"}
    job = banded_job(image, random_unet(), tmp_path / "one", **settings)
    assert job.plan.compute.runtime.startswith(f"{runtime} ")
    queue = open_queue(job)
    serial.run(job, queue)
    truth = queue.store.labels.read(Box.of_shape(420, 230))
    assert 0.05 < (truth == 0).mean() < 0.95
    assert (truth != whole_image(random_unet(), image)).mean() < 1e-4
    # A pass that begins anew at a block gives the same bytes.
    for block in list(job.plan.blocks())[::-7]:
        zone = job.plan.grid.zone(block)
        region = banded_job(image, random_unet(), region=zone, **settings)
        assert np.array_equal(region_labels(region, image), truth[zone.y0 : zone.y1, zone.x0 : zone.x1])


@pytest.mark.usefixtures("in_bands")
def test_a_stopped_run_in_bands_goes_on(runtime: str, tmp_path: Path) -> None:
    settings: Any = {"runtime": runtime, "device": "cpu"}
    image = noise(420, 130)
    truth = tp.segment(image, random_unet(), tmp_path / "whole.tif", **settings)
    output = tmp_path / "out.tif"
    with pytest.raises(StopError):
        tp.segment(image, random_unet(), output, listener=stop_at("predict", 3), **settings)
    result = tp.segment(image, random_unet(), output, **settings)
    assert result.plan.tiling.bands
    assert np.array_equal(np.asarray(result.labels), np.asarray(truth.labels))


def test_another_version_of_a_runtime_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    settings: Any = {**CROP, "runtime": "onnxruntime", "device": "cpu"}
    output = tmp_path / "out.tif"
    with pytest.raises(StopError):
        tp.segment(IMAGE, random_unet(), output, listener=stop_at("predict", 2), **settings)
    (path,) = tmp_path.glob(f".out.tif.tilepipe/*/{PLAN}")
    fields = read_json(path)
    fields["compute"]["runtime"] = "onnxruntime 0.1"
    write_json(path, fields)
    with pytest.raises(ModelError, match=r"computes with onnxruntime 0\.1, and onnxruntime .* is installed"):
        tp.segment(IMAGE, random_unet(), output, **settings)


def test_the_run_key_holds_the_runtime_and_torch_keeps_its_key() -> None:
    plan = job_for(IMAGE, random_unet(), **CROP).plan
    other = replace(plan, compute=replace(plan.compute, runtime="onnxruntime 1.0"))
    assert plan.compute.runtime == "torch"
    assert other.key({}, "w") != plan.key({}, "w")
    assert type(plan).from_json(json.dumps(other.to_dict())) == other


def test_other_runtimes_leave_unread_places_and_bad_numbers_as_torch_does(tmp_path: Path) -> None:
    pixels = noise(100, 100).read(Box(0, 0, 100, 100)).astype(np.float32)
    pixels[:, 50, 50] = np.nan
    valid = np.ones((100, 100), bool)
    valid[80:, :30] = False
    source = ArraySource(pixels, valid=valid)
    truth = run_labels(source, random_unet(), tmp_path / "torch", **CROP, runtime="torch")
    found = run_labels(source, random_unet(), tmp_path / "onnx", **CROP, runtime="onnxruntime")
    assert ((found == 255) == (truth == 255)).all()
    assert (found != truth).mean() < 1e-3
