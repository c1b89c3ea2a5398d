"""This module prints all text of the command line, and cleans it first, whoever wrote it."""

from __future__ import annotations

import os
import sys

import click

from tilepipe.text import clean, clean_line, with_options

_OPTIONS: dict[str, str] = {}
"""Options of the command that prints, by setting."""


def speak_for(command: click.Command) -> None:
    """From now on, show settings in messages in the form in which a user types them for this command."""
    _OPTIONS.clear()
    for parameter in command.params:
        long = [option for option in parameter.opts if option.startswith("--")]
        if parameter.name and long:
            _OPTIONS[parameter.name] = long[0]


def shown(text: object) -> str:
    """Return text in the form that the printing command shows."""
    return with_options(str(text), _OPTIONS)


def out(text: object, nl: bool = True) -> None:
    """Print the data of a command on standard output."""
    click.echo(clean(shown(text)), nl=nl)


def out_line(*columns: object) -> None:
    """Print one line, with tabs between columns; line feeds inside names do not break the line."""
    click.echo("\t".join(map(clean_line, columns)))  # these are paths and other texts that are no messages


def err(text: object, nl: bool = True) -> None:
    """Print a message of a command on standard error."""
    _err(clean(shown(text)), nl)


def err_line(text: object) -> None:
    """Print one line on standard error."""
    _err(clean_line(shown(text)), True)


def open_streams() -> None:
    """Open an empty stream for each standard stream that the process was started without.

    Otherwise the next opened file would get the stream's number, and libraries would write their messages into that
    file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            mute(number)
            # If the object closed the number at its end, the next opened file would get it all the same.
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def mute(number: int) -> None:
    """Discard everything that is written to a file descriptor."""
    # The system gives the lowest free number, which may be the very one that is to be muted.
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _err(text: str, nl: bool) -> None:
    """Print on standard error. If the text cannot be written (a log on a full disk, for instance), the run goes on."""
    try:
        click.echo(text, err=True, nl=nl)
    # A closed pipe ends the command (see `main`).
    except BrokenPipeError:
        raise
    except OSError:
        mute(sys.stderr.fileno())
