"""open_source: the right source for a path, an array or a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Source
from tilepipe.sources.geotiff import TIFF_MAGIC, GeoTiffSource


def open_source(what: str | Path | Source | NDArray[Any] | da.Array, **options: Any) -> Source:
    """Return a source for a path, a numpy or dask array (bands, height, width), or a source (returned as it is).

    `options` are those of the source that fits: `bands`, `resolution`, `allow_driver`, `allow_palette` for rasters,
    `mpp` for slides, `z`, `t` for Zarr and OME-TIFF, `valid`, `name` for arrays. Raises `InputError` where nothing fits.
    """
    if isinstance(what, np.ndarray | da.Array):
        return ArraySource(what, **options)
    if not isinstance(what, str | Path):
        return what
    if "allow_driver" in options:
        return GeoTiffSource(what, **options)
    path = Path(what)
    if "://" in str(what) or str(what).startswith("/vsi"):
        raise InputError(f"{what} is not on this machine; download it first")
    if not path.exists():
        raise InputError(f"{what} does not exist")
    with path.open("rb") as file:
        start = file.read(4)
    if start in TIFF_MAGIC:
        return GeoTiffSource(what, **options)
    raise InputError(f"{what} is not an image that tilepipe reads")
