"""This module defines `tilepipe verify`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, expert, option
from tilepipe.cli.machine_options import TRUST
from tilepipe.cli.options import TALK, given, with_options
from tilepipe.cli.progress_bar import progress

DOES_NOT_HOLD = 3
OTHERS = "A label map that another program made"


@click.command(cls=Command, short_help="Check a finished run, or any labels, for seams.")
@click.argument("target", metavar="RUN|LABELS")
@option("--image", metavar="FILE", help="The image of the run, if it was moved.")
@option(
    "-m",
    "--model",
    multiple=True,
    callback=lambda _context, _option, models: list(models) or None,
    metavar="MODEL",
    help="The model of the run, if it was moved; each of them if it had several.",
)
@option("--mask", metavar="FILE", help="The GeoJSON file of the polygons of the run, if it was moved.")
@option("--windows", type=click.IntRange(min=0), metavar="N", show_default="8", help="Places to compute again.")
@option("--seed", type=int, metavar="N", show_default="0", help="Seed of the random places.")
@option("--whole", is_flag=True, help="Compare all labels with one pass over the whole image, in bands of rows.")
@option("--picture", metavar="FILE.png", help="Draw where the places lie and what was found there.")
@option("--device", metavar="DEVICE", show_default="that of the run", help="Device that computes: cpu, cuda or cuda:1.")
@option("--json", "as_json", is_flag=True, help="Print JSON.")
@expert(OTHERS, "--tile", type=click.IntRange(min=1), metavar="N", help="Side of a tile in pixels.")
@expert(
    OTHERS, "--step", type=click.IntRange(min=1), metavar="N", show_default="--tile", help="Pixels from tile to tile."
)
@expert(
    OTHERS,
    "--stride",
    type=click.IntRange(min=1),
    metavar="N",
    help="Total stride of its model in pixels, if it is known.",
)
@TRUST
@with_options(*TALK)
def verify(target: str, image: str | None, model: list[str] | None, **options: Any) -> int:
    """Check a finished run against its certificate, or any label map for lines where its tiles met.

    A run is named by any of its products or its work directory. Parts of it are computed again: on seams against one
    pass without seams, and with the tile grid moved. What is on disk is compared with the ledger. With --tile the label
    map alone is judged. Exit code 3 says that the certificate does not hold, or that seams were found.
    """
    from tilepipe.evaluation.verify.verify import verify as check

    mode, quiet, as_json = (options.pop(name) for name in ("mode", "quiet", "as_json"))
    with progress(mode, quiet) as listener:
        found = check(target, image, model, listener=listener, **given(options))
    # The JSON text ends with a line feed already.
    say.out(found.to_json() if as_json else found, nl=not as_json)
    return 0 if found.holds else DOES_NOT_HOLD
