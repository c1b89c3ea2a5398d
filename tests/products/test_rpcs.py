"""Rational polynomial coefficients are kept in products, moved with the region and the size of pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.testing import constant_model

NONE = [0.0] * 19
COEFFICIENTS: dict[str, Any] = {
    "height_off": 0, "height_scale": 1, "lat_off": 27, "lat_scale": 0.1, "long_off": 85, "long_scale": 0.1,
    "line_off": 60, "line_scale": 60, "samp_off": 80, "samp_scale": 80, "err_bias": 0, "err_rand": 0,
    "line_den_coeff": [1.0, *NONE], "line_num_coeff": [0.0, 0.0, -1.0, *NONE[2:]],
    "samp_den_coeff": [1.0, *NONE], "samp_num_coeff": [0.0, 1.0, *NONE[1:]],
}  # fmt: skip
CENTRES = [(85.0, 27.0), (85.03, 27.05), (84.97, 26.96)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "rpc.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", width=160, height=120, count=1, dtype="uint8") as file:
            file.write(np.zeros((1, 120, 160), np.uint8))
            file.rpcs = RPC(**COEFFICIENTS)
    return path


def pixels(path: Path) -> np.ndarray:
    """Return the (row, column) corners-based positions that GDAL's own transformer gives for places on the earth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            assert file.rpcs is not None
            with RPCTransformer(file.rpcs) as there:
                xs, ys = zip(*CENTRES, strict=True)
                return np.array(there.rowcol(xs, ys, op=float)).T


def test_a_product_keeps_them_and_so_does_an_export(image: Path, tmp_path: Path) -> None:
    first = tp.segment(image, constant_model(0.3, 0.7), tmp_path / "out.tif").paths[0]
    np.testing.assert_allclose(pixels(first), pixels(image), atol=1e-6)
    from tilepipe.execution.export import export

    again = export(first, tmp_path / "again.tif")[0]
    np.testing.assert_allclose(pixels(again), pixels(image), atol=1e-6)


def test_a_region_moves_them(image: Path, tmp_path: Path) -> None:
    out = tp.segment(image, constant_model(0.3, 0.7), tmp_path / "out.tif", region=Box(20, 30, 100, 150)).paths[0]
    np.testing.assert_allclose(pixels(out), pixels(image) - (20, 30), atol=1e-6)


def test_coarser_pixels_scale_them() -> None:
    from tilepipe.sources.georeference import moved_rpcs

    known = tuple((name, value) for name, value in RPC(**COEFFICIENTS).to_gdal().items())
    moved = dict(moved_rpcs(known, (20.0, 30.0), (4.0, 2.0)))
    assert float(moved["LINE_OFF"]) == (60 + 0.5 - 20) / 4 - 0.5
    assert float(moved["SAMP_OFF"]) == (80 + 0.5 - 30) / 2 - 0.5
    assert (float(moved["LINE_SCALE"]), float(moved["SAMP_SCALE"])) == (15.0, 40.0)
    assert moved_rpcs((), (0.0, 0.0), (1.0, 1.0)) == ()
