"""The Dask engine: no open port here, loopback only with workers, the script runs once, errors as they are."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import psutil
import pytest
import torch
from distributed import Client, LocalCluster, Scheduler
from distributed import Worker as DaskWorker
from helpers.fakes import job_for, open_queue, run_labels
from torch import nn

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import DeviceError, ModelError, StorageError, UsageError
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.block_queue import BlockQueue
from tilepipe.execution.executors import blocks, dask
from tilepipe.execution.ledger import Record
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.testing import noise, random_unet
from tilepipe.tiling.grid import Index

SAMPLE = Path(__file__).parents[3] / "pipelines" / "sample"
CUT = {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96}


def listeners(pids: set[int]) -> list[str]:
    """Return the local addresses that processes listen on (Linux)."""
    inodes = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(handle))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.append(fields[1].split(":")[0])
    return found


def processes() -> set[int]:
    """Return this process and its descendants."""
    found, parents = {os.getpid()}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def test_no_port_is_open_while_a_run_works_in_this_process(tmp_path: Path) -> None:
    before, seen = listeners({os.getpid()}), []
    job = job_for(noise(200, 200), random_unet(), tmp_path, **CUT)
    blocks.run(job, open_queue(job, lambda event: seen.append(listeners({os.getpid()}))))
    assert seen
    assert all(found == before for found in seen)


ALONE = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s")
import tilepipe as tp
result = tp.segment({image!r}, "forest", {output!r}, tile=256)
again = tp.predict({image!r}, "forest", tp.Box(0, 0, 64, 64), tile=256)
print(sorted({{"distributed", "tornado"}} & set(sys.modules)))
"""


@pytest.mark.long
def test_in_this_process_no_cluster_is_started_and_distributed_says_nothing(tmp_path: Path) -> None:
    script = ALONE.format(image=str(SAMPLE / "Amazon_24_20.tif"), output=str(tmp_path / "labels.tif"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert "distributed" not in done.stderr


def test_nothing_of_a_run_is_left_in_this_process(tmp_path: Path) -> None:
    """A batch computes one image after the other: what stays of each would add up."""
    before = threading.active_count()
    for name in ("first", "second"):
        job = job_for(noise(100, 100), random_unet(), tmp_path / name, **CUT)
        blocks.run(job, open_queue(job))
    gc.collect()
    assert threading.active_count() == before
    kinds = [type(kept) for kept in gc.get_objects()]  # isinstance would ask each object for its class
    assert [kind.__name__ for kind in kinds if issubclass(kind, Scheduler | DaskWorker | BlockWorker)] == []


@pytest.mark.long
def test_nothing_of_a_cluster_is_left_after_a_run_with_workers(tmp_path: Path) -> None:
    logging.disable(logging.CRITICAL)  # what a test keeps of the log names the scheduler
    before = set(sys.path_importer_cache)  # clusters of other tests in this process leave folders there
    try:
        job = job_for(noise(100, 100), random_unet(), tmp_path / "run", workers=1, **CUT)
        blocks.run(job, open_queue(job))
    finally:
        logging.disable(logging.NOTSET)
    gc.collect()
    kinds = [type(kept) for kept in gc.get_objects()]
    assert [kind.__name__ for kind in kinds if issubclass(kind, Scheduler | DaskWorker | BlockWorker)] == []
    assert [folder for folder in set(sys.path_importer_cache) - before if "dask-scratch-space/" in folder] == []


class NotPickledError(Exception):
    """An error that cannot be pickled, since it holds what belongs to this process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Failing(BlockWorker):
    """A worker whose error comes from an error that cannot be pickled."""

    def run(self, block: Index, strips_from: Iterable[Record] = ()) -> Record:
        try:
            raise NotPickledError("nothing there")
        except NotPickledError as error:
            raise StorageError(f"strips are missing: {error}") from None


def test_an_error_keeps_its_class_whatever_it_came_from(tmp_path: Path) -> None:
    job = job_for(noise(100, 100), random_unet(), tmp_path, **CUT)
    with pytest.raises(StorageError, match="strips are missing"):
        blocks.run(job, open_queue(job), make=Failing)


@pytest.mark.long
def test_workers_listen_on_loopback_only(tmp_path: Path) -> None:
    seen: list[str] = []
    job = job_for(noise(200, 200), random_unet(), tmp_path, workers=2, **CUT)
    blocks.run(job, open_queue(job, lambda event: seen.extend(listeners(processes()))))
    assert seen
    assert set(seen) == {"0100007F"}


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from helpers.fakes import run_labels
from tilepipe.testing import noise, random_unet
from tilepipe.execution.executors import blocks, dask
from tilepipe.execution.block_queue import BlockQueue
print("script runs", flush=True)
labels = run_labels(noise(200, 200), random_unet(), Path({work!r}), blocks.run, tile=96, overlap=64, workers=1)
print(labels.shape)
"""


@pytest.mark.long
def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[2]), work=str(tmp_path / "work")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["script runs", "(200, 200)"]


SLOW_DISK = """
import distributed.core
from distributed.utils import warn_on_duration
distributed.core.warn_on_duration = lambda duration, text: warn_on_duration("0s", text)
"""
QUIET = """
import os, sys, warnings
sys.path.insert(0, {tests!r})
from pathlib import Path
from helpers.fakes import run_labels
from tilepipe.testing import noise, random_unet
from tilepipe.execution.executors import blocks, dask
warnings.simplefilter("error")
labels = run_labels(noise(200, 200), random_unet(), Path({work!r}), blocks.run, tile=96, overlap=64, workers={workers})
print(labels.shape, "PYTHONWARNINGS" in os.environ)
"""


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.long
def test_what_dask_remarks_on_a_slow_disk_neither_ends_a_run_nor_is_shown(workers: int, tmp_path: Path) -> None:
    """Every disk is slow here, in worker processes too; warnings are errors in the process that starts the run."""
    tests = Path(__file__).parents[2]
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    script = tmp_path / "script.py"
    script.write_text(QUIET.format(tests=str(tests), work=str(tmp_path / "work"), workers=workers))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(tests.parent)])
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "(200, 200) False\n"


