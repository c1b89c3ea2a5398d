"""Passes for statistics: the same bytes for every engine, resumed and not begun again, unreadable parts counted out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import global_model, open_queue

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.events import silent
from tilepipe.execution.block_queue import Queue, Work
from tilepipe.execution.executors import blocks, serial
from tilepipe.execution.job import Job, make_job
from tilepipe.execution.statistics import passes
from tilepipe.execution.statistics.statistics_array import open_statistics
from tilepipe.execution.statistics.whole_image import whole_so_far
from tilepipe.models.model import Model
from tilepipe.planning.settings import Request
from tilepipe.sources.open import open_source
from tilepipe.testing import FakeSource, noise

IMAGE = noise(150, 260)
PIXELS = IMAGE.read(Box(0, 0, 150, 260))
DAMAGED = Box(50, 60, 52, 61)


@pytest.fixture(scope="module")
def model() -> Model:
    return global_model("squeeze")


def job_of(model: Model, directory: Path, source: Any = IMAGE, **settings: Any) -> Job:
    request = Request.of({"tile": 64, "block": 64, "statistics": "field", **settings})
    return replace(make_job(open_source(source), model, request), directory=directory)


def labels_of(job: Job, engine: Any) -> str:
    queue = open_queue(job)
    passes.take_statistics(job, engine, silent)
    engine(job, queue)
    return hashlib.sha256(queue.store.labels.read(Box.of_shape(*job.plan.predicted)).tobytes()).hexdigest()


@pytest.mark.parametrize("statistics", ["field", "whole"])
def test_engines_give_the_same_bytes(model: Model, statistics: str, tmp_path: Path) -> None:
    def found(name: str, engine: Any, **more: Any) -> tuple[str, bytes]:
        job = job_of(model, tmp_path / name, statistics=statistics, **more)
        labels = labels_of(job, engine)
        if statistics == "whole":
            return labels, whole_so_far(tmp_path / name).tobytes()
        return labels, open_statistics(tmp_path / name, "field").read(Box(0, 0, 3, 5)).tobytes()

    wanted = found("serial", serial.run)
    assert found("threads", blocks.run) == wanted
    backwards: Callable[..., None] = partial(blocks.run, order=lambda units: units[::-1])
    assert found("backwards", backwards)[1] == wanted[1]


@pytest.mark.long
@pytest.mark.parametrize("statistics", ["field", "whole"])
def test_worker_processes_give_the_same_bytes(model: Model, statistics: str, tmp_path: Path) -> None:
    alone = labels_of(job_of(model, tmp_path / "serial", statistics=statistics), serial.run)
    assert labels_of(job_of(model, tmp_path / "two", statistics=statistics, workers=2), blocks.run) == alone


class Stop(Exception):  # noqa: N818 - it is no error
    """The power has gone."""


class Stopping:
    """A serial engine that stops after some units, and counts."""

    def __init__(self, after: int) -> None:
        self.after, self.done = after, 0

    def __call__(self, job: Job, queue: Queue, *, make: Callable[[Job], Work]) -> None:
        worker = make(job)
        for unit in queue.missing():
            if self.done == self.after:
                raise Stop
            queue.commit(worker.run(unit))
            self.done += 1


@pytest.mark.parametrize(("statistics", "units"), [("field", 3), ("whole", 2 * 2 * 3)])
def test_a_pass_goes_on_where_it_stopped(
    model: Model, statistics: str, units: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(model, tmp_path / "stopped", statistics=statistics)
    for after in (1, units // 2):
        with pytest.raises(Stop):
            passes.take_statistics(job, Stopping(after), silent)
    rest = Stopping(99)
    passes.take_statistics(job, rest, silent)
    assert rest.done == units - 1 - units // 2
    again = Stopping(0)
    passes.take_statistics(job, again, silent)
    assert labels_of(job, serial.run) == labels_of(
        job_of(model, tmp_path / "at once", statistics=statistics), serial.run
    )


def test_patches_that_cannot_be_read_count_for_nothing(model: Model, tmp_path: Path) -> None:
    job = job_of(model, tmp_path, FakeSource(PIXELS, damaged=DAMAGED))
    problems = passes.take_statistics(job, serial.run, silent)
    assert problems
    values = open_statistics(tmp_path, "field").read(Box(0, 0, 3, 5))
    assert ((values[..., -1] == np.float32(2.0**-20)) == (values[..., 0] == 1)).all()
    assert (values[..., -1] < 1).sum() == len(problems)


def test_the_whole_image_must_be_readable(model: Model, tmp_path: Path) -> None:
    job = job_of(model, tmp_path, FakeSource(PIXELS, damaged=DAMAGED), statistics="whole")
    with pytest.raises(InputError):
        passes.take_statistics(job, serial.run, silent)


def test_a_region_takes_only_the_patches_that_it_needs(model: Model, tmp_path: Path) -> None:
    job = job_of(model, tmp_path, region=Box(0, 0, 40, 40))
    assert passes.field_boxes(job.plan) == {(0, 0): Box(0, 0, 1, 2), (1, 0): Box(1, 0, 2, 2)}
