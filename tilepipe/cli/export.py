"""`tilepipe export`."""

from __future__ import annotations

import click

from tilepipe.cli import say
from tilepipe.text import comma_list


@click.command()
@click.argument("labels", metavar="LABELS|RUN")
@click.argument("output")
@click.option("--of", type=comma_list, metavar="LIST", help="Products; what OUTPUT's ending says by default.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def export(labels: str, output: str, of: tuple[str, ...] | None, overwrite: bool) -> None:
    """Write labels, or those of a run, as another product. Prints the paths of what was written."""
    from tilepipe.execution.export import export as export_labels

    for path in export_labels(labels, output, of=of, overwrite=overwrite):
        say.out_line(path)
