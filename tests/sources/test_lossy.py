"""Whether a TIFF is compressed with loss: what it says against what comes back from it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from tilepipe.sources.lossy import bytes_of, error_of_lerc, is_lossy

RANDOM = np.random.default_rng(0)
PIXELS = (np.add.outer(np.arange(128), np.arange(128)) // 2 + RANDOM.integers(0, 9, (128, 128))).astype(np.uint8)
PLACE = {"transform": from_origin(300000, 3000000, 1, 1), "SPARSE_OK": True}
WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "deflate": {"compress": "DEFLATE"},
    "lzw with a predictor": {"compress": "LZW", "predictor": 2},
    "jpeg": {"compress": "JPEG"},
    "webp": {"compress": "WEBP", "WEBP_LEVEL": 50},
    "webp without loss": {"compress": "WEBP", "WEBP_LOSSLESS": True},
    "lerc": {"compress": "LERC"},
    "lerc 0.9": {"compress": "LERC", "MAX_Z_ERROR": 0.9},
    "lerc 2": {"compress": "LERC", "MAX_Z_ERROR": 2},
    "lerc 2 in zlib": {"compress": "LERC_DEFLATE", "MAX_Z_ERROR": 2},
    "lerc 2 in zstd": {"compress": "LERC_ZSTD", "MAX_Z_ERROR": 2},
    "float lerc": {"compress": "LERC", "dtype": "float32"},
    "float lerc 0.4": {"compress": "LERC", "MAX_Z_ERROR": 0.4, "dtype": "float32"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_is_lossy_if_other_values_come_back(way: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", WAYS[way])
    with rasterio.open(path) as file:
        changed = bool((file.read(1) != written(WAYS[way])).any())
        assert is_lossy(file, partial(bytes_of, str(path))) == changed
    assert changed == (way in ("jpeg", "webp", "float lerc 0.4") or "2" in way.split()), "the case is what it says"


@pytest.mark.parametrize("way", ["lerc", "lerc 0.9", "lerc 2", "lerc 2 in zlib", "float lerc", "float lerc 0.4"])
def test_programs_that_do_not_state_the_error_of_lerc(way: str, tmp_path: Path) -> None:
    """The pieces say it themselves."""
    path = write(tmp_path / "a.tif", WAYS[way])
    path.write_bytes(path.read_bytes().replace(b"MAX_Z_ERROR", b"OTHER_THING"))
    with rasterio.open(path) as file:
        assert "MAX_Z_ERROR" not in file.tags(ns="IMAGE_STRUCTURE")
        assert is_lossy(file, partial(bytes_of, str(path))) == bool((file.read(1) != written(WAYS[way])).any())


def test_a_file_without_a_stored_piece_and_damaged_headers(tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 64, 64, 1, dtype="uint8", **PLACE, compress="LERC"):
        pass
    with rasterio.open(tmp_path / "a.tif") as file:
        assert not is_lossy(file, partial(bytes_of, str(tmp_path / "a.tif")))
    for piece in (b"", b"Lerc2 ", b"Lerc2 \4\0\0\0", b"Lerc1 " + bytes(200), b"Lerc2 \4\0\0\0" + bytes(30)):
        assert error_of_lerc(piece) == 0


def written(way: dict[str, Any]) -> np.ndarray:
    pixels = PIXELS.astype(way.get("dtype", "uint8"))
    return pixels + (PIXELS % 3) * pixels.dtype.type(0.123) if pixels.dtype.kind == "f" else pixels


def write(path: Path, way: dict[str, Any]) -> Path:
    pixels = written(way)
    bands = 3 if way.get("compress") == "WEBP" else 1
    profile = {"dtype": "uint8", "tiled": True, "blockxsize": 64, "blockysize": 64, **PLACE, **way}
    with rasterio.open(path, "w", driver="GTiff", height=128, width=128, count=bands, **profile) as file:
        file.write(np.repeat(pixels[None], bands, axis=0))
    return path
