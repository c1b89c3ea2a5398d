from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio
from helpers.small_training import SMALL, discs
from numpy.typing import NDArray

from tilepipe.training.config import TrainConfig

Write = Callable[..., Path]
Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the drawing of curves, which takes longer than the few steps of a test, but where curves are tested."""
    if request.path.stem not in ("test_log", "test_curves"):
        monkeypatch.setattr("tilepipe.training.log.picture", lambda *_: b"a picture")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an array (bands, y, x) as TIFF or PNG; keywords as in rasterio.open."""

    def _write(name: str, array: NDArray[Any], **profile: Any) -> Path:
        array = array if array.ndim == 3 else array[None]
        count, height, width = array.shape
        driver = "PNG" if name.endswith(".png") else "GTiff"
        place = (
            {} if driver == "PNG" else {"crs": "EPSG:32631", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
        )
        fields = place | {"driver": driver, "dtype": array.dtype, "count": count, "height": height, "width": width}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(tmp_path / name, "w", **{**fields, **profile}) as file:
                file.write(array)
        for sidecar in tmp_path.glob("*.aux.xml"):
            sidecar.unlink()
        return tmp_path / name

    return _write


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Return a configuration of two classes with the given changes; `train` entries as dicts."""

    def _configure(**changes: Any) -> TrainConfig:
        fields = {"name": "m", "output": str(tmp_path / "m.model"), "classes": ("a", "b"), **changes}
        return TrainConfig(**fields)

    return _configure


@pytest.fixture
def small(write: Write, configure: Configure) -> Configure:
    """Return a configuration that trains a tiny U-Net on one image and scores another; a third one is there too."""
    entries = []
    for seed in (0, 1, 2):
        image, label = discs(seed=seed)
        entries.append({"image": str(write(f"{seed}.tif", image)), "label": str(write(f"{seed}_label.tif", label))})

    def _small(**changes: Any) -> TrainConfig:
        return configure(**{**SMALL, "train": entries[:1], "score": entries[1:2], **changes})

    return _small
