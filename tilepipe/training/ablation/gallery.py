"""This module makes pictures: every mechanism's output on one crop at the first early step, with image and truth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.training.scenes import Scene

CROP = 96
"""Side of the crop (pixels of the training grid)."""
ZOOM, ROW, GAP, COLUMNS = 2, 14, 6, 5
"""Enlargement of a crop, height of a caption and gap (pixels of the picture), and number of crops per row."""


def crop_of(scene: Scene) -> Box:
    """Return the crop on the training grid: the middle of the scene's region."""
    region = scene.region
    height, width = min(CROP, region.height), min(CROP, region.width)
    y, x = region.y0 + (region.height - height) // 2, region.x0 + (region.width - width) // 2
    return Box(y, x, y + height, x + width)


def save(values: Pixels, folder: Path, data: str, caption: str) -> None:
    """Save a crop as a PNG in `folder`/crops: (height, width) from 0 to 1, or (3, height, width) uint8."""
    pixels = values.transpose(1, 2, 0) if values.ndim == 3 else np.rint(values * 255).astype(np.uint8)
    path = _path(folder, data, caption)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def write_gallery(folder: Path, data: str, captions: Sequence[str]) -> Path | None:
    """Write the existing crops as one picture, `folder`/`data`.png; return None if there is no crop."""
    found = [(caption, _path(folder, data, caption)) for caption in captions]
    crops = [(caption, Image.open(path).convert("RGB")) for caption, path in found if path.exists()]
    if not crops:
        return None
    width, height = (ZOOM * side + GAP for side in crops[0][1].size)
    rows = -(-len(crops) // COLUMNS)
    page = Image.new("RGB", (width * min(len(crops), COLUMNS), rows * (height + ROW)), "white")
    draw = ImageDraw.Draw(page)
    for k, (caption, crop) in enumerate(crops):
        y, x = k // COLUMNS * (height + ROW), k % COLUMNS * width
        draw.text((x, y), caption, fill="black")
        # A checkerboard is one pixel wide, so each pixel must be seen as it is.
        page.paste(crop.resize((crop.width * ZOOM, crop.height * ZOOM), Image.Resampling.NEAREST), (x, y + ROW))
    path = folder / f"{_plain(data)}.png"
    page.quantize(256).save(path, optimize=True)
    return path


def _path(folder: Path, data: str, caption: str) -> Path:
    return folder / "crops" / f"{_plain(data)}-{_plain(caption)}.png"


def _plain(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_")
