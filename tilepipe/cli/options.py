"""Options that commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


class Numbers(click.ParamType):
    """Four numbers with commas or blanks between them."""

    def __init__(self, names: str, number: type[int] | type[float]) -> None:
        self.name = names
        self._number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the four numbers."""
        try:
            numbers = tuple(self._number(word) for word in re.split(r"[,\s]+", str(value).strip()))
        except ValueError:
            numbers = ()
        if len(numbers) != 4:
            kind = "whole numbers" if self._number is int else "numbers"
            self.fail(f"{value!r} is not four {kind}; write {self.name}", param, ctx)
        return numbers


class WordOr(click.ParamType):
    """One of some words, or a number."""

    def __init__(self, *words: str, number: type[int] | type[float]) -> None:
        self.name = "|".join([*words, "N" if number is int else "R"])
        self._words = words
        self._number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | float:
        """Return the word, or the number."""
        if value in self._words:
            return str(value)
        try:
            return self._number(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {' nor '.join(self._words)}", param, ctx)


class Words(click.ParamType):
    """Words with commas between them."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words."""
        return tuple(word.strip() for word in str(value).split(",") if word.strip())


MODEL = click.option("-m", "--model", required=True, help="A model directory, or the name of a bundled model.")

SETTINGS = (
    click.option("--of", type=Words(), help="Products: cog, ome-zarr, geojson, png; several with commas."),
    click.option("--bounds", type=Numbers("'left bottom right top'", float), help="Region in map coordinates."),
    click.option("--bounds-crs", help="CRS of --bounds, for instance EPSG:4326; the image's own by default."),
    click.option("--window", type=Numbers("col,row,width,height", int), help="Region in pixels."),
    click.option("--region", type=click.Path(), help="Region: the polygons of a GeoJSON file."),
    click.option("--tile", type=WordOr("auto", number=int), help="Tile size in pixels of the prediction grid."),
    click.option("--overlap", type=WordOr("auto", number=int), help="Overlap of neighbouring tiles in pixels."),
    click.option(
        "--window-shape",
        type=click.Choice(["auto", "crop", "gaussian", "hann", "linear"]),
        help="How tiles are blended where they overlap.",
    ),
    click.option(
        "--resolution",
        type=WordOr("full", "model", number=float),
        help="Pixel size of the labels: the image's (full), the model's, or a number.",
    ),
    click.option(
        "--mask",
        help="Where to compute: auto (image data), none (everywhere), tissue, or the polygons of a GeoJSON file.",
    ),
    click.option("--device", help="auto, cpu, cuda or cuda:1."),
    click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"])),
    click.option("--batch", type=click.IntRange(min=1), help="Tiles per model call."),
    click.option("--memory", help="Memory to stay within, for instance 4GiB."),
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
