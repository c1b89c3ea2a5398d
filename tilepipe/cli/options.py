"""This module defines the options that commands share."""

from __future__ import annotations

from itertools import chain

import click

from tilepipe.cli.help import Decorator, Function, expert, option
from tilepipe.cli.polygon_options import VECTORS
from tilepipe.cli.values import four_numbers, pixel_size, word_or
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

PRECISIONS = click.Choice(["auto", "fp64", "fp32", "tf32", "bf16", "fp16"])

_TRUST = {
    "metavar": "sha256:HASH",
    "help": "Load a model file that can run code, if this is its hash.",
}
TRUST = option("--trust-model", **_TRUST)

IMAGE, PART, TILES, MACHINE = "Image", "Part of the image", "Tiles and exactness", "Machine"

SCENE = (
    expert(
        IMAGE,
        "--scene",
        metavar="N|NAME",
        help="Image of a file that holds several, from 0, or the name of a variable (netCDF, HDF5).",
    ),
    expert(IMAGE, "--z", type=click.IntRange(min=0), metavar="N", help="Plane along z, from 0."),
    expert(IMAGE, "--t", type=click.IntRange(min=0), metavar="N", help="Plane along t, from 0."),
    expert(
        IMAGE,
        "--driver",
        metavar="NAME",
        help="Driver of GDAL that reads the image: JP2OpenJPEG, HFA (IMG), netCDF, HDF5, ENVI or VRT.",
    ),
)

ALLOW = expert(
    IMAGE,
    "--allow",
    multiple=True,
    callback=lambda _context, _option, folders: folders or None,
    metavar="FOLDER",
    help="Folder in which a list of files, or a VRT, may name files too.",
)

BANDS = option("--bands", metavar="LIST", help="Bands to read, by number or name: 4,3,2 or R,G,B.")

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
    *SCENE,
    ALLOW,
    expert(
        IMAGE,
        "--pixel-size",
        type=pixel_size,
        metavar="NUMBER",
        help="Pixel size of the image, if the file does not say it: micrometres for slides, metres for rasters.",
    ),
    expert(
        IMAGE,
        "--force-resolution",
        is_flag=True,
        default=None,
        help="Accept pixels more than 8 times as large as those of the model.",
    ),
    expert(
        PART,
        "--class",
        "classes",
        multiple=True,
        callback=lambda _context, _option, classes: classes or None,
        metavar="NAME",
        help="Of the polygons of --region or --mask, only those of this class, as QuPath names it; several --class.",
    ),
    expert(PART, "--bounds-crs", metavar="CRS", show_default="the image's", help="CRS of --bounds, like EPSG:4326."),
    expert(
        PART,
        "--resolution",
        type=word_or(float, "full", "model"),
        metavar="full|model|R",
        show_default="full",
        help="Pixel size of the labels: that of the image (full), that of the model, or a number.",
    ),
    expert(
        TILES,
        "--tile",
        type=word_or(int, "auto"),
        metavar="N|auto",
        show_default="auto",
        help="Side of a tile in pixels of the model's grid.",
    ),
    expert(
        TILES,
        "--grid",
        type=click.Choice(["image", "world"]),
        metavar="image|world",
        show_default="image",
        help="Where tiles begin: at the image's first pixel, or at fixed places on the earth, so that labels of "
        "neighbouring images fit each other (with --tile and --overlap).",
    ),
    expert(
        TILES,
        "--overlap",
        type=word_or(int, "auto"),
        metavar="N|auto",
        show_default="auto",
        help="Pixels that neighbouring tiles share.",
    ),
    expert(
        TILES,
        "--window-shape",
        type=click.Choice(["auto", "crop", "constant", "gaussian", "hann", "linear"]),
        metavar="SHAPE",
        show_default="auto",
        help="How tiles are combined: crop keeps the centre of each; constant, gaussian, hann and linear blend.",
    ),
    expert(
        TILES,
        "--statistics",
        type=click.Choice(["auto", "field", "whole", "tile"]),
        metavar="SOURCE",
        show_default="auto",
        help="Source of the statistics of instance norm, group norm and global pooling: a grid fixed to the image "
        "(field), the whole image, or each tile.",
    ),
    expert(
        TILES,
        "--tta",
        type=click.Choice(["none", "d4"]),
        metavar="none|d4",
        show_default="none",
        help="Average the probabilities of the 8 turned and mirrored positions of each tile (d4): 8 times the work.",
    ),
    expert(
        TILES,
        "--max-cost",
        type=float,
        metavar="NUMBER",
        show_default="4",
        help="Largest computing cost accepted for exact labels, as a multiple of one pass over the image.",
    ),
    expert(
        TILES,
        "--tolerance",
        type=float,
        metavar="NUMBER",
        show_default="0.01",
        help="Difference in probability that is accepted if exact labels cost more.",
    ),
    *VECTORS,
    expert(
        MACHINE,
        "--precision",
        type=PRECISIONS,
        metavar="NAME",
        show_default="fp32",
        help="Arithmetic of the model: fp32, fp64 (labels do not depend on the tiling for any weights; slower), bf16, "
        "and on CUDA devices tf32 and fp16.",
    ),
    expert(
        MACHINE,
        "--runtime",
        type=click.Choice(["auto", "torch", "onnxruntime", "openvino", "compile"]),
        metavar="NAME",
        show_default="auto",
        help="Program that computes the model: torch, onnxruntime, openvino, compile (torch.compile), or auto, the "
        "fastest that agrees with torch.",
    ),
    expert(
        MACHINE,
        "--batch",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="by device",
        help="Tiles in one call of the model.",
    ),
    expert(
        MACHINE,
        "--block",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="1024",
        help="Side of a block in pixels. A block is the unit of work that is kept if a run is interrupted.",
    ),
    expert(
        MACHINE,
        "--on-tile-error",
        type=click.Choice(["nodata", "fail"]),
        metavar="nodata|fail",
        show_default="nodata",
        help="If a tile cannot be read or predicted: leave its pixels without a label and list it (nodata), or end the "
        "run (fail).",
    ),
    expert(
        MACHINE,
        "--tile-timeout",
        type=float,
        metavar="SECONDS",
        show_default="600",
        help="Longest time for one batch of tiles; a tile that takes longer twice cannot be predicted (0: no limit).",
    ),
    expert(
        MACHINE,
        "--no-record",
        "record",
        is_flag=True,
        flag_value=False,
        default=None,
        help="Leave no record (.OUTPUT.tilepipe) of a finished run; verify and the same command again need it.",
    ),
    expert(
        MACHINE, "--scheduler", metavar="ADDRESS", help="Address of a running Dask scheduler, like tls://host:8786."
    ),
    expert(MACHINE, "--trust-model", **_TRUST),
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
