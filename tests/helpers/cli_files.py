"""Images for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

HEIGHT, WIDTH = 150, 210
TRANSFORM = Affine(0.5, 0, 300000.25, 0, -0.5, 5200000.75)


def write_image(path: Path, bands: int = 3, dtype: str = "uint8") -> Path:
    """Write a GeoTIFF of noise: tiles of 64, 0.5 m, UTM zone 33."""
    pixels = np.random.default_rng(1).integers(0, 255, (bands, HEIGHT, WIDTH)).astype(dtype)
    profile = {"crs": "EPSG:32633", "transform": TRANSFORM, "tiled": True, "blockxsize": 64, "blockysize": 64}
    profile |= {"photometric": "minisblack", "alpha": "no"}  # a fourth band is a band
    with rasterio.open(path, "w", "GTiff", WIDTH, HEIGHT, bands, dtype=dtype, compress="deflate", **profile) as file:
        file.write(pixels)
    return path
