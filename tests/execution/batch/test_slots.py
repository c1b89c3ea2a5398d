"""Slots of a batch that serves itself: histories of clocks, crashes and long runs; folders that are watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilepipe.errors import LockedError, UsageError
from tilepipe.execution.batch.cron import Cron
from tilepipe.execution.batch.serve import Clock, Service, serve
from tilepipe.execution.batch.slots import BEGUN, CAUGHT_UP, FINISHED, INTERRUPTED, Slots, trigger_of
from tilepipe.storage import locked, read_lines
from tilepipe.testing import write_geotiff

BERLIN = ZoneInfo("Europe/Berlin")


class Machine:
    """A machine with a clock of its own; a run takes time, and may be cut off with the machine."""

    def __init__(self, now: datetime) -> None:
        self.now, self.active, self.runs = now, 0, 0
        self.takes: list[float] = []
        self.cut = False

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def run(self) -> int:
        assert self.active == 0, "two runs at once"
        self.active, self.runs = 1, self.runs + 1
        self.now += timedelta(minutes=self.takes.pop() if self.takes else 1)
        self.active = 0
        if self.cut:
            self.cut = False
            raise KeyboardInterrupt
        return 0


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("work"), st.integers(1, 40)),
        st.tuples(st.just("off"), st.integers(1, 4000)),
        st.tuples(st.just("back"), st.integers(1, 100)),
        st.tuples(st.just("long"), st.integers(2, 400)),
        st.tuples(st.just("cut"), st.just(0)),
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([(2026, 3, 28), (2026, 10, 24), (2026, 7, 1)]),
    st.sampled_from(["0 * * * *", "30 2 * * *", "*/20 1-4 * * *"]),
    ACTS,
)
def test_no_slot_is_doubled_or_forgotten(
    tmp_path_factory: pytest.TempPathFactory, day: tuple[int, int, int], text: str, acts: list[tuple[str, int]]
) -> None:
    record = tmp_path_factory.mktemp("slots") / "night.slots.jsonl"
    machine = Machine(datetime(*day, 22, 7, tzinfo=BERLIN).astimezone(UTC))
    first: datetime | None = None
    clock = Clock(lambda: machine.now, machine.sleep)

    def service() -> Service:
        trigger = trigger_of(Cron.of(text))
        trigger.timezone = BERLIN
        return Service(Slots(trigger, record), None, 30, machine.run)

    for what, amount in [*acts, ("off", 1), ("work", 200)]:
        if what == "off":
            machine.now += timedelta(minutes=amount)
        elif what == "back":
            machine.now -= timedelta(minutes=amount)
        elif what == "long":
            machine.takes.append(float(amount))
        elif what == "cut":
            machine.cut = True
        else:
            first = first or machine.now
            with suppress(KeyboardInterrupt):
                service().work(clock, rounds=amount)
    lines = read_lines(record)[0]
    ended = Counter(line["slot"] for line in lines if line["state"] in (FINISHED, CAUGHT_UP, INTERRUPTED))
    assert all(count == 1 for count in ended.values()), "a slot has two states"
    begun = Counter(line["slot"] for line in lines if line["state"] == BEGUN)
    assert all(count == 1 for count in begun.values())
    # Every slot between the first service and the last recorded one has a state.
    if ended:
        assert first
        slots = service().slots
        assert slots
        slots.last, last = first, max(datetime.fromisoformat(slot) for slot in ended)
        for slot in slots.due(last):
            assert slot.isoformat() in ended, "a slot was forgotten"
    # Slots that were missed together cost one run.
    finished = sum(line["state"] == FINISHED for line in lines)
    interrupted = sum(line["state"] == INTERRUPTED for line in lines)
    assert finished <= machine.runs <= finished + 2 * interrupted + 1


def test_a_watched_folder_runs_the_batch(tmp_path: Path) -> None:
    (tmp_path / "old.tif").touch()
    machine = Machine(datetime(2026, 7, 1, tzinfo=BERLIN))

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            (tmp_path / "new.tif").write_text("x")

    slept: list[float] = []
    Service(None, tmp_path, 30, machine.run).work(Clock(lambda: machine.now, sleep), rounds=6)
    assert machine.runs == 2
    assert slept == [20.0] * 4


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    jobs = tmp_path / "night.yaml"
    jobs.write_text(yaml.safe_dump({"images": "*.tif", "model": "forest", "output": "out/{stem}.labels.tif"}))
    with pytest.raises(UsageError, match="nothing says when to run"):
        serve(jobs, None)
    with pytest.raises(UsageError, match="is no folder"):
        serve(jobs, None, tmp_path / "missing")
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out" / ".night.serve.lock"), pytest.raises(LockedError):
        serve(jobs, Cron.of("@daily"))


@pytest.mark.long
def test_a_real_service_takes_what_arrives_and_stops(tmp_path: Path) -> None:
    jobs = tmp_path / "night.yaml"
    (tmp_path / "in").mkdir()
    fields = {"images": "in/*.tif", "model": "forest", "output": "out/{stem}.labels.tif"}
    jobs.write_text(yaml.safe_dump({**fields, "settings": {"force_resolution": True}}))
    words = [sys.executable, "-m", "tilepipe", "batch", "serve", str(jobs), "--watch", str(tmp_path / "in")]
    service = subprocess.Popen([*words, "--every", "1"])
    try:
        write_geotiff(tmp_path / "in" / "a.tif", np.zeros((3, 40, 60), np.uint8))
        until = time.monotonic() + 300
        while not (tmp_path / "out" / "a.labels.tif").exists() and time.monotonic() < until:
            time.sleep(1)
        assert (tmp_path / "out" / "a.labels.tif").exists()
    finally:
        os.kill(service.pid, signal.SIGTERM)
        assert service.wait(90) == 143