class Stopping(nn.Module):
    """Raises what is no `Exception` at every tile of a run; it works where the model is only looked at."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise self.error
        return x[:, :2]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(("error", "found"), [(KeyboardInterrupt, KeyboardInterrupt), (SystemExit, ModelError)])
def test_what_is_no_exception_comes_out_of_a_model_as_itself(
    workers: int, error: type[BaseException], found: type[BaseException], tmp_path: Path
) -> None:
    """Dask's own loop would end with it, and the run with "IOLoop is closed"."""
    model = Model.from_torch(Stopping(error), ModelCard(bands=3, classes=["a", "b"], stride=1, halo=0))
    with pytest.raises(found):
        run_labels(noise(200, 200), model, tmp_path, blocks.run, **CUT, workers=workers)


@pytest.mark.long
def test_the_environment_is_as_it_was_after_a_run_with_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = dict(os.environ)
    run_labels(noise(200, 200), random_unet(), tmp_path, blocks.run, **CUT, workers=1)
    assert dict(os.environ) == before


@pytest.mark.long
def test_a_running_scheduler_by_address(tmp_path: Path) -> None:
    image, model = noise(200, 300), random_unet()
    expected = run_labels(image, model, tmp_path / "serial", **CUT)  # type: ignore[arg-type]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        address = cluster.scheduler_address

        def on_it(job: Any, queue: Any) -> None:
            blocks.run(job, queue, address)

        def left(dask_worker: Any) -> tuple[int, int, list[str]]:
            return len(dask._WORKERS), torch.get_num_threads(), sorted(dask_worker.plugins)

        def computes_with() -> int:
            return torch.get_num_threads()  # each thread of a process has a number of its own

        before, of_tasks = client.run(left), client.submit(computes_with, pure=False).result()
        for turn in range(2):
            found = run_labels(image, model, tmp_path / f"remote{turn}", on_it, **CUT)  # type: ignore[arg-type]
            assert client.run(left) == before  # a guest leaves the workers as they were
            assert client.submit(computes_with, pure=False).result() == of_tasks
            assert (found == expected).all()


def test_a_client_may_stand_for_its_scheduler(tmp_path: Path) -> None:
    """A scheduler of this process and its client, as a notebook has them."""
    image, model, cut = noise(200, 300).read(Box(0, 0, 200, 300)), random_unet(), {**CUT, "window_shape": "crop"}
    expected = np.asarray(tp.segment(image, model, tmp_path / "alone.tif", **cut).labels)  # type: ignore[arg-type]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        found = tp.segment(image, model, tmp_path / "on_it.tif", scheduler=client, **cut)  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(found.labels), expected)
        assert client.submit(int, 5).result() == 5


