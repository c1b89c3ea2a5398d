"""This module defines `tilepipe compare`."""

from __future__ import annotations

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import TALK, with_options
from tilepipe.cli.progress_bar import progress


@click.command(cls=Command, short_help="Train and measure several decoders, as a YAML file says.")
@click.argument("config", type=click.Path())
@option(
    "--out", type=click.Path(), metavar="FOLDER", show_default="CONFIG without .yaml", help="Where results are written."
)
@with_options(*TALK)
def compare(config: str, out: str | None, mode: str, quiet: bool) -> None:
    """Train and measure decoder mechanisms as the YAML file CONFIG says; prints the table's path.

    Runs that are in FOLDER/results.jsonl are not run again.
    """
    from tilepipe.training.ablation.study import compare as run

    with progress(mode, quiet) as listener:
        table = run(config, out, listener)
    say.out_line(table)
