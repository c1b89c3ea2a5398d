"""This module defines `tilepipe clean`."""

from __future__ import annotations

import json

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.text import size_text

UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"))


@click.command(cls=Command, short_help="List or remove what runs have left in a folder.")
@click.argument("folder", metavar="DIR", type=click.Path())
@option("--remove", is_flag=True, help="Remove what finished runs have left.")
@option("--unfinished", is_flag=True, help="Remove what unfinished runs have left, too; they begin anew then.")
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def clean(folder: str, remove: bool, unfinished: bool, as_json: bool) -> None:
    """List what runs have left in DIR and the folders in it: state, size, age, path.

    Nothing is removed without --remove, what a run works on is never removed, and outputs stay as they are. A finished
    run leaves a small record, which verify and the same command again need; an unfinished run goes on from what it has
    left.
    """
    from tilepipe.execution.clean import clean as remove_all
    from tilepipe.execution.clean import leftovers

    if unfinished and not remove:
        raise click.UsageError("--unfinished says what --remove removes; give both")
    found = leftovers(folder)
    if remove:
        found = remove_all(found, unfinished=unfinished)
    if as_json:
        say.out(json.dumps([one.to_json() for one in found], indent=1))
        return
    for one in found:
        state = "removed" if one.removed else one.state
        say.out_line(state, size_text(one.bytes), age(one.to_json()["age_seconds"]), one.path)
    counted = [one for one in found if (one.removed if remove else one.state == "finished")]
    size = size_text(sum(one.bytes for one in counted))
    if remove:
        say.err_line(f"removed: {len(counted)}, {size}")
    elif counted:
        say.err_line(f"nothing is removed without --remove; what finished runs have left: {len(counted)}, {size}")


def age(seconds: float) -> str:
    """Return an age in its largest unit: '3 days'."""
    # Below two of a unit the smaller one says more: 90 minutes, not 1 hours.
    return next((f"{int(seconds // size)} {name}" for size, name in UNITS if seconds >= 2 * size), f"{int(seconds)} s")
