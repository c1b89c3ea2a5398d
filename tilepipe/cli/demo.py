"""`tilepipe demo`."""

import click


@click.command()
def demo() -> None:
    """Segment a real aerial image and a real slide."""
