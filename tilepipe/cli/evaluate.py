"""`tilepipe evaluate`."""

from __future__ import annotations

import json
from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.options import TALK, given, with_options
from tilepipe.cli.progress_bar import progress
from tilepipe.text import comma_list


def values(text: str) -> dict[int, int]:
    """Return {value: class} of '1:0,2:1'."""
    try:
        pairs = [word.split(":") for word in comma_list(text)]
        return {int(value): int(label) for value, label in pairs}
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list like 1:0,2:1 (value in the file:class)") from None


@click.command()
@click.argument("prediction")
@click.argument("truth")
@with_options(*TALK)
@click.option("--classes", type=comma_list, metavar="LIST", help="Class names; the prediction's own by default.")
@click.option("--ignore", type=int, metavar="N", help="Value of the truth that is not scored.  [default: 255]")
@click.option("--values", type=values, metavar="LIST", help="What values of the truth mean: VALUE:CLASS,...")
@click.option("--width", type=float, metavar="PX", help="Width at which outlines are compared.  [default: 2]")
@click.option("--page", type=click.Path(), help="Write a page with pictures here.")
@click.option("--overwrite", is_flag=True, help="Replace an existing page.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def evaluate(prediction: str, truth: str, mode: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """Score the label map PREDICTION against TRUTH, a label raster or picture on the same grid."""
    from tilepipe.evaluation.accuracy.evaluate import evaluate as compare

    with progress(mode, quiet) as listener:
        result = compare(prediction, truth, listener=listener, **given(options))
    say.out(json.dumps(result.to_json(), indent=1) if as_json else result.table())
