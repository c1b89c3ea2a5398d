"""This module defines `tilepipe view`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import BANDS, SCENE, given, with_options


@click.command(cls=Command)
@click.argument("image")
@option("--no-browser", is_flag=True, help="Print the address and open no browser.")
@with_options(BANDS, *SCENE)
def view(image: str, no_browser: bool, **options: Any) -> None:
    """Show IMAGE in the browser, until Ctrl-C. Prints the address of the page, which is on this machine only."""
    from tilepipe.view.viewer import view as show

    with show(image, browser=not no_browser, **given(options)) as viewer:
        say.out_line(viewer.url)
        say.err_line("the viewer runs until Ctrl-C; the address works in the first browser that opens it")
        try:
            viewer.wait()
        except KeyboardInterrupt:
            say.err_line("the viewer has ended")
