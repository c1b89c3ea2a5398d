"""A scheduler that goes away or has no worker ends the run with a sentence; finished blocks are kept."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from distributed import Client
from distributed.comm.core import CommClosedError
from helpers.fakes import job_for, open_queue, run_labels

from tilepipe.box import Box
from tilepipe.errors import DeviceError, UsageError
from tilepipe.events import Event
from tilepipe.execution.executors import blocks, scheduler_watch
from tilepipe.testing import noise, random_unet

CUT: dict[str, Any] = {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96}


def _start(*words: str) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    path = os.pathsep.join((str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen([sys.executable, "-m", *words], env={**os.environ, "PYTHONPATH": path}, **quiet)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler of its own process, its address, and what was started (the scheduler first)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    started = [_start("distributed.cli.dask_scheduler", *words)]
    address = f"tcp://127.0.0.1:{port}"
    try:
        Client(address, timeout="60s").close()
        yield address, started
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.long
def test_no_worker_is_said(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_watch, "PATIENCE", 1.0)
    monkeypatch.setattr(scheduler_watch, "LOOK", 0.3)
    job = job_for(noise(100, 100), random_unet(), tmp_path, **CUT)
    with pytest.raises(DeviceError, match="dask worker tcp://"):
        blocks.run(job, open_queue(job), cluster[0])


@pytest.mark.long
def test_a_scheduler_that_dies_ends_the_run(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_watch, "PATIENCE", 1.0)
    monkeypatch.setattr(scheduler_watch, "LOOK", 0.3)
    address, started = cluster
    worker = ("--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    started.append(_start("distributed.cli.dask_worker", address, *worker, "--local-directory", str(tmp_path / "w")))
    with Client(address) as client:
        client.wait_for_workers(1, timeout=60)
    job = job_for(noise(300, 300), random_unet(), tmp_path / "run", **CUT)
    queue = open_queue(job, lambda event: started[0].kill())
    with pytest.raises(DeviceError, match="the same command"):
        blocks.run(job, queue, address)
    assert 1 <= len(queue.ledger.done) < len(list(job.plan.blocks()))
    blocks.run(job, open_queue(job))  # goes on without it


def test_a_scheduler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_for(noise(100, 100), random_unet(), tmp_path, **CUT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("tilepipe.execution.executors.cluster.CONNECT", "2s")
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        blocks.run(job, open_queue(job), address)


@pytest.mark.long
def test_a_worker_that_hangs_is_replaced_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped as by SIGSTOP, a process is there and does nothing; Dask alone gives it 5 minutes."""
    monkeypatch.setattr(scheduler_watch, "WORKER_TTL", 20)
    image, model = noise(300, 300), random_unet()
    expected = run_labels(image, model, tmp_path / "serial", **CUT)
    job = job_for(image, model, tmp_path / "run", workers=2, **CUT)
    stopped: list[psutil.Process] = []
    said: list[str] = []

    def stop(event: Event) -> None:
        said.append(event.message)
        children = [c for c in psutil.Process().children(recursive=True) if c.memory_info().rss > 100 << 20]
        if not stopped and children:
            stopped.append(children[0])
            children[0].send_signal(signal.SIGSTOP)

    queue = open_queue(job, stop)
    blocks.run(job, queue)
    assert not stopped[0].is_running()
    assert (queue.store.labels.read(Box.of_shape(300, 300)) == expected).all()
    (told,) = [message for message in said if message]
    assert told.startswith("warning: worker process tcp://127.0.0.1:")
    assert told.endswith("did not answer for 20 s; the blocks in hand are given to others")


def test_a_worker_that_dies_while_it_loads_the_model_is_no_bug() -> None:
    with pytest.raises(DeviceError, match=r"while it loaded the model .*Stream is closed"):  # noqa: SIM117
        with scheduler_watch.starting(SimpleNamespace(cluster=None)):
            raise CommClosedError("in <TCP (closed)>: Stream is closed")


def test_workers_have_more_time_while_they_load_the_model() -> None:
    scheduler = SimpleNamespace(worker_ttl=scheduler_watch.WORKER_TTL)
    with scheduler_watch.starting(SimpleNamespace(cluster=SimpleNamespace(scheduler=scheduler))):
        assert scheduler.worker_ttl == 300
    assert scheduler.worker_ttl == 60
