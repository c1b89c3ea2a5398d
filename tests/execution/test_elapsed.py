"""Elapsed time is wall time, over all attempts of a run; seconds of blocks are called so."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import tilepipe as tp
from tilepipe.events import Event
from tilepipe.execution.elapsed import elapsed_before, processor_timed, timed
from tilepipe.execution.stages import StageNotes, collected
from tilepipe.testing import noise, random_unet


def test_attempts_add_up_and_damage_is_harmless(tmp_path: Path) -> None:
    for _ in range(2):
        with suppress(ZeroDivisionError), timed(tmp_path) as elapsed:
            time.sleep(0.05)
            raise ZeroDivisionError
    assert 0.1 <= elapsed() < 60
    assert elapsed_before(tmp_path) == pytest.approx(elapsed(), abs=0.05)
    with (tmp_path / "elapsed.jsonl").open("a") as file:
        file.write('{"seconds": 1e9}\n[[[[')
    assert elapsed_before(tmp_path) < 60


def test_a_run_keeps_both(tmp_path: Path) -> None:
    """An attempt that is stopped counts; the sum over blocks, which run beside each other, has its own name."""
    image, model, slept = noise(200, 200), random_unet(), 0.3
    cut: dict[str, Any] = {"tile": 96, "overlap": 64, "block": 96}

    def stop(event: Event) -> None:
        if event.stage == "predict" and event.done >= 1:
            time.sleep(slept)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tp.segment(image, model, tmp_path / "a.tif", listener=stop, **cut)
    tp.segment(image, model, tmp_path / "a.tif", **cut)
    record = json.loads(next(tmp_path.glob(".a.tif.tilepipe/*/run.json")).read_text())
    assert record["elapsed_seconds"] > slept
    assert record["block_seconds"] > 0
    assert record["processor_seconds"] == 0, "what the first attempt has spent is not known"
    assert "seconds" not in record


def test_run_json_holds_the_time_of_each_stage(tmp_path: Path) -> None:
    result = tp.segment(noise(90, 120), random_unet(), tmp_path / "out.tif", tile=64, overlap=48)
    stages = result.record["stages"]
    assert set(stages) == {"read", "wait", "compute", "blend", "write", "idle", "elapsed", "products"}
    assert all(seconds >= 0 for seconds in stages.values())
    assert min(stages["read"], stages["compute"], stages["write"], stages["products"]) > 0
    assert "is the bottleneck" in result.record["bottleneck"]
    assert 0 < result.record["processor_seconds"] < 60
    assert not list(tmp_path.rglob("stages"))


def test_processor_time_of_other_processes_counts_and_that_of_this_one_once(tmp_path: Path) -> None:
    with collected(tmp_path, 1) as stages:
        notes = StageNotes(tmp_path)
        notes.write()
        (tmp_path / "stages" / "elsewhere-1.json").write_text('{"compute": 2.0, "processor": 3.5}')
    assert stages()["processor"] == 3.5
    assert stages()["compute"] == 2.0


def test_processor_time_is_not_known_if_another_run_worked_beside_it() -> None:
    with processor_timed() as first:
        sum(range(1_000_000))
        assert first() > 0
        with processor_timed() as second:
            assert first() == second() == 0
        assert first() == 0, "what the other one has spent is in it for good"
    with processor_timed() as third:
        sum(range(1_000_000))
        assert third() > 0


def test_a_run_that_was_not_alone_claims_no_time_of_others(tmp_path: Path) -> None:
    with processor_timed():
        result = tp.segment(
            noise(90, 120), random_unet(), tmp_path / "a.tif", tile=64, overlap=48, of=["cog", "report"]
        )
    record, page = result.record, (tmp_path / "a.html").read_text()
    assert (record["processor_seconds"], record["bottleneck"], set(record["stages"])) == (0, "", {"products"})
    assert "total time" in page
    assert "processor time" not in page
    assert "bottleneck" not in page


def test_a_report_and_run_json_have_the_same_processor_time(tmp_path: Path) -> None:
    result = tp.segment(noise(90, 120), random_unet(), tmp_path / "out.tif", tile=64, overlap=48, of=["cog", "report"])
    spent = result.record["processor_seconds"]
    shown = re.search(r"processor time</dt><dd>([0-9.]+) s of all cores", (tmp_path / "out.html").read_text())
    assert shown is not None
    assert 0 < float(shown[1]) <= spent * 1.05
