"""Killed at random moments and resumed: the same bytes, and no committed block is computed twice."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.fakes import job_for, open_queue

from tilepipe.box import Box
from tilepipe.execution.executors import blocks, serial
from tilepipe.execution.ledger import Ledger
from tilepipe.testing import noise, random_unet

CUTS: dict[str, dict[str, Any]] = {
    "crop": {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96},
    "hann": {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 100},
}
SHAPE = (230, 300)
KILLS = 20


def work(directory: Path, cut: str, ready: Any) -> None:
    """What the killed process does: run or resume."""
    job = job_for(noise(*SHAPE), random_unet(), directory, **CUTS[cut])
    queue = open_queue(job)
    ready.set()
    blocks.run(job, queue)


@pytest.mark.long
@pytest.mark.parametrize("cut", sorted(CUTS))
def test_killed_at_random_moments(cut: str, tmp_path: Path) -> None:
    job = job_for(noise(*SHAPE), random_unet(), tmp_path / "truth", **CUTS[cut])
    serial.run(job, open_queue(job))
    truth = _digest(tmp_path / "truth", cut)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tilepipe.execution.executors.dask", "tilepipe.planning.region", "tilepipe.models.nets.zoo", "hypothesis"]
    )
    _killed(context, tmp_path / "first", cut, None)  # starts the server, which imports what children then have
    undisturbed = _killed(context, tmp_path / "undisturbed", cut, None).seconds
    rng = random.Random(2026)
    kills, runs = 0, 0
    while kills < KILLS:
        directory = tmp_path / f"run {runs}"
        runs += 1
        while _killed(context, directory, cut, rng.uniform(0, 0.8) * undisturbed).killed:
            kills += 1
            committed = Ledger(directory / "ledger.jsonl").done
            lines = (directory / "ledger.jsonl").read_text().splitlines() if committed else []
            assert len(lines) == len(committed), "a committed block was computed again"
        assert _digest(directory, cut) == truth


class Outcome(NamedTuple):
    killed: bool
    seconds: float


def _killed(context: Any, directory: Path, cut: str, after: float | None) -> Outcome:
    """Start a process on `directory`, kill it so many seconds into its run; return whether that was before its end."""
    ready = context.Event()
    child = context.Process(target=work, args=(directory, cut, ready))
    child.start()
    assert ready.wait(timeout=120)
    start = time.monotonic()
    child.join(after)
    if child.exitcode is None:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        return Outcome(True, time.monotonic() - start)
    assert child.exitcode == 0
    return Outcome(False, time.monotonic() - start)


def _digest(directory: Path, cut: str) -> str:
    job = job_for(noise(*SHAPE), random_unet(), directory, **CUTS[cut])
    queue = open_queue(job)
    assert not queue.missing()
    labels = queue.store.labels.read(Box.of_shape(*SHAPE))
    return hashlib.sha256(labels.tobytes()).hexdigest()
