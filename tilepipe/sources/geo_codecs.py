"""This module finds which compressions of TIFF the GDAL of this environment writes and reads, by doing so."""

from __future__ import annotations

import warnings

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

COMPRESSIONS = ("DEFLATE", "LZW", "ZSTD", "LERC", "JPEG", "WEBP", "JXL", "LZMA", "PACKBITS")
"""Compressions of TIFF that images and labels often have."""
SIDE = 32


def gdal_version() -> str:
    """Return the version of GDAL."""
    return str(rasterio.__gdal_version__)


def working_compressions() -> list[str]:
    """Return the compressions that can be written and read here."""
    return [name for name in COMPRESSIONS if _works(name)]


def _works(name: str) -> bool:
    pixels = np.zeros((3, SIDE, SIDE), np.uint8)
    shape = {"width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8"}
    try:
        with warnings.catch_warnings(), MemoryFile() as memory:
            warnings.simplefilter("ignore")  # the file has no place on the earth
            with memory.open(driver="GTiff", compress=name, **shape) as file:
                file.write(pixels)
            with memory.open() as file:
                return bool(file.compression and file.compression.value.upper().startswith(name[:4])) and bool(
                    (file.read() == pixels).all()
                )
    except RasterioError:
        return False
