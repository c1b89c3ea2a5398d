"""`tilepipe verify`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.options import TALK, given, with_options
from tilepipe.cli.progress_bar import progress

DOES_NOT_HOLD = 3


@click.command()
@click.argument("target", metavar="RUN|LABELS")
@click.option("--image", help="The run's image, where it is no longer where it was.")
@click.option("-m", "--model", help="The run's model, where it is no longer where it was.")
@click.option("--mask", help="The GeoJSON file of the run's polygons, where it had one.")
@click.option("--windows", type=click.IntRange(min=0), help="Windows to compute again; 8 by default, 0 for none.")
@click.option("--seed", type=int, help="Of the windows' random places; 0 by default.")
@click.option("--device", help="Where to compute; the run's own device by default.")
@click.option("--trust-model", metavar="sha256:...", help="As in tilepipe segment.")
@click.option("--tile", type=click.IntRange(min=1), help="Tile side of a label map that another program made.")
@click.option("--step", type=click.IntRange(min=1), help="Distance of its tiles; --tile by default.")
@click.option("--stride", type=click.IntRange(min=1), help="Total stride of its model, where known.")
@click.option("--picture", metavar="FILE.png", help="Draw where the windows lie and what they show.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_options(*TALK)
def verify(target: str, image: str | None, model: str | None, **options: Any) -> int:
    """Check a finished run against its certificate, or any label map for lines where its tiles met.

    A run is named by any of its products or its work directory. Parts of it are computed again: on seams against one
    pass without seams, and with the tile grid moved. What is on disk is compared with the ledger. With --tile the label
    map alone is judged. Exit code 3 says that the certificate does not hold, or that seams were found.
    """
    from tilepipe.evaluation.verify.verify import verify as check

    mode, quiet, as_json = (options.pop(name) for name in ("mode", "quiet", "as_json"))
    with progress(mode, quiet) as listener:
        found = check(target, image, model, listener=listener, **given(options))
    say.out(found.to_json() if as_json else found, nl=not as_json)
    return 0 if found.holds else DOES_NOT_HOLD
