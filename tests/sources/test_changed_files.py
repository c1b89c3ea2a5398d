"""A file that is made anew while a source of it is open: its old pixels are not given as those of the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

import tilepipe as tp
from tilepipe.errors import ChangedError, InputError
from tilepipe.testing import codes_model, write_geotiff, write_slide

WHOLE = tp.Box(0, 0, 64, 96)
CUT: dict[str, Any] = {"tile": 64, "overlap": 8, "block": 64}


def write(path: Path, value: int) -> Path:
    pixels = np.full((3, 64, 96), value, np.uint8)
    if path.name == "slide.svs":
        return write_slide(path, [pixels])
    if path.name.endswith(".ome.tif"):
        tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "CYX"})
    elif path.suffix == ".tif":
        write_geotiff(path, pixels, tiled=path.name == "tiles.tif")
    else:
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    return path


@pytest.mark.parametrize("name", ["tiles.tif", "strips.tif", "planes.ome.tif", "picture.png", "slide.svs"])
def test_old_pixels_are_not_taken_for_those_of_the_file(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, 7)
    source = tp.open_source(path)
    before = source.read(WHOLE)
    write(path, 200)
    with pytest.raises(ChangedError, match=f"{name} changed while it was open; start again, or open it again"):
        source.read(WHOLE)
    assert (tp.open_source(path).read(WHOLE) != before).all()


def test_nor_are_labels_made_of_them(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", np.ones((1, 64, 96), np.uint8))
    source = tp.open_source(path)
    assert (tp.predict(source, codes_model(4)) == 1).all()
    write_geotiff(path, np.full((1, 64, 96), 2, np.uint8))
    with pytest.raises(ChangedError, match="changed while it was open"):
        tp.predict(source, codes_model(4))
    with pytest.raises(ChangedError, match="changed while it was open"):
        tp.segment(source, codes_model(4), tmp_path / "out.tif")
    assert (tp.predict(path, codes_model(4)) == 2).all()


def test_a_file_that_is_only_touched_has_the_pixels_it_had(tmp_path: Path) -> None:
    """A run hashes its image first; without a hash nobody knows what the file held."""
    path = write(tmp_path / "tiles.tif", 7)
    source = tp.open_source(path)
    source.identity()
    os.utime(path, (1, 1))
    assert (source.read(WHOLE) == 7).all()
    write(path, 8)
    with pytest.raises(ChangedError):
        source.read(WHOLE)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_run_ends_at_once_and_no_tile_counts_as_damaged(workers: int, tmp_path: Path) -> None:
    zeros, done = np.zeros((1, 640, 640), np.uint8), []
    path, output = write_geotiff(tmp_path / "tiles.tif", zeros), tmp_path / "out.tif"

    def change(event: tp.Event) -> None:
        if event.stage == "predict" and event.done:
            if not done:
                write_geotiff(path, zeros + 1)
            done.append(event.done)

    with pytest.raises(tp.TilepipeError, match="was changed while the run read it"):
        tp.segment(path, codes_model(4), output, **CUT, workers=workers, listener=change)
    assert max(done) < 50  # of 100 blocks
    assert not output.exists()
    assert not any((tmp_path / ".out.tif.tilepipe").iterdir())
    assert (np.asarray(tp.segment(path, codes_model(4), output, **CUT).labels) == 1).all()


@pytest.mark.parametrize("how", ["made anew", "gone"])
def test_so_does_a_run_on_a_mosaic_of_which_one_file_changes(how: str, tmp_path: Path) -> None:
    folder, done = tmp_path / "tiles", []
    folder.mkdir()
    for k in (0, 1):
        place = rasterio.Affine(0.5, 0, 300000 + 160 * k, 0, -0.5, 5200000)
        write_geotiff(folder / f"{k}.tif", np.zeros((1, 320, 320), np.uint8), transform=place)

    def change(event: tp.Event) -> None:
        if event.stage == "predict" and event.done:
            done.append(event.done)
            if how == "gone" and len(done) == 1:
                (folder / "1.tif").unlink()
            elif len(done) == 1:
                write_geotiff(folder / "1.tif", np.ones((1, 320, 320), np.uint8), transform=place)

    with pytest.raises(InputError, match="was changed while the run read it"):
        tp.segment(folder, codes_model(4), tmp_path / "out.tif", **CUT, listener=change)
    assert max(done) < 40  # of 50 blocks
    assert not any((tmp_path / ".out.tif.tilepipe").iterdir())
