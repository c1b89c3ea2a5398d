"""This module defines `tilepipe export`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import PRODUCTS, given, with_options
from tilepipe.cli.polygon_options import VECTORS
from tilepipe.events import Event
from tilepipe.text import comma_list


@click.command(cls=Command, short_help="Write labels, or those of a run, as another product.")
@click.argument("labels", metavar="LABELS|RUN")
@click.argument("output")
@option(
    "--of",
    type=comma_list,
    metavar="LIST",
    show_default="by the ending of OUTPUT",
    help=PRODUCTS,
)
@option(
    "--image",
    metavar="FILE",
    help="Image of the labels, for products that show or measure it.",
)
@option("--overwrite", is_flag=True, help="Replace an existing output.")
@with_options(*VECTORS)
def export(labels: str, output: str, of: tuple[str, ...] | None, **options: Any) -> None:
    """Write labels, or those of a run, as another product. Prints the paths of what was written."""
    from tilepipe.execution.export import export as export_labels

    def tell(event: Event) -> None:
        if "note" in event.data:
            say.err_line(event.data["note"])

    for path in export_labels(labels, output, of=of, listener=tell, **given(options)):
        say.out_line(path)
