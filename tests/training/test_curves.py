from __future__ import annotations

import builtins
import io
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from tilepipe.training.curves import DPI, HEIGHT, WIDTH, Line, Panel, _legible, figure, missing, picture

FALLING = Line("loss", "#ff0000", [(0, 1.0), (50, 0.5), (100, 0.0)])


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def red(image: np.ndarray) -> np.ndarray:
    """Return (y, x) of the pixels that are about red."""
    return np.argwhere(np.abs(image - (255, 0, 0)).max(-1) < 30)


def test_a_curve_lies_where_its_values_are() -> None:
    axes = figure([Panel("loss", [FALLING], (0.0, 1.0))], "step").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[0, 1], [50, 0.5], [100, 0]]
    assert (axes.get_xlim(), axes.get_ylim(), axes.get_xlabel()) == ((0, 100), (0, 1), "step")
    image = pixels(picture([Panel("loss", [FALLING], (0.0, 1.0))], "step"))
    assert image.shape == (round(HEIGHT * DPI), round(WIDTH * DPI), 3)
    found = red(image)
    found = found[found[:, 1] < 0.75 * image.shape[1]]  # without the legend
    assert np.corrcoef(found.T)[0, 1] > 0.99  # rows go down as values fall


def test_what_is_no_number_is_left_out_and_nothing_is_a_picture_too() -> None:
    gap = Line("iou", "#ff0000", [(0, math.nan), (1, 0.5), (2, math.inf)], mark=(1, 0.5))
    page = figure([Panel("iou", [gap], (0.0, 1.0))], "step")
    assert page.axes[0].lines[0].get_xydata().tolist() == [[1, 0.5]]
    assert [text.get_text() for text in page.axes[0].texts] == ["best 0.500 at 1"]
    assert len(red(pixels(picture([Panel("iou", [gap], (0.0, 1.0))], "step")))) > 10
    assert pixels(picture([Panel("loss", [Line("loss", "#ff0000", [])])], "step")).shape[1] == round(WIDTH * DPI)


@pytest.mark.parametrize("name", ["_hidden", "$\\nonsense{", "a, b"])
def test_every_name_stands_beside_its_curve_as_it_is(name: str) -> None:
    panel = Panel("iou", [Line(name, "#0072b2", [(0, 0.25), (1, 0.5)])])
    legend = figure([panel], "step").axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [f"0.5  {name}"]
    assert picture([panel], "step") == picture([panel], "step")


def test_a_matplotlibrc_changes_no_byte() -> None:
    import matplotlib

    before = picture([Panel("loss", [FALLING])], "step")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "savefig.transparent": True}):
        assert picture([Panel("loss", [FALLING])], "step") == before


def test_light_colours_are_darkened_and_dark_ones_are_not() -> None:
    assert _legible("#0072b2") == "#0072b2"
    for color in ("#ffffff", "#f0e442", "#d9d9d9"):
        assert np.dot(to_rgb(_legible(color)), (0.299, 0.587, 0.114)) <= 0.75


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing() == ""
    real = builtins.__import__

    def fail(name: str, *rest: Any) -> Any:
        if name == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    assert missing() == "curves.png is not drawn: matplotlib is not installed; run: pip install 'tilepipe[report]'"
