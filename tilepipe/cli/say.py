"""Where the command line speaks: all text is cleaned here, whoever wrote it."""

from __future__ import annotations

import os
import sys

import click

from tilepipe.text import clean, clean_line


def out(text: object, nl: bool = True) -> None:
    """Print what a command produces on standard output."""
    click.echo(clean(text), nl=nl)


def out_line(*columns: object) -> None:
    """Print one line, with tabs between columns: names with line feeds in them stay on it."""
    click.echo("\t".join(map(clean_line, columns)))


def err(text: object, nl: bool = True) -> None:
    """Print what a command has to say on standard error."""
    _err(clean(text), nl)


def err_line(text: object) -> None:
    """Print one line on standard error."""
    _err(clean_line(text), True)


def open_streams() -> None:
    """Give a process that was started without one of the standard streams an empty one in its place.

    Else the next file that is opened gets its number, and libraries would write their remarks into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            mute(number)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def mute(number: int) -> None:
    """Let what is written to a file descriptor go nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _err(text: str, nl: bool) -> None:
    """Print on standard error. A run is not ended by a log that cannot be written, on a full disk for instance."""
    try:
        click.echo(text, err=True, nl=nl)
    except BrokenPipeError:
        raise
    except OSError:
        mute(sys.stderr.fileno())
