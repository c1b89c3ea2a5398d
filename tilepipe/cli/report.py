"""This module defines `tilepipe report`."""

from __future__ import annotations

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.events import Event


@click.command(cls=Command, short_help="Write a page about a finished run, or about a batch.")
@click.argument("run", metavar="RUN|LABELS|JOBS")
@click.argument("output", required=False)
@option("--image", metavar="FILE", help="The image of the run, if it was moved.")
@option("--overwrite", is_flag=True, help="Replace an existing page.")
def report(run: str, output: str | None, image: str | None, overwrite: bool) -> None:
    """Write the report of a finished run: one HTML page with pictures, areas, seams, failures, times and settings.

    RUN is the labels of the run or its work directory. Without OUTPUT the page lies beside the labels: in.labels.tif
    gives in.labels.html. The YAML file of a batch, JOBS, gives one page with all its images. The page is one file and
    loads nothing else. Prints its path.
    """
    from tilepipe.execution.batch.index import report_of_batch
    from tilepipe.execution.report import report as report_of_run

    def tell(event: Event) -> None:
        if "note" in event.data:
            say.err_line(event.data["note"])

    if not run.lower().endswith((".yaml", ".yml")):
        page = report_of_run(run, output, image=image, overwrite=overwrite, listener=tell)
    elif image is not None:
        raise click.UsageError("--image names the image of one run; a batch has many")
    else:
        page = report_of_batch(run, output, overwrite=overwrite, listener=tell)
    say.out_line(page)
