"""This module runs the command line as a process: `tilepipe` and `python -m tilepipe` are the same."""

import os
import signal
import sys


def main() -> int:
    """Run the command line and return its exit code.

    While the command line is imported, Ctrl-C ends the process at once: nothing is open yet, and there is no message to
    print.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:  # the handler stays if the parent process has Ctrl-C ignored
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    from tilepipe.cli.main import main as command_line

    signal.signal(signal.SIGINT, interrupt)
    return command_line()


if __name__ == "__main__":
    sys.exit(main())
