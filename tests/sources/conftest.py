"""Small images made in code: GeoTIFFs by rasterio, slides by tifffile."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from tilepipe.testing import write_slide

UTM = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 3000000)}


def noise_of(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Random pixels over the whole range of a dtype (0 to 1 for floats)."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape, dtype=dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.fixture
def noise() -> Callable[..., NDArray[Any]]:
    return noise_of


@pytest.fixture
def geotiff(tmp_path: Path) -> Callable[..., Path]:
    """Write (bands, y, x) pixels as GeoTIFF; keywords are rasterio's, `then` may touch the open dataset."""

    def write(
        array: NDArray[Any], name: str = "a.tif", then: Callable[[Any], None] | None = None, **profile: Any
    ) -> Path:
        path = tmp_path / name
        count, height, width = array.shape
        size = {"count": count, "height": height, "width": width, "dtype": array.dtype}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", driver="GTiff", **size, **profile) as dataset:
                dataset.write(array)
                if then:
                    then(dataset)
        return path

    return write


@pytest.fixture
def slide(tmp_path: Path) -> Callable[..., Path]:
    """Write (y, x, 3) levels as a lossless slide that OpenSlide opens as Aperio (or generic-tiff)."""

    def write(
        levels: list[NDArray[np.uint8]], name: str = "a.svs", aperio: bool = True, mpp: float | None = 0.5
    ) -> Path:
        planes = [np.moveaxis(level, -1, 0) for level in levels]
        return write_slide(tmp_path / name, planes, mpp=mpp, aperio=aperio)

    return write
