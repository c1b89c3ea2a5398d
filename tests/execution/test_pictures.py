"""Pictures as products of a run and of an export: over the right part of the right image, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.cli_files import write_image
from helpers.small_runs import CODES, IMAGE, labels_of, segment
from PIL import Image
from rasterio import Affine

from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.execution.export import export
from tilepipe.sources.array import ArraySource
from tilepipe.testing import PLACE, write_geotiff


def test_a_run_writes_pictures(tmp_path: Path) -> None:
    result = segment(tmp_path / "out.tif", of=["cog", "png", "overlay"], window=(10, 20, 50, 40))
    assert [path.name for path in result.paths] == ["out.tif", "out.png", "out.overlay.png"]
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    zoom = 640 // 50
    found = picture[zoom // 2 : zoom * 40 : zoom, zoom // 2 : zoom * 50 : zoom]
    palette = np.array(result.labels.legend.palette)
    assert (found == palette[CODES[20:60, 10:60]]).all()
    assert labels_of(tmp_path / "out.tif").shape == (40, 50)


def test_an_exported_overlay_is_that_of_the_run(tmp_path: Path) -> None:
    segment(tmp_path / "out.tif", of=["cog", "overlay"], window=(10, 20, 50, 40))
    export(tmp_path / "out.tif", tmp_path / "again.overlay.png", image=IMAGE)
    ours, again = (np.asarray(Image.open(tmp_path / f"{name}.overlay.png")) for name in ("out", "again"))
    assert (ours == again).all()


def test_an_overlay_without_its_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segment(tmp_path / "out.tif")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match="only you can name: give it as `image`"):
        export(tmp_path / "out.tif", tmp_path / "x.overlay.png")
    assert main(["export", str(tmp_path / "out.tif"), str(tmp_path / "x.overlay.png")]) == 2
    assert "give it as --image" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_another_image_is_refused(tmp_path: Path) -> None:
    segment(tmp_path / "out.tif")
    with pytest.raises(UsageError, match="has 89 rows, and the labels are of rows 0 to 90"):
        export(tmp_path / "out.tif", tmp_path / "x.overlay.png", image=ArraySource(CODES[:89]))
    write_image(tmp_path / "a.tif")
    assert main(["segment", str(tmp_path / "a.tif"), "-m", "forest", "--force-resolution"]) == 0
    place = Affine(*PLACE) @ Affine.translation(2000, 0)
    moved = write_geotiff(tmp_path / "moved.tif", np.zeros((3, 150, 210), np.uint8), transform=place)
    with pytest.raises(UsageError, match="lies at x 301000"):
        export(tmp_path / "a.labels.tif", tmp_path / "x.overlay.png", image=moved)
    export(tmp_path / "a.labels.tif", tmp_path / "x.overlay.png", image=tmp_path / "a.tif")
    with pytest.raises(UsageError, match="would be written over"):
        export(tmp_path / "a.labels.tif", tmp_path / "a.tif", image=tmp_path / "a.tif", overwrite=True)
