"""A command in a child process: its end is the command's end, and it is started again only if a model has ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
import mmap, os, signal, sys, time
from tilepipe import supervisor
from tilepipe.supervisor import own_process, owns_process, supervised, working_on

KILLS = mmap.mmap(-1, 1)  # the counter of the system, which a child raises and its parent sees
if "starved" in sys.argv[1]:
    supervisor._memory_kills = lambda: KILLS[0]

def command():
    assert owns_process()
    how, end = sys.argv[1], sys.argv[2]
    if "starved" in how:
        KILLS[:] = bytes([1])
    with open(sys.argv[3], "a") as starts:
        starts.write(".")
    if how == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        print(os.getpid(), flush=True)
        time.sleep(60)
    if how.startswith("model"):
        open(end, "a").close()
        if os.path.getsize(end):
            return 3
        working_on(end)
    what = how.split()[-1]
    if what.isdigit():
        if how.startswith("model"):
            os._exit(int(what))
        return int(what)
    os.kill(os.getpid(), getattr(signal, what))
    time.sleep(60)

sys.exit(supervised(command))
"""


def start(folder: Path, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, how, str(folder / "end"), str(folder / "starts")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)


@pytest.mark.parametrize(("how", "written"), [("SIGKILL", b"\r\x1b[2K\x1b[?25h"), ("4", b"")])
def test_a_terminal_gets_its_cursor_back_from_a_child_that_was_killed(tmp_path: Path, how: str, written: bytes) -> None:
    master, terminal = os.openpty()
    command = [sys.executable, "-c", RUN, how, str(tmp_path / "end"), str(tmp_path / "starts")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TERM": "xterm"}
    subprocess.run(command, stderr=terminal, env=environment, start_new_session=True, check=False, timeout=60)
    os.write(terminal, b"end")
    seen = b""
    while not seen.endswith(b"end"):  # a terminal gives what is there, in pieces
        seen += os.read(master, 1000)
    assert seen == written + b"end"
    os.close(master)
    os.close(terminal)


@pytest.mark.parametrize(
    ("how", "code", "starts", "end"),
    [
        ("0", 0, 1, None),
        ("4", 4, 1, None),
        ("SIGSEGV", -signal.SIGSEGV, 1, None),  # the model was not called: nothing is known about a tile
        ("SIGKILL", -signal.SIGKILL, 1, None),
        ("model SIGSEGV", 3, 2, "Segmentation fault\n"),
        ("model 0", 3, 2, "exit code 0\n"),
        ("model SIGKILL", -signal.SIGKILL, 1, ""),  # somebody has killed it: no fault of the model
        ("model SIGTERM", -signal.SIGTERM, 1, ""),
        ("model starved SIGKILL", 3, 2, "killed by the system, which has no memory left\n"),
    ],
)
def test_the_end_of_a_command(tmp_path: Path, how: str, code: int, starts: int, end: str | None) -> None:
    run = start(tmp_path, how)
    _, said = run.communicate(timeout=60)
    assert run.returncode == code, said
    assert (tmp_path / "starts").read_text() == "." * starts
    assert ((tmp_path / "end").read_text() if (tmp_path / "end").exists() else None) == end
    assert said.count("the model has ended the process") == starts - 1


def gone(pid: int) -> bool:
    """Return whether a process has ended within ten seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_signal_to_stop_reaches_the_child_and_nothing_is_left(tmp_path: Path) -> None:
    run = start(tmp_path, "wait")
    assert run.stdout is not None
    child = int(run.stdout.readline())
    run.terminate()
    assert run.wait(timeout=30) == 143
    assert gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    run = start(tmp_path, "wait")
    assert run.stdout is not None
    child = int(run.stdout.readline())
    run.kill()
    assert run.wait(timeout=30) == -signal.SIGKILL
    assert gone(child)
