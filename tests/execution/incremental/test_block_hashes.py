"""Hashes of a block change with each pixel that one of its tiles sees, and with nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.banded_runs import banded_job, small_bands
from helpers.examples import drawn
from helpers.fakes import job_for, open_queue
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.execution.executors import blocks, serial
from tilepipe.execution.incremental.block_hashes import PARTS
from tilepipe.execution.job import Job
from tilepipe.execution.ledger import Record, read_records
from tilepipe.sources.array import ArraySource
from tilepipe.testing import constant_model, local_mean_model, random_unet
from tilepipe.tiling.grid import Index

SHAPE = 90, 130
PIXELS = np.random.default_rng(0).integers(0, 256, (1, *SHAPE), np.uint8)


def lines(job: Job) -> dict[Index, Record]:
    """Run a job, and return its ledger."""
    serial.run(job, open_queue(job))
    assert job.directory is not None
    return dict(read_records(job.directory / "ledger.jsonl")[0])


def changed_at(y: int, x: int) -> ArraySource:
    pixels = PIXELS.copy()
    pixels[0, y, x] += 1
    return ArraySource(pixels)


def mirrored(index: int, size: int) -> int:
    """Return the pixel of an axis that stands at `index`, which may lie beyond the end."""
    return index if index < size else 2 * (size - 1) - index


def depends_on(job: Job, block: Index, y: int, x: int) -> bool:
    """Return whether a tile that decides a pixel of a block sees a pixel, by looking at every tile."""
    grid = job.plan.grid
    for tile in job.plan.tiles():
        box = grid.tile_box(tile)
        if grid.kept_box(tile) & grid.zone(block):
            rows = {mirrored(index, SHAPE[0]) for index in range(box.y0, box.y1)}
            columns = {mirrored(index, SHAPE[1]) for index in range(box.x0, box.x1)}
            if y in rows and x in columns:
                return True
    return False


def same(job: Job, block: Index, before: dict[Index, Record], after: dict[Index, Record]) -> bool:
    """Return whether all hashes that decide a block are the same."""
    parts = list(PARTS.items()) if job.plan.grid.blended else [("own", (0, 0))]
    for part, (_, (rows, columns)) in enumerate(parts):
        near = Index(block.row - rows, block.column - columns)
        if near in before and before[near].seen[part] != after[near].seen[part]:
            return False
    return True


@drawn(5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    y=st.integers(0, SHAPE[0] - 1), x=st.integers(0, SHAPE[1] - 1), tile=st.sampled_from([16, 24, 32]),
    block=st.sampled_from([1, 40, 64]), window=st.sampled_from(["crop", "gaussian"]),
)  # fmt: skip
def test_a_change_counts_as_far_as_tiles_see_it(
    tmp_path_factory: Any, y: int, x: int, tile: int, block: int, window: str
) -> None:
    cut: dict[str, Any] = {"tile": tile, "overlap": 8, "block": block, "window_shape": window}
    model, where = local_mean_model(radius=1, stride=4), tmp_path_factory.mktemp("run")
    job = job_for(ArraySource(PIXELS), model, where / "a", **cut)
    before = lines(job)
    after = lines(job_for(changed_at(y, x), model, where / "b", **cut))
    for found in before.values():
        assert len(found.seen) == (4 if job.plan.grid.blended else 1)
        assert sum(len(bytes.fromhex(one)) for one in found.seen) <= 64
    for block_index in before:
        assert same(job, block_index, before, after) is not depends_on(job, block_index, y, x)


def test_wanted_pixels_count(tmp_path: Path) -> None:
    """A pixel without image data that has the model's mean looks the same to the model, and gets no label."""
    pixels = np.maximum(PIXELS, 1)
    pixels[0, 10, 10] = 0
    model = constant_model(0.4, 0.6)
    cut: dict[str, Any] = {"tile": 32, "overlap": 8, "block": 40}
    with_label = lines(job_for(ArraySource(pixels), model, tmp_path / "a", mask="none", **cut))
    without = lines(job_for(ArraySource(pixels), model, tmp_path / "b", mask="value:0", **cut))
    assert [block for block in with_label if with_label[block].seen != without[block].seen] == [Index(0, 0)]


def test_no_record_keeps_no_hashes(tmp_path: Path) -> None:
    found = lines(job_for(ArraySource(PIXELS), constant_model(0.4, 0.6), tmp_path, record=False, tile=32))
    assert all(record.seen == () for record in found.values())


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_in_bands_the_order_of_blocks_changes_no_hash(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a pass begins in the middle of a column; and what lies beyond the lead of a block does not count."""
    small_bands(monkeypatch, height=8, kept=64, rows=1)
    monkeypatch.setattr("tilepipe.planning.band_tiling._in_tiles", lambda *_: math.inf)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 203, 150), np.uint8)
    model = random_unet(bands=1, depth=1)
    job = banded_job(ArraySource(pixels), model, tmp_path / "a")
    before = lines(job)
    backwards = banded_job(ArraySource(pixels), model, tmp_path / "b", workers=workers)
    queue = open_queue(backwards)
    blocks.run(backwards, queue, order=lambda missing: missing[::-1])
    assert {block: record.seen for block, record in queue.ledger.done.items()} == {
        block: record.seen for block, record in before.items()
    }
    changed = pixels.copy()
    changed[0, 100, 20] += 1
    after = lines(banded_job(ArraySource(changed), model, tmp_path / "c"))
    grid, near = job.plan.grid, Box(100, 20, 101, 21)
    differ = {block for block in before if before[block].seen != after[block].seen}
    assert differ
    assert differ <= {block for block in before if grid.tile_box(block) & near}
