"""This module defines `tilepipe evaluate`."""

from __future__ import annotations

import json
from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import TALK, given, with_options
from tilepipe.cli.progress_bar import progress
from tilepipe.text import comma_list


def values(text: str) -> dict[int, int]:
    """Return {value: class} for a text like '1:0,2:1'."""
    try:
        pairs = [word.split(":") for word in comma_list(text)]
        return {int(value): int(label) for value, label in pairs}
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list like 1:0,2:1 (value in the file:class)") from None


@click.command(cls=Command, short_help="Score labels against the truth.")
@click.argument("prediction")
@click.argument("truth")
@option("--classes", type=comma_list, metavar="LIST", show_default="those of PREDICTION", help="Class names in order.")
@option("--ignore", type=int, metavar="N", show_default="255", help="Value of TRUTH that is not scored.")
@option("--values", type=values, metavar="LIST", help="Class of each value of TRUTH: VALUE:CLASS,...")
@option("--attribute", metavar="NAME", help="Attribute of the polygons of TRUTH that holds the class.")
@option("--layer", metavar="NAME", help="Layer of TRUTH, if a vector file has several.")
@option("--area", metavar="CLASS", help="Class of the polygons of TRUTH that bound what is scored.")
@option("--width", type=float, metavar="PX", show_default="2", help="Distance in pixels up to which outlines agree.")
@option("--page", type=click.Path(), metavar="FILE.html", help="Write a page with pictures.")
@option("--overwrite", is_flag=True, help="Replace an existing page.")
@option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_options(*TALK)
def evaluate(prediction: str, truth: str, mode: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """Score the label map PREDICTION against TRUTH: a label raster or picture on the same grid, or polygons.

    Two folders are compared file by file, by name.
    """
    from tilepipe.evaluation.accuracy.evaluate import evaluate as compare

    with progress(mode, quiet) as listener:
        result = compare(prediction, truth, listener=listener, **given(options))
    say.out(json.dumps(result.to_json(), indent=1) if as_json else result.table())
