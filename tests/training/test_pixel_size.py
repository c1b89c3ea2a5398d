"""The pixel size on the card of a trained model: that of its images where they agree, else none, which is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.small_training import SMALL, discs
from rasterio.transform import from_origin

import tilepipe as tp
from tilepipe.errors import InputError
from tilepipe.events import Event
from tilepipe.models.card import ModelCard
from tilepipe.sources.array import ArraySource
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.loop import fit


def scene(folder: Path, name: str, size: float | tuple[float, float] | None, seed: int = 0) -> dict[str, str]:
    image, label = discs(seed=seed)
    across, down = size if isinstance(size, tuple) else (size, size)
    where: dict[str, Any] = {}
    if across and down:
        where = {"crs": "EPSG:32645", "transform": from_origin(500000, 3000000, across, down)}
    for suffix, pixels in (("image", image), ("label", label[None])):
        with rasterio.open(folder / f"{name}.{suffix}.tif", "w", driver="GTiff", count=len(pixels), height=64, width=64,
                           dtype="uint8", **where) as file:  # fmt: skip
            file.write(pixels)
    return {"image": str(folder / f"{name}.image.tif"), "label": str(folder / f"{name}.label.tif")}


def config(folder: Path, *sizes: Any, **more: Any) -> TrainConfig:
    train = [scene(folder, f"s{k}", size, k) for k, size in enumerate(sizes)]
    return TrainConfig(name="m", output=str(folder / "m.model"), classes=["a", "b"], train=train, **{**SMALL, **more})


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("sizes", "more", "found", "words"),
    [
        ((0.5, 0.51), {}, 0.505, ""),
        ((0.5, 2.0), {"resolution": 1.0}, 1.0, ""),
        ((0.5, 0.9), {}, None, "go from 0.5002 to 0.9004 m; give resolution in m"),
        (((0.5, 1.0),), {}, None, "go from 0.5002 to 1"),  # pixels that are not square
        ((0.5, None), {}, None, "states no pixel size, as .*s1.image.tif has none in m"),
        ((0.5,), {"unit": "um"}, None, "has none in um"),
    ],
)
def test_the_card_has_the_pixel_size_of_the_images(
    tmp_path: Path, sizes: tuple[Any, ...], more: dict[str, Any], found: float | None, words: str
) -> None:
    size, said = Dataset(config(tmp_path, *sizes, **more)).pixel_size
    assert size == (None if found is None else pytest.approx(found, rel=2e-3))
    assert re.search(words, said)
    assert bool(said) == (found is None)


def test_images_whose_objects_have_different_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"s1.image.tif has pixels of 5\.\d+ m and .*s0.image.tif of 0\.5\d*, 10 times as small"
    ):
        fit(config(tmp_path, 0.5, 5.0))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_trained_model_knows_its_pixel_size_or_training_says_that_it_does_not(tmp_path: Path) -> None:
    events: list[Event] = []
    trained = fit(config(tmp_path, 0.5, steps=2), events.append)
    assert ModelCard.load(trained / "model.json").resolution == pytest.approx(0.5, rel=2e-3)
    assert not any("pixel size" in event.message for event in events)
    far = ArraySource(np.full((3, 64, 64), 90, np.uint8), resolution=5.0, name="far")
    with pytest.raises(InputError, match="pixels 10 times as large"):
        tp.predict(far, trained)
    other = tmp_path / "other"
    other.mkdir()
    trained = fit(config(other, None, steps=2), events.append)
    assert ModelCard.load(trained / "model.json").resolution is None
    assert any("the model's card states no pixel size" in event.message for event in events)
