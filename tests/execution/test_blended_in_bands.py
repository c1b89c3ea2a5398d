"""Blended tiles that are computed in bands of rows give the labels of the same tiles computed whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import open_queue
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.executors import blocks, serial
from tilepipe.execution.job import Job, make_job
from tilepipe.inference.runtimes.base import missing
from tilepipe.planning import band_tiling
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise, random_unet

UNET = random_unet(depth=2)
IMAGE = noise(288, 416)  # two by three tiles of 160 px, which just fit
HANN: dict[str, Any] = {"device": "cpu", "window_shape": "hann", "overlap": 32, "block": 64}
NEEDED = pytest.mark.skipif(bool(missing("onnxruntime")), reason="needs ONNX Runtime")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands pay for small images too; the usual tile is 64 px, blended tiles in bands are 160 px."""
    for name, value in {"TALLEST": 16, "SAVED": -(10**9), "CLEARLY": 100.0, "BLENDED": (160,)}.items():
        monkeypatch.setattr(band_tiling, name, value)
    monkeypatch.setattr("tilepipe.planning.tile_size.DEFAULT_TILE", 64)


def job_of(directory: Path | None = None, image: ArraySource = IMAGE, **settings: Any) -> Job:
    job = make_job(image, UNET, Request.of({**HANN, **settings}))
    cut = job.plan.tiling
    assert cut.bands is not None
    assert (cut.tile, cut.window, cut.bands.height) == (160, "hann", 16)
    return replace(job, directory=directory)


def labels(job: Job, engine: Any = serial.run) -> NDArray[np.uint8]:
    queue = open_queue(job)
    engine(job, queue)
    return np.asarray(queue.store.labels.read(Box.of_shape(*job.plan.predicted)))


@pytest.mark.parametrize("runtime", ["torch", pytest.param("onnxruntime", marks=[NEEDED, pytest.mark.long])])
def test_probabilities_are_those_of_the_same_tiles_computed_whole(runtime: str) -> None:
    settings = {**HANN, "runtime": runtime}
    banded = tp.predict(IMAGE, UNET, returns="probabilities", **settings)
    whole = tp.predict(IMAGE, UNET, returns="probabilities", tile=160, **settings)
    assert tp.plan(IMAGE, UNET, tile=160, **settings).tiling.bands is None
    assert np.abs(banded.astype(int) - whole).max() <= 1
    assert (banded != whole).mean() < 1e-3


def test_labels_in_fp64_are_those_of_the_same_tiles_computed_whole() -> None:
    found = tp.predict(IMAGE, UNET, precision="fp64", **HANN)
    assert (found == tp.predict(IMAGE, UNET, precision="fp64", tile=160, **HANN)).all()
    assert 0.02 < (found == 0).mean() < 0.98


@pytest.mark.parametrize("runtime", ["torch", pytest.param("onnxruntime", marks=NEEDED)])
def test_any_engine_block_region_and_stop_gives_the_same_bits(runtime: str, tmp_path: Path) -> None:
    truth = labels(job_of(tmp_path / "serial", runtime=runtime))
    assert (labels(job_of(tmp_path / "blocks", runtime=runtime, block=300), blocks.run) == truth).all()
    for region in (Box(0, 0, 1, 1), Box(57, 90, 231, 260), Box(100, 0, 101, 416)):
        part = tp.predict(IMAGE, UNET, region, **{**HANN, "runtime": runtime})
        assert (part == truth[region.y0 : region.y1, region.x0 : region.x1]).all()
    job = job_of(tmp_path / "parts", runtime=runtime)
    queue, worker = open_queue(job), BlockWorker(job)
    queue.commit(worker.run(queue.missing()[0]))
    worker.close()
    assert (labels(job) == truth).all()


def test_layers_come_with_them(tmp_path: Path) -> None:
    result = tp.segment(IMAGE, UNET, tmp_path / "out.tif", layers="margin,disagreement", **HANN)
    assert (np.asarray(result.labels) == tp.predict(IMAGE, UNET, **HANN)).all()
    for name in ("margin", "disagreement"):
        assert (np.asarray(result.layers[name]) == tp.predict(IMAGE, UNET, returns=name, **HANN)).all()


def test_the_run_can_be_verified_and_says_what_it_is(tmp_path: Path) -> None:
    result = tp.segment(IMAGE, UNET, tmp_path / "out.tif", **HANN)
    assert result.certificate.mode == "BLEND"
    assert "160 x 160 px, in bands of 16 rows" in str(job_of().plan)
    assert tp.verify(tmp_path / "out.tif", image=IMAGE, model=UNET).holds


def test_what_has_not_changed_is_taken_over(tmp_path: Path) -> None:
    pixels = IMAGE.read(Box(0, 0, 288, 416)).copy()
    tp.segment(ArraySource(pixels.copy()), UNET, tmp_path / "old.tif", **HANN)
    pixels[:, :40, :40] = 255 - pixels[:, :40, :40]
    settings: dict[str, Any] = {**HANN, "since": str(tmp_path / "old.tif")}
    found = tp.segment(ArraySource(pixels), UNET, tmp_path / "new.tif", **settings)
    assert 0 < found.record["taken"] < found.record["blocks"]
    tp.segment(ArraySource(pixels), UNET, tmp_path / "full.tif", **HANN)
    assert (tmp_path / "new.tif").read_bytes() == (tmp_path / "full.tif").read_bytes()