@pytest.mark.long
def test_an_array_that_lies_on_a_cluster_is_read_from_there(tmp_path: Path) -> None:
    """Persisted arrays hold futures, which only their own cluster can compute; the one thread there must not wait."""
    image, model = noise(200, 300).read(Box(0, 0, 200, 300)), random_unet()
    expected = tp.predict(image, model, **CUT)  # type: ignore[arg-type]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        there = client.persist(da.from_array(image, chunks=(3, 90, 110)))
        for lazy in (there, there + np.uint8(0)):
            assert np.array_equal(tp.predict(lazy, model, **CUT), expected)  # type: ignore[arg-type]
            found = tp.segment(lazy, model, tmp_path / "there.tif", scheduler=client, overwrite=True, **CUT)  # type: ignore[arg-type]
            assert np.array_equal(found.labels[:], expected)
        with pytest.raises(UsageError, match=r"lies on the workers of a Dask cluster.*scheduler=client"):
            tp.segment(there, model, tmp_path / "other.tif", workers=1, **CUT)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "10.0.0.1:8786"])
def test_a_scheduler_on_the_open_network_is_refused(address: str, tmp_path: Path) -> None:
    job = job_for(noise(100, 100), random_unet(), tmp_path)
    with pytest.raises(UsageError, match="tls://"):
        blocks.run(job, open_queue(job), address)


class NotANumber(nn.Module):
    def forward(self, x: Any) -> Any:
        return x[:, :2] * np.nan


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_model_that_returns_nan_stops_the_run_with_one_sentence(workers: int, tmp_path: Path) -> None:
    model = Model.from_torch(NotANumber(), ModelCard(bands=3, classes=["a", "b"], halo=0))
    job = job_for(noise(100, 100), model, tmp_path, workers=workers, tile=64)
    with pytest.raises(ModelError, match="NaN"):
        blocks.run(job, open_queue(job))


def test_tasks_carry_coordinates_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixels, no weights: a task and its result stay below a few hundred bytes, whatever a block holds."""
    sizes, submit, commit = list[float](), Client.submit, BlockQueue.commit

    def measured(self: Client, function: Any, *args: Any, **how: Any) -> Any:
        blocks = args[1]  # small blocks share a task
        sizes.append(len(pickle.dumps((function, args))) / len(blocks))
        return submit(self, function, *args, **how)

    def weighed(self: BlockQueue, record: Record) -> None:
        sizes.append(len(pickle.dumps(record)))
        commit(self, record)

    monkeypatch.setattr(Client, "submit", measured)
    monkeypatch.setattr(BlockQueue, "commit", weighed)
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:

        def on_it(job: Any, queue: Any) -> None:
            blocks.run(job, queue, cluster.scheduler_address)

        run_labels(noise(300, 300), random_unet(), tmp_path, on_it, **CUT)  # type: ignore[arg-type]
    assert len(sizes) >= 8
    assert max(sizes) < 600


def test_a_worker_that_joins_with_other_code_computes_nothing() -> None:
    with pytest.raises(DeviceError, match=r"a worker on .* has tilepipe .*another one.*Install the same"):
        dask._run_blocks("", [(Index(0, 0), ())], "another one")


@pytest.mark.parametrize("change", ["edited", "older"])
def test_a_worker_with_other_code_is_refused_before_its_first_block(change: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(Path(dask.__file__).parents[2], other / "tilepipe", ignore=shutil.ignore_patterns("__pycache__"))
    if change == "edited":
        with (other / "tilepipe" / "tiling" / "blend.py").open("a") as file:
            file.write("\n# one line more\n")
    else:  # a version that cannot say what it is
        (other / "tilepipe" / "execution" / "executors" / "code.py").unlink()
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny"]
        more = ["--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(tmp_path)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        worker = subprocess.Popen([*command, *more], env={**os.environ, "PYTHONPATH": str(other)}, cwd=other, **quiet)
        try:
            with Client(cluster.scheduler_address) as client:
                client.wait_for_workers(1, timeout=120)
            job = job_for(noise(100, 100), random_unet(), tmp_path / "run", tile=64)
            queue = open_queue(job)
            with pytest.raises(DeviceError, match=r"worker tcp://127\.0\.0\.1.* but this run has tilepipe .*sources"):
                blocks.run(job, queue, cluster.scheduler_address)
            assert not queue.ledger.done
        finally:
            worker.kill()
            worker.wait()


@pytest.mark.long
def test_a_worker_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """The blocks that it had in hand are computed by another one; the bytes are the same."""
    image, model = noise(300, 300), random_unet()
    expected = run_labels(image, model, tmp_path / "serial", **CUT)
    job = job_for(image, model, tmp_path / "killed", workers=2, **CUT)
    killed: list[int] = []

    def kill(event: Any) -> None:
        children = [c for c in psutil.Process().children(recursive=True) if c.memory_info().rss > 100 << 20]
        if not killed and children:
            killed.append(children[0].pid)
            children[0].kill()

    queue = open_queue(job, kill)
    blocks.run(job, queue)
    assert killed
    assert (queue.store.labels.read(Box.of_shape(300, 300)) == expected).all()
