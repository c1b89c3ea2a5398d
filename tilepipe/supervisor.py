"""This module runs a command in a child process, and starts the child again if a model has ended it.

Machine code that a model calls can crash or never come back, and no `except` sees that. So a command that labels images
runs in a child. The child says in shared memory which note on disk names the tiles that the model is working on. If the
child ends in the middle of that, the reason is written beside the note, and a new child goes on: it tries these tiles
one by one, and leaves out the tile that ends the process again (see `execution/model_watch.py`).

A child that ends in any other way is not started again, and its exit code or signal becomes that of the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
"""Signals that a process gets for what its own code did; any other signal comes from outside."""
MOST_STARTS = 100
"""Number of times that a command is started before it gives up."""
PR_SET_PDEATHSIG = 1
"""Linux's number of the request for a signal when the parent process ends."""

_shared = mmap.mmap(-1, 4096)
"""Memory that a child shares with its parent: one byte that is 1 if the command has ended by itself, then the path."""
_own = False
_began: float | None = None


def owns_process() -> bool:
    """Return whether tilepipe has started this process to label images, so that it may be ended and started again."""
    return _own


def own_process() -> None:
    """Say that this process was started by tilepipe to label images."""
    global _own  # noqa: PLW0603 - it is a fact about the process
    _own = True


def began() -> float | None:
    """Return when the supervised command was started for the first time (seconds since 1970); None if there is none."""
    return _began


def working_on(end: str) -> None:
    """Tell the parent that the model is called now, and in which file a sudden end is to be noted; '' if it is not."""
    said = os.fsencode(end)
    if len(said) + 2 <= len(_shared):  # a longer path cannot be told: then the command ends as it did without a parent
        _shared[1 : len(said) + 2] = said + b"\0"


def supervised(command: Callable[[], int]) -> int:
    """Run a command in a child process; return its exit code, or end by the signal that has ended it."""
    global _began  # noqa: PLW0603 - it is a fact about the process, and children inherit it
    if not hasattr(os, "fork"):
        return command()
    _began = time.time()
    for _ in range(MOST_STARTS):
        _shared[:2] = b"\0\0"
        # A signal that arrives between the two must wait until this process can pass it on.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        kills = _memory_kills()
        parent, child = os.getpid(), os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _end_with(parent)
            own_process()
            code = command()
            _shared[0] = 1
            return code
        status = _wait(child, mask)
        end = os.fsdecode(_shared[1 : _shared.find(b"\0", 1)])
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        if not _shared[0]:
            _restore_terminal()
        # A kill comes from outside. That of a system without memory is for what the model has asked for.
        starved = killed == signal.SIGKILL and _memory_kills() > kills
        if _shared[0] or not end or not (killed is None or killed in CRASHES or starved):
            return _same_end(status)
        why = f"exit code {os.WEXITSTATUS(status)}" if killed is None else str(signal.strsignal(killed))
        _note(end, "killed by the system, which has no memory left" if starved else why)
        _say("the model has ended the process; the run goes on and tries the tiles that it worked on one by one")
    _say(f"the model has ended the process {MOST_STARTS} times; the same command goes on from here")
    return 5


def _memory_kills() -> int:
    """Return how often the system has killed a process for lack of memory, on this machine or in this container."""
    found = 0
    for file in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with contextlib.suppress(OSError, ValueError), open(file, encoding="ascii") as lines:
            found += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return found


def _end_with(parent: int) -> None:
    """Let this process be killed as soon as its parent is killed: else a run would go on that nobody waits for."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent has ended before the request was made
            os._exit(1)


def _wait(child: int, mask: set[int | signal.Signals]) -> int:
    """Wait for the child and return its status; signals that ask this process to stop are passed on to the child.

    `mask` holds the signals that were blocked before the child was started.
    """

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    asked = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in asked}
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return os.waitpid(child, 0)[1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _restore_terminal() -> None:
    """Remove the live line of a child that could not, because it was ended, and show the cursor that it has hidden."""
    with contextlib.suppress(OSError):
        if os.isatty(2) and os.environ.get("TERM") != "dumb":
            os.write(2, b"\r\x1b[2K\x1b[?25h")


def _same_end(status: int) -> int:
    """Return the child's exit code; end this process by the signal that has ended the child."""
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _note(end: str, why: str) -> None:
    """Write why the child has ended; if the child itself could still write, its own words stay."""
    with contextlib.suppress(OSError):
        if os.path.exists(end) and not os.path.getsize(end):
            with open(end, "w", encoding="utf-8") as file:
                file.write(f"{why}\n")


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):  # standard error may be closed, or on a full disk
        os.write(2, f"tilepipe: {sentence}\n".encode())
