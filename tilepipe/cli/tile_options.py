"""This module defines the options about tiles, and how exact labels shall be."""

from __future__ import annotations

import click

from tilepipe.cli.help import expert
from tilepipe.cli.values import word_or

TILES = "Tiles and exactness"

TILING = (
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
)
