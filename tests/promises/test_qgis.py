"""Products are opened in QGIS itself: position, legend and colours. QGIS has a Python of its own, the system's."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rasterio.crs import CRS

from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.polygons import write_geojson
from tilepipe.products.vector_files import write_vectors
from tilepipe.sources.base import Georeference, Resolution

SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).parent.parent / "helpers" / "in_qgis.py"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
COLORS = ((30, 30, 30), (213, 94, 0), (0, 158, 115))
LEGEND = Legend("cover", ("background", "roof <flat>", "wood & scrub"), COLORS, 255)
PLACE = Georeference(CRS.from_epsg(32645).to_wkt(), (0.3, 0.0, 300000.0, 0.0, -0.3, 3000000.0))
POINTS = {(50, 60): 1, (140, 200): 2, (90, 20): 0, (10, 250): None}
"""Class of some pixels (y, x) of a picture; None is nodata."""


def has_qgis() -> bool:
    try:
        asked = [SYSTEM_PYTHON, "-c", "import qgis.core"]
        return subprocess.run(asked, env=ENVIRONMENT, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the pictures, and what QGIS says of each file."""
    if not has_qgis():
        pytest.skip("QGIS is not installed: apt-get install qgis python3-qgis")
    folder, pictures = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("pictures")
    labels = np.zeros((200, 300), np.uint8)
    labels[20:80, 20:120], labels[100:180, 150:280], labels[:20, 200:] = 1, 2, 255
    found = label_map_of(labels, LEGEND, georeference=PLACE, resolution=Resolution(0.3, 0.3))
    write_cog(found, folder / "in.labels.tif")
    for name in ("in.labels.gpkg", "in.labels.fgb", "other.shp.zip"):
        write_vectors(found, folder / name)
    write_geojson(found, folder / "in.labels.geojson")
    wide = label_map_of(labels.astype(np.uint16), LEGEND, georeference=PLACE)
    write_cog(wide, folder / "wide.tif")
    files = [folder / name for name in ("in.labels.tif", "wide.tif", "in.labels.gpkg", "in.labels.fgb")]
    files += [folder / "other.shp.zip", folder / "in.labels.geojson"]
    command = [SYSTEM_PYTHON, str(SCRIPT), str(pictures), *map(str, files)]
    said = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    return pictures, json.loads(said)


def test_the_legend_has_the_classes_and_nothing_else(shown: tuple[Path, dict[str, Any]]) -> None:
    for name, found in shown[1].items():
        entries = [entry for entry in found["legend"] if not entry.startswith("Band 1")]
        assert entries == list(LEGEND.classes if name.endswith(".tif") else LEGEND.classes[1:]), name


def test_all_lie_at_their_place(shown: tuple[Path, dict[str, Any]]) -> None:
    for name, found in shown[1].items():
        assert found["crs"] == ("EPSG:4326" if name.endswith(".geojson") else "EPSG:32645"), name
    assert shown[1]["in.labels.tif"]["extent"] == pytest.approx([300000, 2999940, 300090, 3000000])


def test_places_have_the_colour_of_their_class(shown: tuple[Path, dict[str, Any]]) -> None:
    """Polygons in longitude and latitude fill their own frame, so only the others are compared place by place."""
    for name in shown[1]:
        picture = np.asarray(Image.open(shown[0] / f"{name}.png").convert("RGB"))
        if name.endswith(".geojson"):
            assert {tuple(color) for color in picture.reshape(-1, 3)} >= set(COLORS[1:])
            continue
        for (y, x), value in POINTS.items():
            empty = value is None or (value == 0 and not name.endswith(".tif"))
            assert tuple(picture[y, x]) == ((255, 255, 255) if empty else COLORS[value or 0]), (name, y, x)
