"""Where the command line speaks: all text is cleaned here, whoever wrote it."""

from __future__ import annotations

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
    click.echo(clean(text), err=True, nl=nl)


def err_line(text: object) -> None:
    """Print one line on standard error."""
    click.echo(clean_line(text), err=True)
