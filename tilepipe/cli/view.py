"""This module defines `tilepipe view`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.evaluate import values
from tilepipe.cli.help import Command, option
from tilepipe.cli.image_options import BANDS, SCENE
from tilepipe.cli.options import given, with_options


@click.command(cls=Command, short_help="Show an image in the browser, with labels over it.")
@click.argument("image")
@click.argument("labels", metavar="[LABELS|RUN]", required=False)
@option("--truth", metavar="LABELS", help="Labels to show beside LABELS; they may come from another program.")
@option("--values", type=values, metavar="LIST", help="Class of each value of the truth: VALUE:CLASS,...")
@option("--ignore", type=int, metavar="N", show_default="255", help="Value of the truth that nobody labelled.")
@option("--no-browser", is_flag=True, help="Print the address and open no browser.")
@with_options(BANDS, *SCENE)
def view(image: str, labels: str | None, no_browser: bool, **options: Any) -> None:
    """Show IMAGE in the browser, with LABELS or those of a run over it, until Ctrl-C.

    A run that still works is shown as far as it is. Prints the address of the page, which is on this machine only.
    """
    from tilepipe.view.viewer import view as show

    with show(image, labels, browser=not no_browser, **given(options)) as viewer:
        say.out_line(viewer.url)
        say.err_line("the viewer runs until Ctrl-C; the address works in the first browser that opens it")
        try:
            viewer.wait()
        except KeyboardInterrupt:
            say.err_line("the viewer has ended")
