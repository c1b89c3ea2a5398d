"""Where the command line speaks: all text is cleaned here, whoever wrote it."""

from __future__ import annotations

import os
import sys

import click

from tilepipe.text import clean, clean_line, with_options

_OPTIONS: dict[str, str] = {}
"""Options of the command that speaks, by setting."""


def speak_for(command: click.Command) -> None:
    """Show settings in messages from now on as somebody types them for this command."""
    _OPTIONS.clear()
    for parameter in command.params:
        long = [option for option in parameter.opts if option.startswith("--")]
        if parameter.name and long:
            _OPTIONS[parameter.name] = long[0]


def shown(text: object) -> str:
    """Return text as the command that speaks shows it."""
    return with_options(str(text), _OPTIONS)


def out(text: object, nl: bool = True) -> None:
    """Print what a command produces on standard output."""
    click.echo(clean(shown(text)), nl=nl)


def out_line(*columns: object) -> None:
    """Print one line, with tabs between columns: names with line feeds in them stay on it."""
    click.echo("\t".join(map(clean_line, columns)))  # paths, and what else is no message


def err(text: object, nl: bool = True) -> None:
    """Print what a command has to say on standard error."""
    _err(clean(shown(text)), nl)


def err_line(text: object) -> None:
    """Print one line on standard error."""
    _err(clean_line(shown(text)), True)


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
