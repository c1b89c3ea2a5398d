"""Label maps of any program, judged by their lines alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.evaluation.metrics.seams import ChangeCounter, seam_excess
from tilepipe.evaluation.verify.comb import Lines, comb_test, open_lines
from tilepipe.evaluation.verify.verify import verify

SIZE, STEP = 1100, 64


def blobs(seed: int = 0) -> np.ndarray:
    """A label map with edges everywhere and no grid."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE)))
    y, x = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)
    return (np.fft.irfft2(spectrum * np.exp(-((y**2 + x**2) * 400)), (SIZE, SIZE)) > 0).astype(np.uint8)


def with_seams(labels: np.ndarray) -> np.ndarray:
    """Every tile a few pixels off, as a model without context would do it."""
    planted = labels.copy()
    for y in range(0, SIZE, STEP):
        for x in range(0, SIZE, STEP):
            planted[y : y + STEP, x : x + STEP] = np.roll(labels, ((y + x) // STEP % 3, 2), (0, 1))[
                y : y + STEP, x : x + STEP
            ]
    return planted


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_planted_seams_are_found_and_clean_maps_pass(suffix: str, tmp_path: Path) -> None:
    for name, labels in (("clean", blobs()), ("seams", with_seams(blobs()))):
        path = tmp_path / (name + suffix)
        if suffix == ".tif":
            tifffile.imwrite(path, labels)
        else:
            Image.fromarray(labels).save(path)
        found = verify(path, tile=STEP)
        assert found.holds is (name == "clean"), str(found)
        assert found.certificate is None


def test_blocks_give_the_whole_maps_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = with_seams(blobs(3)).astype(np.int32)
    labels[200:300, 500:900] = -1
    lines = Lines(labels.shape, lambda box: labels[box.slices_in(Box.of_shape(SIZE, SIZE))])
    counter = ChangeCounter(SIZE, SIZE, -1)
    counter.add(labels)
    monkeypatch.setattr(sys.modules["tilepipe.evaluation.verify.comb"], "SIDE", 333)
    assert comb_test(lines, STEP, STEP, None) == seam_excess(counter, STEP, STEP, None)


def test_a_region_begins_on_the_grid_of_the_image() -> None:
    labels = with_seams(blobs(1)).astype(np.int32)
    part = labels[30:, 50:]
    lines = Lines(part.shape, lambda box: part[box.slices_in(Box.of_shape(*part.shape))])
    assert comb_test(lines, STEP, STEP, None, (-30 % STEP, -50 % STEP)).found
    assert not comb_test(lines, STEP, STEP, None).found


def test_pictures_of_colours_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "rgb.png")
    with pytest.raises(tp.TilepipeError, match="3 bands of uint8; a label map has one"):
        open_lines(tmp_path / "rgb.png")
    with pytest.raises(tp.TilepipeError, match="does not exist"):
        open_lines(tmp_path / "none.png")
