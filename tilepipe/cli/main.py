"""This module defines the root command, and turns each error into a message on standard error and an exit code."""

from __future__ import annotations

import io
import math
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from tilepipe.cli import say
from tilepipe.cli.batch import batch
from tilepipe.cli.clean import clean
from tilepipe.cli.compare import compare
from tilepipe.cli.demo import demo
from tilepipe.cli.doctor import doctor
from tilepipe.cli.evaluate import evaluate
from tilepipe.cli.export import export
from tilepipe.cli.info import info
from tilepipe.cli.model import model
from tilepipe.cli.own_stderr import own_stderr
from tilepipe.cli.qgis import qgis
from tilepipe.cli.qupath import qupath
from tilepipe.cli.report import report
from tilepipe.cli.segment import plan, segment
from tilepipe.cli.train import train
from tilepipe.cli.verify import verify
from tilepipe.cli.view import view
from tilepipe.errors import TilepipeError, ordinary

EPILOG = """First steps: tilepipe model list shows the models that come with tilepipe; tilepipe segment IMAGE -m NAME
uses one of them.


Exit codes: 0 complete, 1 bug, 2 usage, 3 finished with failed tiles or images, 4 input refused,
5 model refused, 6 disk or I/O, 7 device, 75 locked by another run, 130 and 143 stopped (the same command goes on).
--debug, anywhere, adds the traceback of an error."""


ONE_WISH = 0.5
"""Time in which the same signal again means the same wish (seconds)."""


class Terminated(KeyboardInterrupt):
    """A SIGTERM arrived; the error ends the command as Ctrl-C does."""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="tilepipe", prog_name="tilepipe", message="%(prog)s %(version)s")
def root() -> None:
    """Segment images that are too large for memory into seamless label maps."""


COMMANDS = (
    *(segment, plan, info, view, export, report, verify, evaluate, model, demo, train, compare, batch, clean, doctor),
)
for command in COMMANDS:
    root.add_command(command)
for programs in (qgis, qupath):
    root.add_command(programs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments` (by default those of the process) and return the exit code."""
    if arguments is not None:
        return _ended(list(arguments))
    # With `arguments` the caller is a Python program, whose streams are its own.
    say.open_streams()
    with own_stderr():
        return _ended(sys.argv[1:])


def _ended(words: list[str]) -> int:
    """Run a command to its end and return the exit code."""
    try:
        with _terminable():
            return _run([word for word in words if word != "--debug"])
    except BrokenPipeError:  # the reader of the output, 'head' for instance, has closed it
        # Python writes out its buffers at the end and would complain about the closed pipe once more.
        for stream in (sys.stdout, sys.stderr):
            say.mute(stream.fileno())
        # Shells give this code to a program that the signal has ended.
        return 128 + signal.SIGPIPE
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in words:
            say.err("".join(traceback.format_exception(error)), nl=False)
        message, code = explain(error)
        say.err_line(f"tilepipe: {message}")
        return code


def explain(error: BaseException) -> tuple[str, int]:
    """Return (message, exit code) for an error that ended a command."""
    error = ordinary(error) or error
    if isinstance(error, TilepipeError):
        # Scripts read standard error line by line, so an error is one line.
        return " ".join(str(error).split("\n")), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "stopped; the same command goes on from here", 143 if isinstance(error, Terminated) else 130
    said = f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
    return f"{said}. This is a bug: please report it with what --debug prints", 1


def _run(words: list[str]) -> int:
    say.speak_for(_command(words))
    try:
        # click's own `main` would print errors by itself and end the process.
        with root.make_context("tilepipe", words) as context:
            code = root.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        say.err(_shown(error), nl=False)
        return error.exit_code
    return code if isinstance(code, int) else 0


def _command(words: list[str]) -> click.Command:
    """Return the command that the first words name."""
    command: click.Command = root
    for word in words:
        if not isinstance(command, click.Group) or word not in command.commands:
            break
        command = command.commands[word]
    return command


def _shown(error: click.ClickException) -> str:
    """Return click's message about a wrong command line, cleaned, since it may hold any word that was typed."""
    buffer = io.StringIO()
    error.show(file=buffer)
    return buffer.getvalue()


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into `Terminated`, so that files are closed and locks are released at the end."""
    last = {signal.SIGINT: -math.inf, signal.SIGTERM: -math.inf}

    def stop(number: int, frame: FrameType | None) -> None:
        # A terminal sends Ctrl-C to this process and to its parent, which passes it on: both mean one wish. A second
        # error would interrupt the closing of files.
        once, last[signal.Signals(number)] = last[signal.Signals(number)], time.monotonic()
        if time.monotonic() - once > ONE_WISH:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    # A job in the background has Ctrl-C ignored, and that stays.
    asked = [number for number in last if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
