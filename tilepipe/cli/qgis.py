"""This module defines `tilepipe qgis`."""

from __future__ import annotations

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option


@click.group()
def qgis() -> None:
    """Use tilepipe in QGIS."""


@qgis.command(cls=Command, short_help="Put 'Segment an image' into the toolbox of QGIS.")
@option("--profile", default="default", show_default=True, metavar="NAME|FOLDER", help="Profile of QGIS.")
def install(profile: str) -> None:
    """Put 'Segment an image' into the Processing toolbox of QGIS; prints the path of the script.

    The script runs this installation of tilepipe. Start QGIS once before, which makes the profile.
    """
    from tilepipe.scripts.install import install_in_qgis

    for path in install_in_qgis(profile):
        say.out_line(path)
