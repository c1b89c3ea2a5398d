"""OME-Zarr is opened in napari itself, off the screen. napari is large, so it lies in an environment of its own.

python -m venv napari && napari/bin/pip install 'napari[pyqt6]' napari-ome-zarr pillow
TILEPIPE_NAPARI=napari/bin/python xvfb-run -a make test-long
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tilepipe.products.label_map import LabelMap, Legend, label_map_of
from tilepipe.products.ome_zarr import write_ome_zarr
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution

NAPARI = os.environ.get("TILEPIPE_NAPARI", "")
SCRIPT = Path(__file__).parent.parent / "helpers" / "in_napari.py"
LEGEND = Legend("cells", ("background", "nucleus", "gland"), ((30, 30, 30), (213, 94, 0), (0, 158, 115)), 255)

without = pytest.mark.skipif(not NAPARI, reason="TILEPIPE_NAPARI names no Python with napari")
pytestmark = [pytest.mark.long, without]


def labels() -> LabelMap:
    values = np.zeros((1500, 2000), np.uint8)
    values[200:800, 200:1200], values[1000:1400, 1300:1900], values[:100, 1500:] = 1, 2, 255
    return label_map_of(values, LEGEND, resolution=Resolution(0.5, 0.5, "um"))


def shown(path: Path) -> tuple[list[dict[str, Any]], set[tuple[int, ...]]]:
    """Return what napari says of its layers, and the colours of its picture."""
    display = [] if os.environ.get("DISPLAY") or not shutil.which("xvfb-run") else ["xvfb-run", "-a"]
    picture = path.with_suffix(".png")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [*display, NAPARI, str(SCRIPT), str(path), str(picture)]
    said = subprocess.run(command, env=plain, capture_output=True, text=True, check=True).stdout
    colors = np.asarray(Image.open(picture)).reshape(-1, 3)
    return json.loads(said.splitlines()[-1]), {tuple(map(int, color)) for color in np.unique(colors, axis=0)}


def test_labels_alone(tmp_path: Path) -> None:
    write_ome_zarr(labels(), tmp_path / "a.ome.zarr")
    (image, of_labels), colors = shown(tmp_path / "a.ome.zarr")
    assert (image["kind"], image["visible"], image["limits"]) == ("Image", True, [0, 2]), "it is not black"
    assert of_labels["kind"] == "Labels"
    assert of_labels["colors"] == {
        "0": [30, 30, 30, 0], "1": [213, 94, 0, 255], "2": [0, 158, 115, 255], "255": [0, 0, 0, 0],
    }  # fmt: skip
    assert of_labels["classes"] == ["background", "nucleus", "gland", "nodata"]
    assert of_labels["levels"] == image["levels"] == [[1500, 2000], [750, 1000]]
    assert set(LEGEND.palette[1:]) <= colors
    assert LEGEND.palette[0] not in colors, "the background hides nothing"


def test_the_image_beside_its_labels(tmp_path: Path) -> None:
    pixels = np.full((3, 1500, 2000), 80, np.uint8)
    pixels[0] = 240
    write_ome_zarr(labels(), tmp_path / "a.ome.zarr", ArraySource(pixels))
    (*bands, of_labels), colors = shown(tmp_path / "a.ome.zarr")
    assert [band["limits"] for band in bands] == [[0, 255]] * 3
    assert all(band["visible"] for band in bands)
    assert {tuple(map(tuple, layer["corners"])) for layer in (*bands, of_labels)} == {
        tuple(map(tuple, of_labels["corners"]))
    }, "all lie on one another"
    assert {(240, 80, 80), *LEGEND.palette[1:]} <= colors
