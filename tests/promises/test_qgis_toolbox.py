"""The script for QGIS's Processing toolbox, run by QGIS: `qgis_process` runs what the toolbox runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

import tilepipe as tp
from tilepipe.scripts.install import install_in_qgis

PROCESS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
"""Program of QGIS; that of Debian's name passes an option on that its own program does not know."""
SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample" / "banepa_east_rgb.tif"
ROOT = Path(__file__).parents[2]
without = pytest.mark.skipif(PROCESS is None, reason="QGIS is not installed: apt-get install qgis")
pytestmark = [pytest.mark.long, without]


class Qgis:
    """A new profile of QGIS with the script, and a tilepipe that is the one under test."""

    def __init__(self, folder: Path) -> None:
        (folder / "profiles" / "default").mkdir(parents=True)
        install_in_qgis(folder / "profiles" / "default")
        self.image = folder / SAMPLE.name  # QGIS writes statistics beside an image
        shutil.copy(SAMPLE, self.image)
        self.program = folder / "tilepipe program"
        self.program.write_text(
            f"#!/bin/sh\nPYTHONPATH='{ROOT}' OMP_NUM_THREADS=1 exec '{sys.executable}' -m tilepipe \"$@\"\n"
        )
        self.program.chmod(0o755)
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.environment = {**plain, "QGIS_CUSTOM_CONFIG_PATH": str(folder), "QT_QPA_PLATFORM": "offscreen"}
        self._ask("plugins", "enable", "processing")

    def run(self, **parameters: object) -> str:
        """Return what QGIS prints while the tool works."""
        given = {"INPUT": self.image, "MODEL": "buildings", "PROGRAM": self.program, **parameters}
        return self._ask("run", "script:tilepipe_segment", *(f"--{name}={value}" for name, value in given.items()))

    def _ask(self, *words: str) -> str:
        said = subprocess.run([str(PROCESS), *words], env=self.environment, capture_output=True, text=True, check=False)
        return said.stdout + said.stderr


@pytest.fixture(scope="module")
def qgis(tmp_path_factory: pytest.TempPathFactory) -> Qgis:
    return Qgis(tmp_path_factory.mktemp("qgis"))


def test_the_toolbox_writes_the_labels_of_the_command_line(qgis: Qgis, tmp_path: Path) -> None:
    output = tmp_path / "roofs of $(touch oops) & 'all'.tif"
    with rasterio.open(SAMPLE) as file:
        left, top = file.transform * (200, 200)
        right, bottom = file.transform * (500, 400)
        crs = file.crs.to_string()
    said = qgis.run(OUTPUT=output, EXTENT=f"{left},{right},{bottom},{top} [{crs}]", MIN_AREA=5)
    assert output.exists(), said
    assert output.with_suffix(".gpkg").exists()
    assert "OUTPUT_POLYGONS" in said
    labels = np.asarray(tp.open_labels(output))
    np.testing.assert_array_equal(labels, tp.predict(SAMPLE, "buildings", tp.Box(200, 200, 400, 500)))


def test_what_tilepipe_says_is_shown(qgis: Qgis, tmp_path: Path) -> None:
    said = qgis.run(OUTPUT=tmp_path / "a.tif", MODEL="builings")
    assert "builings" in said
    assert "buildings" in said, "the nearest name is offered"
    assert not (tmp_path / "a.tif").exists()
    assert "ends in .tif" in qgis.run(OUTPUT=tmp_path / "a.png")
    assert "cannot be started" in qgis.run(OUTPUT=tmp_path / "a.tif", PROGRAM=tmp_path / "nothing")
