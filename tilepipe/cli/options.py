"""Options that commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

import click

from tilepipe.text import comma_list

Function = TypeVar("Function", bound=Callable[..., Any])


def four_numbers(number: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    """Return a parser of four numbers with commas or blanks between them."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            numbers = tuple(number(word) for word in re.split(r"[,\s]+", text.strip()))
        except ValueError:
            numbers = ()
        if len(numbers) != 4:
            raise click.BadParameter(f"{text!r} is not four {'whole ' if number is int else ''}numbers")
        return numbers

    return parse


def word_or(number: type[int] | type[float], *words: str) -> Callable[[str], str | float]:
    """Return a parser of a number or one of `words`."""

    def parse(text: str) -> str | float:
        try:
            return text if text in words else number(text)
        except ValueError:
            alone = re.match(r"[\d.]+(?=\s*[a-zA-Z\u00b5\u03bc]+$)", text.strip())  # 0.25um, 256px
            hint = f"; give the number alone: {alone[0]}" if alone else ""
            raise click.BadParameter(f"{text!r} is neither a number nor {' nor '.join(words)}{hint}") from None

    return parse


def pixel_size(text: str) -> float:
    """Return a pixel size. Raises `click.BadParameter` with the number alone where a unit stands behind it."""
    from tilepipe.planning.settings import plain_size

    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no number; give it alone, in micrometres for slides and metres for rasters: "
            f"{plain_size(text)}"
        ) from None


MODEL = click.option("-m", "--model", required=True, help="A model directory or file, or the name of a bundled model.")

PRECISIONS = click.Choice(["auto", "fp64", "fp32", "tf32", "bf16", "fp16"])

TRUST = click.option(
    "--trust-model", metavar="sha256:HASH", help="Load a file that can run code, if it is exactly the one of this hash."
)

SCENE = (
    click.option("--scene", type=click.IntRange(min=0), metavar="N", help="Which image of a file of several, from 0."),
    click.option("--z", type=click.IntRange(min=0), metavar="N", help="Which plane along z, from 0."),
    click.option("--t", type=click.IntRange(min=0), metavar="N", help="Which plane along t, from 0."),
)

SETTINGS = (
    *SCENE,
    click.option("--of", type=comma_list, metavar="LIST", help="Products: cog, ome-zarr, geojson."),
    click.option(
        "--bounds",
        type=four_numbers(float),
        metavar="'L B R T'",
        help="Region in map coordinates.",
    ),
    click.option("--bounds-crs", help="CRS of --bounds, for instance EPSG:4326; the image's own by default."),
    click.option("--bands", metavar="LIST", help="Bands to read: numbers from 1, or names (R,G,B); those that fit."),
    click.option("--window", type=four_numbers(int), metavar="COL,ROW,W,H", help="Region in pixels."),
    click.option("--region", metavar="FILE", help="Region: the polygons of a GeoJSON file."),
    click.option(
        "--tile", type=word_or(int, "auto"), metavar="N|auto", help="Tile size, pixels of the prediction grid."
    ),
    click.option(
        "--overlap", type=word_or(int, "auto"), metavar="N|auto", help="What neighbouring tiles share, pixels."
    ),
    click.option(
        "--window-shape",
        type=click.Choice(["auto", "crop", "constant", "gaussian", "hann", "linear"]),
        help="How tiles are blended where they overlap.",
    ),
    click.option(
        "--statistics",
        type=click.Choice(["auto", "field", "whole", "tile"]),
        help="Of norms and poolings over the whole image: from a fixed grid (field), the whole image, or each tile's.",
    ),
    click.option(
        "--tolerance",
        type=click.FloatRange(0, 1),
        help="Difference in probability accepted if exact labels cost too much.",
    ),
    click.option("--max-cost", type=click.FloatRange(min=1), help="Work over that of one pass that exact may cost."),
    click.option(
        "--resolution",
        type=word_or(float, "full", "model"),
        metavar="full|model|R",
        help="Pixel size of the labels: the image's (full), the model's, or a number.",
    ),
    click.option(
        "--pixel-size",
        type=pixel_size,
        metavar="NUMBER",
        help="Pixel size of the image, where the file does not say it right: um for slides, m for rasters.",
    ),
    click.option(
        "--force-resolution",
        is_flag=True,
        default=None,
        help="Run also where the image's pixels are more than 8 times as large as those of the model.",
    ),
    click.option(
        "--mask",
        help="What is image data: auto (what the file says), none (every pixel), value:255 (not where all bands hold "
        "that value). Or which of it gets a label: tissue, or the polygons of a GeoJSON file.",
    ),
    click.option(
        "--layers",
        type=comma_list,
        multiple=True,
        callback=lambda _context, _option, lists: tuple(chain(*lists)) or None,
        metavar="LIST",
        help="Uncertainty written beside the labels: margin, entropy, disagreement (of blended tiles).",
    ),
    click.option("--device", help="auto, cpu, cuda or cuda:1."),
    click.option(
        "--precision",
        type=PRECISIONS,
        help="Of the model; auto is fp32. fp64 takes longer and rounds no label; tf32 and fp16 need a CUDA device.",
    ),
    click.option("--batch", type=click.IntRange(min=1), help="Tiles per model call."),
    click.option("--block", type=click.IntRange(min=1), help="Wanted size of a block, the unit of work, in pixels."),
    TRUST,
    click.option("--memory", help="Memory to stay within, for instance 4GiB."),
    click.option(
        "--on-tile-error",
        type=click.Choice(["nodata", "fail"]),
        help="A tile that cannot be read or predicted: its pixels get no label and it is listed (nodata), or the run "
        "ends (fail).",
    ),
    click.option("--workers", type=click.IntRange(min=1), help="Worker processes; in this process by default."),
    click.option("--scheduler", help="Address of a running Dask scheduler, for instance tls://host:8786."),
)

TALK = (
    click.option(
        "--progress",
        "mode",
        type=click.Choice(["auto", "plain", "json", "none"]),
        default="auto",
        show_default=True,
        help="A bar on a terminal and plain lines elsewhere, or JSON lines, or nothing; on standard error.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
)


def with_options(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Return a decorator that adds `options` in the order given."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the user gave; the others keep the defaults of the Python face."""
    return {name: value for name, value in options.items() if value is not None}
