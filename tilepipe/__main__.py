"""This module runs the command line as a process: `tilepipe` and `python -m tilepipe` are the same."""

import os
import signal
import sys

from tilepipe.supervisor import supervised

LABELLING = (["segment"], ["batch", "run"], ["batch", "retry"])
"""Commands that may run a model for hours. They run in a child process, which is started again if a model ends it."""


def main() -> int:
    """Run the command line and return its exit code."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    # The process is doubled before anything is imported: the parent stays small, and nothing is imported twice.
    return supervised(_command_line) if any(words[: len(name)] == name for name in LABELLING) else _command_line()


def _command_line() -> int:
    """Import the command line and run it.

    While it is imported, Ctrl-C ends the process at once: nothing is open yet, and there is no message to print.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:  # the handler stays if the parent process has Ctrl-C ignored
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    from tilepipe.cli.main import main as command_line

    signal.signal(signal.SIGINT, interrupt)
    return command_line()


if __name__ == "__main__":
    sys.exit(main())
