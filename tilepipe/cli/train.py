"""This module defines `tilepipe train`."""

from __future__ import annotations

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command
from tilepipe.cli.options import TALK, with_options
from tilepipe.cli.progress_bar import progress


@click.command(cls=Command)
@click.argument("config", type=click.Path())
@with_options(*TALK)
def train(config: str, mode: str, quiet: bool) -> None:
    """Train a model as the YAML file CONFIG says; prints the model directory."""
    from tilepipe.training.loop import fit

    with progress(mode, quiet) as listener:
        say.out_line(fit(config, listener))
