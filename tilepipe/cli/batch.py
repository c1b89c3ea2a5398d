"""This module defines `tilepipe batch`."""

from __future__ import annotations

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import TALK, with_options
from tilepipe.cli.progress_bar import on_one_terminal, on_terminal, progress
from tilepipe.cli.summary import batch_files, batch_lines, next_batch_command

FAILED_IMAGES = 3


class FileForCommand(click.Group):
    """A group that recognises when a jobs file is given in place of its command."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of the group. Raises `click.UsageError` if the name is that of a YAML file."""
        if cmd_name.lower().endswith((".yaml", ".yml")):
            raise click.UsageError(f"{cmd_name} is a file and no command; give: tilepipe batch run {cmd_name}")
        return super().get_command(ctx, cmd_name)


@click.group(cls=FileForCommand)
def batch() -> None:
    """One model over many images, from a jobs file; cron or a systemd timer starts it."""


@batch.command(cls=Command)
@click.argument("jobs", type=click.Path())
@with_options(*TALK)
@option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
def run(jobs: str, mode: str, quiet: bool, dry_run: bool) -> int:
    """Run the YAML file JOBS; images that are done are left alone. Prints one line per image: status, image, output."""
    from tilepipe.execution.batch.run_batch import run as run_batch

    with progress(mode, quiet) as listener:
        report = run_batch(jobs, dry_run=dry_run, listener=listener)
    if dry_run or not on_one_terminal(mode, quiet):  # else each image has its line there already
        for entry in report.entries:
            say.out_line(entry.status, entry.image, report.folder / entry.output)
    # This is printed also with --quiet: a user who is told that something failed is told why.
    for entry in report.failed:
        say.err_line(f"tilepipe: {entry.image}: {entry.status}: {entry.message}")
    if not quiet:
        say.err("\n".join(batch_lines(report)))
    if on_terminal(mode, quiet) and not dry_run:
        say.err("\n".join([*batch_files(report), next_batch_command(report, jobs)]))
    return FAILED_IMAGES if report.failed else 0
