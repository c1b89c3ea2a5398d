"""Labels do not depend on the engine, workers, block size or order, nor on where a run was killed."""

from __future__ import annotations

import hashlib
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import job_for, open_queue, run_labels

from tilepipe.box import Box
from tilepipe.execution.executors import blocks, serial
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise, random_unet
from tilepipe.tiling.grid import Index

CROP = {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96}
HANN = {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 64}


def cut_both_ways(short: str = "") -> pytest.MarkDecorator:
    """Both ways to cut for `truth`; only the one that `short` names is no long test."""
    cuts = {"crop": CROP, "hann": HANN}
    params = [pytest.param(cut, id=name, marks=[] if name == short else pytest.mark.long) for name, cut in cuts.items()]
    return pytest.mark.parametrize("truth", params, indirect=True)


def sha256(labels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def image() -> ArraySource:
    source = noise(300, 420)
    valid = np.ones((300, 420), bool)
    valid[100:260, 30:200] = False
    return ArraySource(source.read(source_box(source)), valid=valid)


def source_box(source: ArraySource) -> Box:
    return Box.of_shape(*source.shape[1:])


@pytest.fixture(scope="module")
def truth(request: pytest.FixtureRequest, image: ArraySource, tmp_path_factory: Any) -> tuple[dict[str, Any], str]:
    labels = run_labels(image, random_unet(), tmp_path_factory.mktemp("serial"), **request.param)
    assert 0.05 < (labels == 0).mean() < 0.95
    return request.param, sha256(labels)


@cut_both_ways("crop")
def test_dask_threads(truth: Any, image: ArraySource, tmp_path: Path) -> None:
    cut, expected = truth
    assert sha256(run_labels(image, random_unet(), tmp_path, blocks.run, **cut)) == expected


@cut_both_ways()
def test_two_worker_processes(truth: Any, image: ArraySource, tmp_path: Path) -> None:
    cut, expected = truth
    assert sha256(run_labels(image, random_unet(), tmp_path, blocks.run, workers=2, **cut)) == expected


@cut_both_ways("crop")
@pytest.mark.parametrize("block", [1, *(pytest.param(side, marks=pytest.mark.long) for side in (150, 1000))])
def test_any_block_size(truth: Any, image: ArraySource, tmp_path: Path, block: int) -> None:
    cut, expected = truth
    assert sha256(run_labels(image, random_unet(), tmp_path, **{**cut, "block": block})) == expected


@cut_both_ways("hann")
@pytest.mark.parametrize("batch", [2, pytest.param(5, marks=pytest.mark.long)])
def test_any_batch_size(truth: Any, image: ArraySource, tmp_path: Path, batch: int) -> None:
    cut, expected = truth
    assert sha256(run_labels(image, random_unet(), tmp_path, batch=batch, **cut)) == expected


@cut_both_ways("hann")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_any_order(truth: Any, image: ArraySource, tmp_path: Path, seed: int) -> None:
    cut, expected = truth

    def shuffled(blocks: list[Index]) -> list[Index]:
        return random.Random(seed).sample(blocks, len(blocks))

    assert sha256(run_labels(image, random_unet(), tmp_path, partial(blocks.run, order=shuffled), **cut)) == expected


def test_strips_are_gone_at_the_end(image: ArraySource, tmp_path: Path) -> None:
    run_labels(image, random_unet(), tmp_path, **HANN)
    assert not any((tmp_path / "run.zarr" / "strips").iterdir())


def test_strips_follow_a_row_of_blocks_not_the_image(tmp_path: Path) -> None:
    job = job_for(noise(64 * 12, 64 * 4), random_unet(), tmp_path, **HANN)
    most = 0

    def look(event: Any) -> None:
        nonlocal most
        strips = tmp_path / "run.zarr" / "strips"
        most = max(most, sum(1 for _ in strips.iterdir()) if strips.exists() else 0)

    serial.run(job, open_queue(job, look))
    assert 3 <= most <= 4 + 2


class _StopError(Exception):
    pass


@cut_both_ways("hann")
def test_resume_computes_only_what_is_missing(truth: Any, image: ArraySource, tmp_path: Path) -> None:
    cut, expected = truth
    job = job_for(image, random_unet(), tmp_path, **cut)
    computed: list[Index] = []

    def stop_after(count: int) -> Any:
        seen = 0

        def listen(event: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == count:
                raise _StopError

        return listen

    for _ in range(50):
        queue = open_queue(job, stop_after(3))
        before = set(queue.ledger.done)
        try:
            serial.run(job, queue)
        except _StopError:
            computed += set(queue.ledger.done) - before
            continue
        computed += set(queue.ledger.done) - before
        break
    assert sorted(computed) == sorted(job.plan.blocks())
    assert sha256(open_queue(job).store.labels.read(source_box(image))) == expected


@cut_both_ways("crop")
def test_a_torn_ledger_line_is_computed_again(truth: Any, image: ArraySource, tmp_path: Path) -> None:
    cut, expected = truth
    job = job_for(image, random_unet(), tmp_path, **cut)
    serial.run(job, open_queue(job))
    ledger = tmp_path / "ledger.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-20])
    queue = open_queue(job)
    if cut is CROP:
        assert len(queue.missing()) == 1
    serial.run(job, queue)  # with the earlier blocks whose strips are gone
    assert sha256(queue.store.labels.read(source_box(image))) == expected
