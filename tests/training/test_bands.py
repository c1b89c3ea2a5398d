"""Bands in training: the same rule as in prediction; against rasterio's own reading of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.small_training import discs
from training.conftest import Configure, Write

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.training.loop import fit
from tilepipe.training.scenes import IGNORE, Scene, open_scenes

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 255, (4, 40, 56), dtype=np.uint8)
WATER = np.s_[5:15, 10:30]
PIXELS[3][WATER] = 0  # near infrared is 0 over water
LABEL = RNG.integers(0, 2, (40, 56), dtype=np.uint8)
WHOLE = Box.of_shape(40, 56)


def scene_of(write: Write, configure: Configure, fourth: np.ndarray, **settings: Any) -> Scene:
    """Return the scene of RGB and a fourth band, written with rasterio's defaults, which flag it as alpha."""
    image = write("i.tif", np.concatenate([PIXELS[:3], fourth[None]]))
    with rasterio.open(image) as file:
        assert file.colorinterp[3].name == "alpha"
    config = configure(train=[{"image": str(image), "label": str(write("l.tif", LABEL))}], **settings)
    return open_scenes(config.train, config)[0]


def test_near_infrared_flagged_as_alpha_is_refused_with_what_to_write(write: Write, configure: Configure) -> None:
    with pytest.raises(InputError, match=r"band 4 is flagged as alpha .*`bands=\[1, 2, 3\], mask='none'`") as said:
        scene_of(write, configure, PIXELS[3])
    assert "--bands" not in str(said.value)  # no option of `tilepipe train`


@pytest.mark.parametrize(
    ("settings", "read", "ignored"),
    [
        ({"bands": [1, 2, 3, 4]}, [1, 2, 3, 4], False),
        ({"bands": [1, 2, 3], "mask": "none"}, [1, 2, 3], False),
        ({"bands": [1, 2, 3]}, [1, 2, 3], True),
        ({"bands": "B, G, R", "mask": "none"}, [3, 2, 1], False),
    ],
)
def test_what_the_configuration_says_is_read(
    write: Write, configure: Configure, settings: dict[str, Any], read: list[int], ignored: bool
) -> None:
    scene = scene_of(write, configure, PIXELS[3], **settings)
    with rasterio.open(scene.name) as file:
        np.testing.assert_array_equal(scene.image(WHOLE), file.read(read))
    wanted = LABEL.astype(int)
    if ignored:
        wanted[WATER] = IGNORE
    np.testing.assert_array_equal(scene.label(WHOLE), wanted)


def test_transparency_is_taken_for_it_and_said(write: Write, configure: Configure) -> None:
    opaque = np.where(RNG.random((40, 56)) < 0.8, 255, 0).astype(np.uint8)
    scene = scene_of(write, configure, opaque)
    np.testing.assert_array_equal(scene.image(WHOLE), PIXELS[:3])
    np.testing.assert_array_equal(scene.label(WHOLE), np.where(opaque > 0, LABEL.astype(int), IGNORE))
    assert any("band 4 (alpha) holds only 0 and 255" in note for note in scene.notes)


def test_bands_that_are_not_there_are_refused(write: Write, configure: Configure) -> None:
    with pytest.raises(UsageError, match="bands 1 to 4"):
        scene_of(write, configure, PIXELS[3], bands=[1, 5])
    with pytest.raises(UsageError, match="no band called 'swir'"):
        scene_of(write, configure, PIXELS[3], bands="swir")


@pytest.mark.long
def test_a_training_on_four_bands_gives_a_model_of_four(write: Write, small: Configure) -> None:
    image, label = discs()
    four = write("four.tif", np.concatenate([image, 255 - image[:1]]))
    entry = {"image": str(four), "label": str(write("four_label.tif", label))}
    made: Path = fit(small(train=[entry], score=[entry], bands=[1, 2, 3, 4], steps=2))
    assert json.loads((made / "model.json").read_text())["bands"] == 4
