"""Images for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.transform import Affine

from tilepipe.testing import PLACE, write_geotiff

HEIGHT, WIDTH = 150, 210
TRANSFORM = Affine(*PLACE)


def write_image(path: Path, bands: int = 3, dtype: str = "uint8") -> Path:
    """Write a GeoTIFF of noise: tiles of 64, 0.5 m, UTM zone 33."""
    return write_geotiff(path, np.random.default_rng(1).integers(0, 255, (bands, HEIGHT, WIDTH)).astype(dtype))
