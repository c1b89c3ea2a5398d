"""This module defines the options that commands share; those for experts are in a module for each group."""

from __future__ import annotations

from itertools import chain

import click

from tilepipe.cli.help import Decorator, Function, option
from tilepipe.cli.image_options import BANDS, WHICH_IMAGE, WHICH_PART
from tilepipe.cli.machine_options import COMPUTING
from tilepipe.cli.polygon_options import VECTORS
from tilepipe.cli.tile_options import TILING
from tilepipe.cli.values import four_numbers
from tilepipe.text import JSON, comma_list


class _ModelName(click.types.StringParamType):
    """The name or path of a model; a command line without one is answered with where the names are."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what follows click's sentence that the option is missing."""
        from tilepipe.models.facts import bundled_models

        names = ", ".join(bundled_models())
        return f"Those that come with tilepipe are {names}; tilepipe model list describes them."


MODEL = option(
    "-m",
    "--model",
    type=_ModelName(),
    required=True,
    multiple=True,
    callback=lambda _context, _option, models: models[0] if len(models) == 1 else list(models),
    metavar="MODEL",
    help="Model directory, file or name (tilepipe model list); the mean of several -m.",
)

PRODUCTS = (
    "Products to write: cog, ome-zarr, ome-tiff, probabilities, geojson, vectors (GeoPackage), "
    "flatgeobuf, shapefile, geoparquet, csv (numbers), objects (CSV), objects-parquet, qupath (objects), png, "
    "overlay (picture over the image), report (HTML), tissue (picture of the mask), tissue-geojson, stac (STAC item), "
    "dicom-seg (of a DICOM slide), "
    "files (labels of each file of the image)."
)

SETTINGS = (
    option("--of", type=comma_list, metavar="LIST", help=PRODUCTS),
    option("--region", metavar="FILE", help="Compute only inside the polygons of this vector file."),
    option("--bounds", type=four_numbers(float), metavar="'L B R T'", help="Compute only this box of map coordinates."),
    option("--window", type=four_numbers(int), metavar="COL,ROW,W,H", help="Compute only this box of pixels."),
    option(
        "--mask",
        metavar="MASK",
        show_default="auto",
        help="Image data: auto (as the file says), none (all), value:255 (other values). Or what gets a label: tissue, "
        "or a vector file.",
    ),
    BANDS,
    option(
        "--layers",
        type=comma_list,
        multiple=True,
        # The option may be given several times. If it is not given it must be None, so that `given` leaves it out.
        callback=lambda _context, _option, lists: tuple(chain(*lists)) or None,
        metavar="LIST",
        help="Uncertainty to write: margin, entropy, disagreement, mutual-information.",
    ),
    option("--device", metavar="DEVICE", show_default="auto", help="cpu, cuda or cuda:1."),
    option("--memory", metavar="SIZE", help="Stay within this memory, for instance 4GiB."),
    option("--workers", type=click.IntRange(min=0), metavar="N", help="Compute in N worker processes; 0: in this one."),
    *WHICH_IMAGE,
    *WHICH_PART,
    *TILING,
    *VECTORS,
    *COMPUTING,
)

TALK = (
    option(
        "--progress",
        "mode",
        type=click.Choice(["auto", "plain", "json", "none"]),
        default="auto",
        metavar="KIND",
        show_default=True,
        help="A bar on a terminal and lines elsewhere (auto), or plain, json or none.",
    ),
    option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
)


def with_options(*options: Decorator) -> Decorator:
    """Return a decorator that adds `options` in the order given."""

    def decorate(function: Function) -> Function:
        # Decorators are applied from the last to the first, and click shows options in the order of their decorators.
        for each in reversed(options):
            function = each(function)
        return function

    return decorate


def given(options: JSON) -> JSON:
    """Return the options that the user gave; the other options keep the defaults of the Python functions."""
    return {name: value for name, value in options.items() if value is not None}
