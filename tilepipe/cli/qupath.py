"""This module defines `tilepipe qupath`."""

from __future__ import annotations

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option


@click.group()
def qupath() -> None:
    """Use tilepipe in QuPath."""


@qupath.command(cls=Command, short_help="Put a script where QuPath finds it.")
@option("--folder", metavar="FOLDER", show_default="QuPath's own", help="Where the script is put.")
def install(folder: str | None) -> None:
    """Put a script where QuPath finds it; it segments the images of a project.

    Prints the path of the script, which runs this installation of tilepipe and imports the objects.
    """
    from tilepipe.scripts.install import install_in_qupath

    for path in install_in_qupath(folder):
        say.out_line(path)
