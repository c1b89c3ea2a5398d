from __future__ import annotations

import io
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from tilepipe.train.curves import AXIS, HEIGHT, LEFT, RIGHT, WIDTH, Line, Panel, _legible, picture, ticks


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def like(image: np.ndarray, color: str) -> np.ndarray:
    """Return (y, x) of the pixels of about a colour."""
    return np.argwhere(np.abs(image - ImageColor.getrgb(color)).max(-1) < 30)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 9))
def test_ticks_are_few_round_and_inside(low: float, size: float, most: int) -> None:
    high = low + size
    found = ticks(low, high, most)
    slack = 1e-6 * size + 1e-9 * abs(low)
    assert len(found) <= most
    assert all(low - slack <= value <= high + slack for value in found)
    step = 10 ** (math.log10((high - low) / (most - 1)) % 1)
    assert len(found) >= 2 or step > 1  # a range always holds some, unless it lies between two round values


def test_a_curve_lies_where_its_values_are() -> None:
    falling = Line("loss", "#ff0000", [(0, 1.0), (50, 0.5), (100, 0.0)])
    image = pixels(picture([Panel("loss", [falling], (0.0, 1.0))], "step"))
    assert image.shape == (HEIGHT + AXIS, WIDTH, 3)
    found = like(image, "#ff0000")
    found = found[found[:, 1] < WIDTH - RIGHT]  # without the legend
    slope = np.polyfit(found[:, 1], found[:, 0], 1)[0]
    assert found[:, 1].min() - LEFT < 4
    assert WIDTH - RIGHT - found[:, 1].max() < 4
    assert abs(np.corrcoef(found.T)[0, 1]) > 0.999
    assert slope > 0  # rows go down as values fall


def test_what_is_no_number_is_left_out_and_nothing_is_a_picture_too() -> None:
    gap = Line("iou", "#ff0000", [(0, math.nan), (1, 0.5), (2, math.inf)], mark=(1, 0.5))
    assert len(like(pixels(picture([Panel("iou", [gap], (0.0, 1.0))], "step")), "#ff0000")) > 20
    assert pixels(picture([Panel("loss", [Line("loss", "#ff0000", [])])], "step")).shape[1] == WIDTH


def test_light_colours_are_darkened_and_dark_ones_are_not() -> None:
    assert _legible("#0072b2") == "#0072b2"
    for color in ("#ffffff", "#f0e442", "#d9d9d9"):
        assert np.dot(ImageColor.getrgb(_legible(color))[:3], (0.299, 0.587, 0.114)) <= 191
