"""An array is the image that it holds: the same labels at the same place as from a raster of the same pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import torch
import xarray
import zarr
from rasterio import Affine

import tilepipe as tp

SIDE = 96
TRANSFORM = Affine(0.5, 0, 300000, 0, -0.5, 3000000)
IMAGE = np.random.default_rng(5).integers(0, 200, (3, SIDE, SIDE)).astype(np.uint8)


def model() -> tp.Model:
    """Return a model whose class 1 is where the mean of the bands is above 100.5."""
    module = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        module.weight.zero_()
        module.weight[1] = 1 / 3
        module.bias.copy_(torch.tensor([0, -100.5]))
    return tp.Model.from_torch(module, tp.ModelCard(bands=3, classes=["dark", "bright"]))


def located() -> xarray.DataArray:
    centres = (np.arange(SIDE) + 0.5) * 0.5
    places = {"y": 3000000 - centres, "x": 300000 + centres}
    return xarray.DataArray(IMAGE, places, ("band", "y", "x"), attrs={"crs": "EPSG:32645"}).transpose("x", "y", "band")


def test_a_data_array_gives_what_its_raster_gives(tmp_path: Path) -> None:
    kind: dict[str, Any] = {"driver": "GTiff", "count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32645", transform=TRANSFORM, **kind) as file:
        file.write(IMAGE)
    settings: Any = {"tile": 32, "window": (10, 20, 80, 60)}
    tp.segment(tmp_path / "a.tif", model(), tmp_path / "file.tif", **settings)
    for name, image in {"given": located(), "lazy": located().chunk(x=20)}.items():
        assert tp.plan(image, model(), **settings).shape == tp.plan(tmp_path / "a.tif", model(), **settings).shape
        tp.segment(image, model(), tmp_path / f"{name}.tif", **settings)
        with rasterio.open(tmp_path / "file.tif") as wanted, rasterio.open(tmp_path / f"{name}.tif") as found:
            np.testing.assert_array_equal(found.read(), wanted.read())
            assert (found.crs, found.transform) == (wanted.crs, wanted.transform)
    assert tp.verify(tmp_path / "given.tif", image=located(), model=model()).holds


@pytest.mark.parametrize(
    "image",
    [
        IMAGE.astype(np.float64),
        IMAGE.astype(np.float16),
        IMAGE.astype(np.int64),
        IMAGE.astype(">u4"),
        torch.from_numpy(IMAGE),
        zarr.array(IMAGE, chunks=(1, 40, 40)),
        da.from_array(IMAGE.astype(np.float64), chunks=(1, 50, 7)),
    ],
    ids=lambda image: f"{type(image).__name__} {image.dtype}",
)
def test_values_decide_and_not_what_holds_them(image: Any) -> None:
    np.testing.assert_array_equal(tp.predict(image, model()), IMAGE.astype(int).sum(0) > 301)
