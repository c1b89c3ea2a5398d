"""Killed at 20 random moments and resumed: the same bytes, and no committed block is computed twice."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from fakes import job_for, noise, open_book, random_unet

from tilepipe.box import Box
from tilepipe.engine import dask, serial
from tilepipe.store import Ledger

CUTS = {
    "crop": {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96},
    "hann": {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 64},
}
SHAPE = (360, 480)
KILLS = 20


def work(directory: Path, cut: str) -> None:
    """What the killed process does: run or resume."""
    job = job_for(noise(*SHAPE), random_unet(), directory, **CUTS[cut])  # type: ignore[arg-type]
    dask.run(job, open_book(job))


@pytest.mark.parametrize("cut", sorted(CUTS))
def test_killed_at_random_moments(cut: str, tmp_path: Path) -> None:
    job = job_for(noise(*SHAPE), random_unet(), tmp_path / "truth", **CUTS[cut])  # type: ignore[arg-type]
    serial.run(job, open_book(job))
    truth = _digest(tmp_path / "truth", cut)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_crash"])
    undisturbed = _seconds(context, tmp_path / "undisturbed", cut)
    rng = random.Random(2026)
    kills, runs = 0, 0
    while kills < KILLS // 2:
        directory = tmp_path / f"run {runs}"
        runs += 1
        while _killed(context, directory, cut, rng.uniform(0.1, 0.9) * undisturbed):
            kills += 1
            committed = Ledger(directory / "ledger.jsonl").done
            lines = (directory / "ledger.jsonl").read_text().splitlines() if committed else []
            assert len(lines) == len(committed), "a committed block was computed again"
        assert _digest(directory, cut) == truth
    assert runs < 40


def _seconds(context: multiprocessing.context.ForkServerContext, directory: Path, cut: str) -> float:
    start = time.monotonic()
    assert not _killed(context, directory, cut, None)
    return time.monotonic() - start


def _killed(context: multiprocessing.context.ForkServerContext, directory: Path, cut: str, after: float | None) -> bool:
    """Start a process on `directory`; kill it after so many seconds. Return whether it was killed before its end."""
    child = context.Process(target=work, args=(directory, cut))
    child.start()
    child.join(after)
    if child.exitcode is None:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        return True
    assert child.exitcode == 0
    return False


def _digest(directory: Path, cut: str) -> str:
    job = job_for(noise(*SHAPE), random_unet(), directory, **CUTS[cut])  # type: ignore[arg-type]
    book = open_book(job)
    assert not book.missing()
    labels = book.store.read_labels(Box.of_shape(*SHAPE))
    return hashlib.sha256(labels.tobytes()).hexdigest()
