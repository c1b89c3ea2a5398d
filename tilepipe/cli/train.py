"""This module defines `tilepipe train`."""

from __future__ import annotations

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import TALK, with_options
from tilepipe.cli.progress_bar import progress


@click.command(cls=Command, short_help="Train a model as a YAML file says.")
@click.argument("config", type=click.Path())
@option("--dry-run", is_flag=True, help="Print the table of labels and stop before the first step.")
@option("--preview", type=click.Path(), metavar="FILE.png", help="Write a picture of four crops with their labels.")
@option("--overwrite", is_flag=True, help="Replace an existing picture.")
@with_options(*TALK)
def train(config: str, dry_run: bool, preview: str | None, overwrite: bool, mode: str, quiet: bool) -> None:
    """Train a model as the YAML file CONFIG says; prints the model directory.

    Paths in CONFIG start from its folder.
    """
    if dry_run:
        from tilepipe.training.dry_run import dry_run as checked

        say.out(checked(config, preview, overwrite=overwrite))
        return
    from tilepipe.cli.training_summary import summary
    from tilepipe.training.config import TrainConfig
    from tilepipe.training.loop import fit

    with progress(mode, quiet) as listener:
        output = fit(config, listener, preview=preview, overwrite=overwrite)
    if not (quiet or mode in ("json", "none")):
        say.err("\n".join(summary(output, TrainConfig.load(config))))
    say.out_line(output)
