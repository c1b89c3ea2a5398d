"""This module defines `tilepipe segment` and `tilepipe plan`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.image_options import SINCE
from tilepipe.cli.log_file import LOG, logged
from tilepipe.cli.options import MODEL, SETTINGS, TALK, given, with_options
from tilepipe.cli.progress_bar import on_one_terminal, on_terminal, progress
from tilepipe.cli.summary import files, findings, next_command
from tilepipe.text import JSON

FAILED_TILES = 3
SHOWN = 10
"""Largest number of failed tiles that are listed on standard error."""


@click.command(cls=Command)
@click.argument("source", metavar="INPUT")
@click.argument("output", required=False)
@with_options(MODEL, *SETTINGS, *TALK, LOG)
@option("-v", "--verbose", is_flag=True, help="Print the plan before the run, and all of the certificate after it.")
@SINCE
@option("--overwrite", is_flag=True, help="Replace an existing output.")
@option("--dry-run", is_flag=True, help="Print the plan and stop.")
def segment(source: str, output: str | None, model: str | list[str], **options: Any) -> int:
    """Segment INPUT into a label map.

    Without OUTPUT it lies beside the image: in.tif gives in.labels.tif, a slide .labels.ome.zarr and .labels.geojson.
    A run that was interrupted goes on when the same command is given again. Prints the paths of what was written.
    """
    import tilepipe
    from tilepipe.execution.segment import dry_run as planned

    mode, quiet, verbose, dry_run = (options.pop(name) for name in ("mode", "quiet", "verbose", "dry_run"))
    log = options.pop("log")
    settings = given(options)
    if dry_run:
        # A run tells these notes to its listener, and a dry run has none.
        say_notes(source, settings)
    if dry_run or verbose:
        (say.out if dry_run else say.err)(planned(source, model, output, **settings))
    if dry_run:
        return 0
    with progress(mode, quiet) as shown, logged(log, shown) as listener:
        result = tilepipe.segment(source, model, output, listener=listener, **settings)
    if not (quiet or mode in ("json", "none")):
        say.err("\n".join(findings(result)))
        if verbose:
            say.err("\n".join(result.certificate.sentences))
    drawn = on_terminal(mode, quiet)
    if drawn:
        say.err("\n".join(files(result)))
    # These are printed also with --quiet: a user who is told that something failed is told why.
    for problem in result.failed[:SHOWN]:
        say.err_line(f"tilepipe: no labels: {problem}")
    if len(result.failed) > SHOWN:
        say.err_line(
            f"tilepipe: and {len(result.failed) - SHOWN} more; all are in run.json: tilepipe info {result.paths[0]}"
        )
    if not on_one_terminal(mode, quiet):  # else the paths stand there with their sizes already
        for path in result.paths:
            say.out_line(path)
    if drawn and not result.failed:
        say.err(next_command(result))
    return FAILED_TILES if result.failed else 0


def say_notes(source: str, settings: JSON) -> None:
    """Print on standard error which image was chosen from a file that holds several images."""
    from tilepipe.sources.open import open_source, opening

    for note in getattr(open_source(source, **opening(settings)), "notes", ()):
        say.err_line(note)


@click.command(cls=Command, short_help="Print what a run would take: tiles, memory, disk.")
@click.argument("source", metavar="INPUT")
@with_options(MODEL, *SETTINGS)
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(source: str, model: str | list[str], as_json: bool, **options: Any) -> None:
    """Print what segmenting INPUT would take: tiles, memory, disk. Runs nothing, writes nothing."""
    from tilepipe.planning.planner import plan as planned

    settings = given(options)
    say_notes(source, settings)
    made = planned(source, model, **settings)
    say.out(made.to_json() if as_json else made)
