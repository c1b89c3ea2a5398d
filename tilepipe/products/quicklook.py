"""A picture of an image beside its labels, with a legend: for people, not for measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap
from tilepipe.sources.base import Source
from tilepipe.sources.resample import Resampled

GAP = 12
"""Pixels between the parts of the picture."""
ROW = 28
"""Height of the legend in pixels."""
PAPER = (255, 255, 255)


def write_beside(source: Source, region: Box, labels: LabelMap, path: Path, size: int = 800) -> None:
    """Write a PNG: `region` of the source on the left, its labels on the right, each at most `size` pixels.

    The source's first three bands are taken for red, green and blue, as they are when they are uint8, else stretched
    between their 2nd and 98th percentile. `labels` cover exactly `region`.
    """
    shrink = max(1.0, region.height / size, region.width / size)
    height, width = max(1, int(region.height / shrink)), max(1, int(region.width / shrink))
    left = Image.fromarray(_rgb(_cut(source, region, shrink))).resize((width, height))
    right = Image.fromarray(_colours(_pick(labels, height, width), labels))
    page = Image.new("RGB", (2 * width + GAP, height + ROW), PAPER)
    page.paste(left, (0, 0))
    page.paste(right, (width + GAP, 0))
    _write_legend(page, labels, width + GAP, height)
    page.save(path)


def _cut(source: Source, region: Box, shrink: float) -> NDArray[Any]:
    """Return about region / shrink pixels of the source, (bands, y, x)."""
    _, height, width = source.shape
    small = max(1, int(height / shrink)), max(1, int(width / shrink))
    y, x = small[0] / height, small[1] / width
    y0, x0 = int(region.y0 * y), int(region.x0 * x)
    box = Box(y0, x0, max(y0 + 1, int(region.y1 * y)), max(x0 + 1, int(region.x1 * x)))
    return Resampled(source, *small).read(box)


def _rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    pixels = pixels[[0, 1, 2] if len(pixels) >= 3 else [0, 0, 0]]
    if pixels.dtype != np.uint8:
        low, high = np.nanpercentile(pixels, (2, 98))
        pixels = np.clip((pixels - low) * (255 / max(high - low, 1e-9)), 0, 255)
    return np.ascontiguousarray(np.nan_to_num(pixels).astype(np.uint8).transpose(1, 2, 0))


def _pick(labels: LabelMap, height: int, width: int) -> NDArray[Any]:
    """Return every so many-th label: (height, width), read in bands of rows."""
    columns = (np.arange(width) * 2 + 1) * labels.shape[1] // (2 * width)
    rows = (np.arange(height) * 2 + 1) * labels.shape[0] // (2 * height)
    picked = []
    for some in np.array_split(rows, max(1, height // 64)):
        band = labels.read(Box(int(some[0]), 0, int(some[-1]) + 1, labels.shape[1]))
        picked.append(band[some - some[0]][:, columns])
    return np.concatenate(picked)


def _colours(values: NDArray[Any], labels: LabelMap) -> NDArray[np.uint8]:
    table = np.full((labels.legend.nodata + 1, 3), PAPER, dtype=np.uint8)
    table[: len(labels.legend.palette)] = labels.legend.palette
    return np.asarray(table[values])


def _write_legend(page: Image.Image, labels: LabelMap, x: int, y: int) -> None:
    draw = ImageDraw.Draw(page)
    for name, colour in zip(labels.legend.classes, labels.legend.palette, strict=True):
        draw.rectangle((x, y + 8, x + 12, y + 20), fill=colour, outline=(0, 0, 0))
        draw.text((x + 18, y + 8), name, fill=(0, 0, 0))
        x += 18 + int(draw.textlength(name)) + 16
