"""This module defines `tilepipe batch`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from tilepipe.cli import say
from tilepipe.cli.batch_schedule import schedule, serve
from tilepipe.cli.help import Command, option
from tilepipe.cli.log_file import LOG, logged
from tilepipe.cli.options import TALK, with_options
from tilepipe.cli.progress_bar import on_one_terminal, on_terminal, progress
from tilepipe.cli.summary import batch_files, batch_lines, batch_summary, next_batch_command

if TYPE_CHECKING:
    from tilepipe.execution.batch.run_batch import Options, Report

FAILED_IMAGES = 3
IMAGES_SAID = 5
"""Largest number of images that `status` names for one reason."""


class FileForCommand(click.Group):
    """A group that recognises when a jobs file is given in place of its command."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of the group. Raises `click.UsageError` if the name is that of a YAML file."""
        if cmd_name.lower().endswith((".yaml", ".yml")):
            raise click.UsageError(f"{cmd_name} is a file and no command; give: tilepipe batch run {cmd_name}")
        return super().get_command(ctx, cmd_name)


@click.group(cls=FileForCommand, short_help="Segment many images as a jobs file says, by hand or every night.")
def batch() -> None:
    """One model over many images, from a jobs file, by hand or every night."""


@dataclass(frozen=True)
class Talk:
    """What a run of a batch prints."""

    mode: str
    """How progress is shown: 'auto', 'plain', 'json' or 'none'."""
    quiet: bool
    """Whether only errors are said."""
    summary: bool = False
    """Whether standard output gets one line for the whole batch."""
    log: str | None = None
    """Path of a log of events."""


OVERWRITE = option("--overwrite", is_flag=True, help="Replace products that were edited or that others have written.")
PARALLEL = option(
    "--max-parallel", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="Number of images at a time; each takes its memory.",
)  # fmt: skip
SUMMARY = option("--summary", is_flag=True, help="Print one line for a mail in place of a line per image.")


@batch.command(cls=Command, short_help="Segment the images of JOBS; those that are done are left alone.")
@click.argument("jobs", type=click.Path())
@with_options(OVERWRITE, PARALLEL, SUMMARY, *TALK, LOG)
@option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
def run(jobs: str, overwrite: bool, max_parallel: int, dry_run: bool, **talk: Any) -> int:
    """Run the YAML file JOBS; images that are done are left alone. Prints one line per image: status, image, output.

    An image that has failed is not tried again until it, the model or the settings change; see `batch retry`.
    """
    from tilepipe.execution.batch.run_batch import Options

    return _run(jobs, Options(False, overwrite, max_parallel), Talk(**talk), dry_run=dry_run)


@batch.command(cls=Command, short_help="Run JOBS, and try again what failed and has not changed.")
@click.argument("jobs", type=click.Path())
@with_options(OVERWRITE, PARALLEL, SUMMARY, *TALK, LOG)
def retry(jobs: str, overwrite: bool, max_parallel: int, **talk: Any) -> int:
    """Run JOBS, and try the images again that have failed and have not changed since."""
    from tilepipe.execution.batch.run_batch import Options

    return _run(jobs, Options(True, overwrite, max_parallel), Talk(**talk))


def _run(jobs: str, options: Options, talk: Talk, *, dry_run: bool = False) -> int:
    from tilepipe.execution.batch.run_batch import run as run_batch

    with progress(talk.mode, talk.quiet) as shown, logged(talk.log, shown) as listener:
        report = run_batch(jobs, dry_run=dry_run, options=options, listener=listener)
    if talk.summary:
        say.out(batch_summary(jobs, report))
    # On a terminal each image has its line there already.
    elif dry_run or not on_one_terminal(talk.mode, talk.quiet):
        for entry in report.entries:
            say.out_line(entry.status, entry.image, report.folder / entry.output)
    _say_end(jobs, report, talk, dry_run=dry_run)
    return FAILED_IMAGES if report.failed or report.known_bad else 0


def _say_end(jobs: str, report: Report, talk: Talk, *, dry_run: bool) -> None:
    """Say why images have failed, and what to type next."""
    # This is printed also with --quiet: a user who is told that something failed is told why.
    for entry in report.failed:
        say.err_line(f"tilepipe: {entry.image}: {entry.status}: {entry.message}")
    again = f"tilepipe batch retry {shlex.quote(jobs)}"
    if report.known_bad and not talk.quiet:
        count = len(report.known_bad)
        say.err_line(f"{count} known bad: failed before and unchanged since; to try them again: {again}")
    if talk.quiet:
        return
    say.err("\n".join(batch_lines(report)))
    if on_terminal(talk.mode, talk.quiet) and not dry_run:
        say.err("\n".join([*batch_files(report), next_batch_command(report, jobs)]))


@batch.command(cls=Command, short_help="Say how many images of JOBS are done, and why others failed.")
@click.argument("jobs", type=click.Path())
@option("--summary", is_flag=True, help="Print one line for a mail.")
@option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def status(jobs: str, summary: bool, as_json: bool) -> int:
    """Say how the batch JOBS stands: how many images are done, and why others failed. Nothing is opened or computed.

    The exit code is 3 if images have failed.
    """
    from tilepipe.execution.batch.status import status_of, summary_line

    found = status_of(jobs)
    reasons = found.reasons()
    if as_json:
        images = [{key: value for key, value in asdict(entry).items() if key in SHOWN} for entry in found.entries]
        say.out(json.dumps({"jobs": found.name, "running": found.running, "images": images}, indent=1))
        return FAILED_IMAGES if reasons else 0
    say.out(summary_line(found.name, found.entries) + (" (running now)" if found.running else ""))
    if not summary:
        for reason, entries in reasons:
            say.out_line(f"{len(entries)} x {reason}")
            for entry in entries[:IMAGES_SAID]:
                say.out_line(f"    {entry.image}")
            if len(entries) > IMAGES_SAID:
                say.out_line(f"    and {len(entries) - IMAGES_SAID} more")
    return FAILED_IMAGES if reasons else 0


SHOWN = ("image", "output", "status", "error", "message", "time", "seconds", "tries")
"""Fields of an entry that `status --json` prints."""


@batch.command(cls=Command, short_help="Write one page about all images of JOBS.")
@click.argument("jobs", type=click.Path())
@click.argument("output", type=click.Path(), required=False)
@option("--overwrite", is_flag=True, help="Replace a file that is not the report of a batch.")
@with_options(*TALK)
def report(jobs: str, output: str | None, mode: str, quiet: bool, overwrite: bool) -> None:
    """Write the report of the batch JOBS: one HTML page of all images, as `tilepipe report JOBS` does. Prints its path.

    The numbers of all images, one CSV file, lie beside it.
    """
    from tilepipe.execution.batch.index import report_of_batch

    with progress(mode, quiet) as listener:
        page = report_of_batch(jobs, output, overwrite=overwrite, listener=listener)
    say.out_line(page)


batch.add_command(schedule)
batch.add_command(serve)
