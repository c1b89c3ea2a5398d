"""`tilepipe demo`: a real aerial image and part of a real slide, labelled with the bundled models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from tilepipe.cli.options import TALK, with_options
from tilepipe.cli.progress import progress
from tilepipe.errors import UsageError
from tilepipe.events import Listener

SAMPLES = Path(__file__).parents[2] / "pipelines" / "sample"


@dataclass(frozen=True)
class Demo:
    """One image of the demonstration."""

    name: str
    """Of its outputs."""
    image: str
    """File in the sample folder."""
    model: str
    """Bundled model."""
    window: tuple[int, int, int, int]
    """(column, row, width, height) in pixels."""
    of: tuple[str, ...]
    """Products."""


DEMOS = (
    Demo("aerial", "banepa_east_rgb.tif", "buildings", (0, 0, 2048, 2048), ("cog",)),
    Demo("slide", "CMU-1-Small-Region.svs", "nuclei", (840, 1500, 768, 768), ("ome-zarr", "geojson")),
)


@click.command()
@click.option("-o", "--output", default="demo-output", show_default=True, help="Folder for what it makes.")
@click.option("--samples", type=click.Path(path_type=Path), default=SAMPLES, help="Folder of the sample images.")
@with_options(*TALK)
def demo(output: str, samples: Path, mode: str, quiet: bool) -> None:
    """Segment a real aerial image and part of a real slide; prints where label maps and pictures are."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for one in DEMOS:
        if not (samples / one.image).exists():
            raise UsageError(f"{samples / one.image} is missing; name the folder of the samples with --samples")
        with progress(mode, quiet) as listener:
            for path in make(one, samples / one.image, folder, listener):
                click.echo(path)


def make(one: Demo, image: Path, folder: Path, listener: Listener) -> list[Path]:
    """Segment one image and paint it beside its labels; return the paths of what was written."""
    from tilepipe import api
    from tilepipe.exports.picture import write_beside

    result = api.segment(
        image, one.model, folder / f"{one.name}.labels", listener=listener, of=one.of, window=one.window, overwrite=True
    )
    picture = folder / f"{one.name}.png"
    write_beside(api.open_source(image), result.plan.region, result.labels.map, picture)
    return [*result.paths, picture]
