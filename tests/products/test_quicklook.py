"""The picture of an image beside its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.quicklook import GAP, ROW, write_beside
from tilepipe.sources.array import ArraySource


def make(values: NDArray[Any]) -> LabelMap:
    legend = Legend("halves", ("left", "right"), ((10, 20, 30), (200, 100, 0)), 255)
    return LabelMap(
        shape=(values.shape[0], values.shape[1]),
        dtype=values.dtype,
        legend=legend,
        read=lambda box: values[box.slices_in(Box.of_shape(*values.shape))],
        block=(64, 64),
    )


def test_the_region_and_its_labels_stand_side_by_side(tmp_path: Path) -> None:
    pixels = np.zeros((3, 300, 400), np.uint8)
    pixels[0, 100:200] = 250
    values = np.zeros((100, 200), np.uint8)
    values[:, 100:] = 1
    values[:10] = 255
    write_beside(ArraySource(pixels), Box(100, 100, 200, 300), make(values), tmp_path / "p.png")
    page = np.asarray(Image.open(tmp_path / "p.png"))
    assert page.shape == (100 + ROW, 2 * 200 + GAP, 3)
    assert (page[:100, :200] == (250, 0, 0)).all()
    labels = page[:100, 200 + GAP :]
    assert (labels[:10] == 255).all()
    assert (labels[10:, :100] == (10, 20, 30)).all()
    assert (labels[10:, 100:] == (200, 100, 0)).all()
    assert (page[100:] != 255).any()


def test_large_regions_are_shrunk_and_other_types_stretched(tmp_path: Path) -> None:
    pixels = np.linspace(0, 60000, 900 * 1200, dtype=np.float32).reshape(1, 900, 1200)
    values = np.zeros((900, 1200), np.uint8)
    write_beside(ArraySource(pixels), Box.of_shape(900, 1200), make(values), tmp_path / "p.png", 300)
    page = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    assert page.shape == (225 + ROW, 2 * 300 + GAP, 3)
    assert page[0, 0, 0] == 0
    assert page[224, 299, 0] == 255
    assert (np.diff(page[:225, 150, 1]) >= 0).all()
