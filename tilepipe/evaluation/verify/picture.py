"""Draws a verification: where the patches lie in the image, and the differences in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tilepipe.box import Box
from tilepipe.evaluation.verify.seam_patches import Patch
from tilepipe.evaluation.verify.verification import Verification
from tilepipe.execution.job import Job
from tilepipe.sources.resample import Resampled

SIDE, SMALL, GAP = 720, 128, 8
"""Pixels: longest side of the image, side of a patch's maps, space between."""
FAINTEST, STRONGEST = -7.0, 0.0
"""Differences in probability, as powers of ten, that white and red stand for in the maps."""
GOOD, BAD = (0, 114, 178), (213, 94, 0)
LEGEND = (
    "left: tiles against one pass; right: neighbouring tiles, grey: one tile alone; "
    "probability, white 1e-7 or less, red 1"
)
"""Text below the picture."""


def draw(found: Verification, job: Job, path: Path) -> None:
    """Write a PNG: the image with its patches (orange if labels flip), then the differences in each patch.

    Left map of a patch: tiles against one centred pass. Right map: neighbouring tiles against each other, grey where
    only one tile sees a pixel. White is 1e-7 and less in probability, red is 1, logarithmic.
    """
    overview = _overview(found, job)
    columns = max(1, overview.height // (SMALL + GAP + 12))
    across = -(-len(found.windows) // columns)
    page = Image.new("RGB", (overview.width + GAP + across * (2 * SMALL + 2 * GAP), overview.height + 16), "white")
    page.paste(overview, (0, 0))
    pen = ImageDraw.Draw(page)
    pen.text((4, overview.height + 2), LEGEND, fill="black")
    for k, patch in enumerate(found.windows):
        x = overview.width + GAP + (k // columns) * (2 * SMALL + 2 * GAP)
        y = (k % columns) * (SMALL + GAP + 12)
        flips = patch.whole.flips
        pen.text((x, y), f"{k + 1} {patch.place}: {flips.different} of {flips.pixels} flip", fill=_colour(patch))
        for j, values in enumerate((patch.gap, patch.mismatch)):
            page.paste(_map(values), (x + j * (SMALL + 2), y + 12))
    page.save(path)


def _overview(found: Verification, job: Job) -> Image.Image:
    _, height, width = job.source.shape
    scale = min(1.0, SIDE / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = Resampled(job.source, h, w).read(Box.of_shape(h, w))[[0, 1, 2] if job.source.shape[0] >= 3 else [0, 0, 0]]
    low, high = np.nanpercentile(pixels, (1, 99))
    # An image of one value has no range to be stretched.
    grey = np.clip((pixels - low) * (255 / max(high - low, 1e-9)), 0, 255)
    picture = Image.fromarray(np.nan_to_num(grey).astype(np.uint8).transpose(1, 2, 0).copy())
    pen = ImageDraw.Draw(picture)
    for k, patch in enumerate(found.windows):
        box = patch.box
        corners = (box.x0 * w / width, box.y0 * h / height, box.x1 * w / width, box.y1 * h / height)
        pen.rectangle(corners, outline=_colour(patch), width=2)
        pen.text((corners[0] + 3, corners[1] + 2), str(k + 1), fill=_colour(patch))
    return picture


def _colour(patch: Patch) -> tuple[int, int, int]:
    return BAD if patch.whole.flips.different else GOOD


def _map(values: NDArray[np.float64]) -> Image.Image:
    """Return a map of distances (height, width) in colours from white (none) to red; nan is grey."""
    known = ~np.isnan(values)
    power = np.log10(np.maximum(np.where(known, values, 1.0), 10**FAINTEST))
    strength = np.clip((power - FAINTEST) / (STRONGEST - FAINTEST), 0, 1)[..., None]
    colours = 255 * (1 - strength) + np.array([200, 0, 0]) * strength
    colours[~known] = (200, 200, 200)
    picture = Image.fromarray(colours.astype(np.uint8)).resize((SMALL, SMALL), Image.Resampling.NEAREST)
    ImageDraw.Draw(picture).rectangle((0, 0, SMALL - 1, SMALL - 1), outline=(120, 120, 120))
    return picture
