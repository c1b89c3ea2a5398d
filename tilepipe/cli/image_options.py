"""This module defines the options that say which image of a file is read, which bands, and which part gets labels."""

from __future__ import annotations

import click

from tilepipe.cli.help import expert, option
from tilepipe.cli.values import pixel_size, word_or

IMAGE, PART = "Image", "Part of the image"

BANDS = option("--bands", metavar="LIST", help="Bands to read, by number or name: 4,3,2 or R,G,B.")

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

WHICH_IMAGE = (
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
)

WHICH_PART = (
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
)

SINCE = expert(
    PART,
    "--since",
    metavar="LABELS",
    help="Labels of an earlier run: compute only what sees a change of the image since, take the rest from them.",
)
