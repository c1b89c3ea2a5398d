"""This module defines `tilepipe demo`, which labels a real aerial image and part of a real slide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import TALK, with_options
from tilepipe.cli.progress_bar import on_one_terminal, on_terminal, progress
from tilepipe.cli.summary import files, findings
from tilepipe.errors import UsageError
from tilepipe.events import Listener

if TYPE_CHECKING:
    from tilepipe.execution.result import Result
    from tilepipe.planning.settings import Settings

INSTALLED = Path(__file__).parents[1] / "sample"
REPOSITORY = Path(__file__).parents[2] / "pipelines" / "sample"
SAMPLES = INSTALLED if INSTALLED.exists() else REPOSITORY
"""Folder of the sample images: the wheel has copies of them, the repository has the images themselves."""


@dataclass(frozen=True)
class Demo:
    """The settings of one image of the demonstration."""

    name: str
    """Name of the outputs."""
    image: str
    """Name of the image file in the sample folder."""
    model: str
    """Name of the bundled model."""
    settings: Settings
    """Settings that a user would give on the command line."""
    products: tuple[str, ...]
    """Products for the setting `of`; products whose packages are not installed are left out."""


DEMOS = (
    Demo(
        "aerial",
        "banepa_east_rgb.tif",
        "buildings",
        {"mask": SAMPLES / "banepa_east_area.geojson", "min_area": 10.0},
        ("cog", "vectors", "csv", "objects", "overlay", "report"),
    ),
    Demo(
        "slide",
        "CMU-1-Small-Region.svs",
        "nuclei",
        {"window": (760, 2080, 640, 640), "split": True, "min_area": 10.0},
        ("ome-zarr", "geojson", "csv", "objects", "qupath", "overlay", "report"),
    ),
)


@click.command(cls=Command, short_help="Segment a real aerial image and part of a real slide.")
@option("-o", "--output", default="demo-output", show_default=True, help="Folder for what it makes.")
@with_options(*TALK)
def demo(output: str, mode: str, quiet: bool) -> None:
    """Segment a real aerial image and part of a real slide; prints where labels, polygons, objects and reports are."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = on_terminal(mode, quiet)
    for one in DEMOS:
        if not (SAMPLES / one.image).exists():
            raise UsageError(f"{SAMPLES / one.image} is missing; install tilepipe again")
        with progress(mode, quiet) as listener:
            result, picture = make(one, SAMPLES / one.image, folder, listener)
        if not (quiet or mode in ("json", "none")):
            say.err("\n".join(findings(result)))
        if drawn:
            say.err("\n".join(files(result)))
        for path in (picture,) if on_one_terminal(mode, quiet) else (*result.paths, picture):
            say.out_line(path)
    if drawn:
        page, labels = folder / "aerial.labels.html", folder / "aerial.labels.tif"
        say.err(f"next: open {page} in a browser, or give: tilepipe view {SAMPLES / DEMOS[0].image} {labels}")


def make(one: Demo, image: Path, folder: Path, listener: Listener) -> tuple[Result, Path]:
    """Segment one image and paint the result beside its labels; return the result and the path of the picture."""
    import tilepipe
    from tilepipe.products.formats import missing_packages
    from tilepipe.products.quicklook import write_beside

    missing = {name: missing_packages(name) for name in one.products}
    for name, packages in missing.items():
        if packages:
            say.err(f"{name} is left out: {', '.join(packages)} not installed; pip install 'tilepipe[vectors]'")
    written = [name for name in one.products if not missing[name]]
    # The demonstration may be run again and again, so it replaces its own outputs.
    settings: Settings = {**one.settings, "of": written, "overwrite": True}
    result = tilepipe.segment(image, one.model, folder / f"{one.name}.labels", listener=listener, **settings)
    picture = folder / f"{one.name}.png"
    # `write_beside` replaces no file.
    picture.unlink(missing_ok=True)
    write_beside(tilepipe.open_source(image), result.labels.map, picture)
    return result, picture
