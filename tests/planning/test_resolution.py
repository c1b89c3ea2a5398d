"""Which images fit a model, and on which grids they are predicted and kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.planned import card, file_image, plan_for

from tilepipe.errors import InputError, UsageError
from tilepipe.planning.resolution import Grids, grids_of
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution


@pytest.mark.parametrize("wanted", [-1, 0, "nan", "inf", "fine"])
def test_a_resolution_that_is_none(wanted: Any) -> None:
    with pytest.raises(UsageError, match="give full, model or a pixel size above 0"):
        plan_for(file_image(50, 50, 1.0), resolution=wanted)


def test_wrong_bands_and_wrong_dtype_name_both() -> None:
    with pytest.raises(InputError, match=r"scene\.tif has 3 bands and model model reads 4"):
        plan_for(file_image(9, 9), {"bands": 4})
    with pytest.raises(
        InputError, match=r"scene\.tif holds uint16 and model model was trained on uint8; .*gdal_translate -ot Byte"
    ):
        plan_for(file_image(9, 9, dtype="uint16"), {"dtype": "uint8"})
    assert plan_for(file_image(9, 9, dtype="uint16")).dtype == "uint16", "a card without a dtype takes any"


def test_an_unknown_pixel_size_and_another_unit_are_refused() -> None:
    with pytest.raises(InputError, match=r"scene\.tif does not say its pixel size .* 0\.5 m/px; .*`pixel_size`, in m"):
        plan_for(file_image(50, 50), {"resolution": 0.5})
    slide = file_image(50, 50, Resolution(0.25, 0.25, "um"))
    with pytest.raises(InputError, match=r"0\.25 x 0\.25 um/px and model model works at 0\.5 m/px"):
        plan_for(slide, {"resolution": 0.5})
    assert plan_for(slide, {"resolution": 0.5}, pixel_size=0.25).predicted == (25, 25), "the user knows better"


def test_an_array_without_a_resolution_is_taken_as_it_is() -> None:
    image = ArraySource(np.zeros((3, 50, 60), np.uint8))
    assert plan_for(image, {"resolution": 0.5}).predicted == (50, 60)
    assert grids_of(image, card(resolution=0.5), Request()).resolution == Resolution(0.5, 0.5, "m")


@pytest.mark.parametrize(("size", "predicted"), [(0.48, (200, 300)), (0.525, (200, 300)), (0.47, (188, 282))])
def test_within_5_percent_the_own_pixels_are_used(size: float, predicted: tuple[int, int]) -> None:
    assert plan_for(file_image(200, 300, size), {"resolution": 0.5}).predicted == predicted


def test_each_axis_has_its_own_scale() -> None:
    image = file_image(200, 300, Resolution(0.25, 1.0, "m"))
    assert plan_for(image, {"resolution": 0.5}).predicted == (100, 600)


class Pyramid(ArraySource):
    """An image with one smaller level of its own."""

    level = ArraySource(np.zeros((3, 51, 74), np.uint8))

    def coarser(self, height: int, width: int) -> ArraySource:
        return self.level if height <= 51 and width <= 74 else self


def test_a_level_of_the_pyramid_within_5_percent_is_used() -> None:
    image = Pyramid(np.zeros((3, 203, 297), np.uint8), resolution=0.25, name="scene.tif")
    assert plan_for(image, {"resolution": 1.0}).predicted == (51, 74)
    assert plan_for(image, {"resolution": 0.97}).predicted == (51, 74)
    assert plan_for(image, {"resolution": 0.9}).predicted == (56, 83)


def test_output_grids() -> None:
    image = file_image(400, 200, Resolution(0.25, 0.5, "m"))

    def output(wanted: Any) -> tuple[int, int]:
        return grids_of(image, card(resolution=1.0), Request.of({"resolution": wanted})).output

    assert output("full") == (400, 200)
    assert output("model") == (100, 100)
    assert output("1") == (100, 100)
    assert output(1e9) == (1, 1)
    with pytest.raises(UsageError, match="asks for a pixel size but the image has none"):
        grids_of(file_image(400, 200), card(), Request(resolution=2.0))


def test_grids_of_an_image_under_a_model_that_takes_any_pixels() -> None:
    assert grids_of(file_image(400, 200), card(), Request()) == Grids((400, 200), (400, 200), (400, 200))
