"""Tissue: against masks drawn by hand on real pictures, and on drawn slides whose tissue is known exactly."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from PIL import Image, ImageDraw

from tilepipe.box import Box
from tilepipe.sources.array import ArraySource
from tilepipe.sources.find_tissue import find_tissue
from tilepipe.sources.open import open_source
from tilepipe.sources.tissue import on_thumbnail, tissue

SLIDE = Path(__file__).parents[2] / "pipelines" / "sample" / "CMU-1-Small-Region.svs"
DATA = Path(os.environ.get("TILEPIPE_DATA", "."))
TCGA_SLIDE = DATA / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
CROPS = DATA / "nuclei_monuseg"
GLASS, PINK, GREY = (243, 241, 244), (222, 150, 190), (150, 150, 152)

Points = list[list[int]]


@dataclass(frozen=True)
class Drawn:
    """Tissue that a person has outlined on a small picture, to about five pixels of it."""

    size: list[int]
    """Width and height of the picture that was drawn on."""
    inside: list[Points]
    outside: list[Points]
    """Large holes."""
    undecided: list[Points]
    """Loose flakes that cannot be outlined; they are not scored."""

    def iou(self, found: Any) -> float:
        """The intersection over union of a mask and what was drawn."""
        truth, left_out = _filled(self.size, self.inside, self.outside), _filled(self.size, self.undecided, [])
        mask = np.array(Image.fromarray(found).resize(tuple(self.size), Image.Resampling.NEAREST))
        return float((mask & truth & ~left_out).sum() / ((mask | truth) & ~left_out).sum())


def _filled(size: list[int], inside: list[Points], outside: list[Points]) -> Any:
    picture = Image.new("1", tuple(size))
    for value, polygons in ((1, inside), (0, outside)):
        for polygon in polygons:
            ImageDraw.Draw(picture).polygon([*map(tuple, polygon)], fill=value)
    return np.array(picture)


OUTLINES = json.loads((Path(__file__).parent / "tissue_outlines.json").read_text())
CMU, TCGA, IHC = (Drawn(**OUTLINES[name]) for name in ("cmu", "tcga", "ihc"))


def slide(tissue: tuple[int, int, int] | None = PINK, noise: float = 2, **strokes: tuple[int, int, int]) -> Any:
    """A drawn slide of 400 x 500 pixels, its tissue (a disk of radius 80) and its strokes of ink."""
    rng = np.random.default_rng(0)
    pixels = np.empty((400, 500, 3))
    pixels[:] = GLASS
    y, x = np.mgrid[:400, :500]
    there = (y - 200) ** 2 + (x - 150) ** 2 < 80**2 if tissue else np.zeros((400, 500), bool)
    if tissue:
        pixels[there] = np.array(tissue) + rng.normal(0, 12, (there.sum(), 1))
    ink = np.zeros((400, 500), bool)
    for k, colour in enumerate(strokes.values()):
        stroke = (abs(x - 300 - 45 * k) < 11) & (abs(y - 200) < 150)
        pixels[stroke], ink = np.array(colour) + rng.normal(0, 5, (stroke.sum(), 1)), ink | stroke
    pixels = skimage.filters.gaussian(pixels, 1, channel_axis=2) + rng.normal(0, noise, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8).transpose(2, 0, 1), there, ink


def iou(found: Any, truth: Any) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.long
def test_a_real_slide_against_a_drawn_mask() -> None:
    found = on_thumbnail(open_source(SLIDE))
    assert found.background == "bright"
    assert CMU.iou(found.tissue) > 0.91
    assert found.ink.mean() < 1e-3


@pytest.mark.skipif(not TCGA_SLIDE.exists(), reason="development data is not here")
def test_unscanned_white_beside_the_glass() -> None:
    found = on_thumbnail(open_source(TCGA_SLIDE))
    assert TCGA.iou(found.tissue) > 0.95
    assert found.ink.mean() < 1e-3


def test_pale_stroma_beside_brown_stain() -> None:
    found = find_tissue(skimage.data.immunohistochemistry().transpose(2, 0, 1))
    assert IHC.iou(found.tissue) > 0.9
    assert not found.ink.any()


@pytest.mark.skipif(not CROPS.exists(), reason="development data is not here")
@pytest.mark.parametrize("name", ["TCGA-AY-A8YK-01A-01-TS1", "TCGA-E2-A14V-01Z-00-DX1"])
def test_no_nucleus_of_a_crop_is_lost(name: str) -> None:
    path = CROPS / "val" / f"{name}.png"
    pixels = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    nuclei = np.asarray(Image.open(path.with_name(f"{name}_mask.png")).convert("L")) > 0
    found = find_tissue(pixels)
    assert found.tissue[nuclei].mean() > 0.99


@pytest.mark.parametrize("noise", [0, 2, 5])
def test_blank_glass_has_no_tissue(noise: float) -> None:
    pixels, _, _ = slide(None, noise)
    assert find_tissue(pixels).tissue.mean() < 1e-4
    assert not tissue(ArraySource(pixels), 100)(Box(0, 0, 400, 500)).any()


def test_glass_that_darkens_to_its_corners_has_no_tissue() -> None:
    y, x = np.mgrid[-1:1:400j, -1:1:500j]
    pixels = np.clip(244 - 5 * (y**2 + x**2) + np.random.default_rng(0).normal(0, 2, (3, 400, 500)), 0, 255)
    assert find_tissue(pixels.astype(np.uint8)).tissue.mean() < 1e-3


@pytest.mark.parametrize("colour", [PINK, GREY, (205, 205, 207), (120, 90, 160), (150, 100, 60), (238, 205, 224)])
def test_drawn_tissue_of_any_stain_and_none(colour: tuple[int, int, int]) -> None:
    """Pink, two greys, haematoxylin, DAB, and pale fat."""
    pixels, truth, _ = slide(colour)
    found = find_tissue(pixels)
    assert iou(found.tissue, truth) > 0.95
    assert not found.ink.any()


@pytest.mark.parametrize("stain", [PINK, GREY, (150, 100, 60)])
def test_marker_ink_is_no_tissue(stain: tuple[int, int, int]) -> None:
    inks = {"blue": (35, 70, 165), "green": (20, 120, 75), "red": (195, 30, 40), "black": (25, 25, 28)}
    pixels, truth, ink = slide(stain, **inks)
    found = find_tissue(pixels)
    assert iou(found.tissue, truth) > 0.95
    assert found.ink[ink].mean() > 0.98
    assert not found.ink[truth].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_a_dark_background(dtype: str, bands: int) -> None:
    """Nuclei that shine in a faint tissue; each band is of another strength."""
    rng, unit = np.random.default_rng(0), {"uint8": 1.0, "uint16": 40.0, "float32": 1 / 255}[dtype]
    _, truth, _ = slide()
    nuclei = skimage.filters.gaussian((rng.random(truth.shape) < 0.01) & truth, 2) * 60
    light = skimage.filters.gaussian(truth * 18 + np.minimum(nuclei, 1) * 150, 1)
    pixels = np.stack([8 + light / (1 + k) + rng.normal(0, 1.5, truth.shape) for k in range(bands)])
    image = np.clip(pixels * unit, 0, None).astype(dtype)
    found = find_tissue(image)
    assert found.background == "dark"
    assert iou(found.tissue, truth) > 0.9


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_blank_in_the_dark_has_no_tissue(dtype: str) -> None:
    noise = np.random.default_rng(0).normal(12, 2, (3, 300, 300)) * (1 if dtype == "uint8" else 50)
    assert find_tissue(noise.astype(dtype)).tissue.mean() < 1e-3
    assert not find_tissue(np.zeros((3, 30, 30), dtype)).tissue.any()


def test_a_part_inside_tissue_is_all_tissue() -> None:
    pixels = np.full((3, 60, 60), np.array([180, 90, 150], np.uint8)[:, None, None])
    assert find_tissue(pixels).background == "none"
    assert find_tissue(pixels).tissue.all()
    assert tissue(ArraySource(pixels), 5)(Box(0, 0, 60, 60)).all()


def test_what_is_no_image_data_is_no_tissue() -> None:
    pixels, truth, _ = slide()
    valid = np.ones(truth.shape, bool)
    valid[:, :150] = False
    pixels[:, ~valid] = 0
    assert iou(on_thumbnail(ArraySource(pixels, valid=valid)).tissue, truth & valid) > 0.95
    assert not find_tissue(pixels, np.zeros_like(valid)).tissue.any()


@cache
def small_tissue(margin: float) -> Any:
    """The tissue of the real slide, every eighth pixel."""
    mask = tissue(open_source(SLIDE), margin)
    return mask(Box(0, 0, *mask.shape))[::8, ::8]


@pytest.mark.long
def test_tissue_on_a_real_slide() -> None:
    """Pink and purple is in, glass is out."""
    source = open_source(SLIDE)
    _, height, width = source.shape
    pixels = source.read(Box(0, 0, height, width))[:, ::8, ::8].astype(int)
    stained = pixels.max(0) - pixels.min(0) > 60
    glass = pixels.min(0) > 235
    found = small_tissue(8)
    assert stained.mean() > 0.05
    assert found[stained].mean() > 0.995
    assert found.mean() < 0.9
    assert found[glass].mean() < 0.5


@pytest.mark.long
def test_a_margin_grows_the_tissue_and_only_grows_it() -> None:
    narrow, wide = small_tissue(8), small_tissue(160)
    assert (wide | ~narrow).all()
    assert wide.sum() > narrow.sum() * 1.05


def test_the_margin_is_in_pixels_of_the_image() -> None:
    pixels = np.full((3, 300, 300), 240, np.uint8)
    pixels[:, 140:160, 140:160] = np.array([180, 60, 140], np.uint8)[:, None, None]
    found = tissue(ArraySource(pixels), 30)(Box(0, 0, 300, 300))
    assert found[150, 159 + 30]
    assert found[140 - 30, 150]
    assert not found[150, 159 + 33]
    assert not found[140 - 33, 150]


def test_a_large_image_is_looked_at_in_small() -> None:
    pixels = np.full((3, 40, 5000), 240, np.uint8)
    pixels[:, :, 2000:2400] = np.array([180, 60, 140], np.uint8)[:, None, None]
    found = tissue(ArraySource(pixels), 100)(Box(20, 0, 21, 5000))[0]
    inside = np.flatnonzero(found)
    assert (np.diff(inside) == 1).all()
    assert abs(inside[0] - 1900) <= 8
    assert abs(inside[-1] - 2500) <= 8


def test_faint_tissue_stays_in() -> None:
    """Pale fat beside strong stain: Otsu's threshold alone would cut it off."""
    pixels = np.full((3, 100, 100), 245, np.uint8)
    pixels[:, 10:40, 10:90] = np.array([120, 20, 100], np.uint8)[:, None, None]
    pixels[:, 60:90, 10:90] = np.array([240, 205, 225], np.uint8)[:, None, None]
    found = tissue(ArraySource(pixels), 1)(Box(0, 0, 100, 100))
    assert found[62:88, 12:88].all()
    assert not found[48:52].any()
