"""This module draws four crops of a training with their labels, so that wrong labels are seen before the first step."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tilepipe.errors import UsageError
from tilepipe.models.card import palette_of
from tilepipe.paths import refuse_inputs, refuse_place
from tilepipe.products.label_map import CLEAR
from tilepipe.products.picture_page import Colour, ScaleBar, page_of
from tilepipe.products.quicklook import GAP, edges, over
from tilepipe.products.shrink import rgb_of
from tilepipe.storage import write_durably
from tilepipe.text import clean_line
from tilepipe.training.dataset import Dataset
from tilepipe.training.sampling import Sampler, square_around
from tilepipe.training.scenes import IGNORE, files_read

SIDE = 480
"""Smallest side of a crop in the picture (pixels); small crops are enlarged by a whole number."""
STRIPE = 6
"""Width of the stripes over pixels without a label (pixels of the picture)."""
GREY: Colour = (90, 90, 90)
"""Colour of these stripes."""


def check_preview(dataset: Dataset, path: Path, overwrite: bool) -> None:
    """Raise `UsageError` if a picture cannot be written to `path`; nothing is read for it."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path} is no name of a picture; a preview is written as .png")
    refuse_place(path, overwrite=overwrite)
    refuse_inputs([path], files_read(dataset.config))


def write_preview(dataset: Dataset, path: Path) -> list[str]:
    """Write a picture of four crops with their labels, and return a sentence about each crop.

    The crops have the size of training crops and lie around pixels of each class in turn, the rarest first; no crop is
    turned or changed in colour. Raises `StorageError` if the picture cannot be written.
    """
    config = dataset.config
    sampler, random = Sampler(dataset.scenes, dataset.found, config), np.random.default_rng(config.seed)
    counts = dataset.found.counts.sum(0)
    by_number = [int(k) for k in np.argsort(counts, kind="stable") if counts[k]]
    zoom = max(1, -(-SIDE // config.crop))
    colours = palette_of(config.colors, len(config.classes))
    clear = config.classes[0].lower() in CLEAR
    tiles, said = [], []
    for number in range(4):
        wanted = by_number[number % len(by_number)]
        k, y, x = sampler.centre(random, wanted)
        scene = dataset.opened[k]
        box = square_around(y, x, config.crop, scene.region.shape)
        pixels, labels = sampler.read(k, box)
        picture = rgb_of(pixels, None).repeat(zoom, 0).repeat(zoom, 1)
        labels = labels.repeat(zoom, 0).repeat(zoom, 1)
        tiles.append(_numbered(_labelled(picture, labels, colours, clear), number + 1))
        sy, sx = scene.scale
        rows = int((box.y0 + scene.region.y0) * sy), int((box.x0 + scene.region.x0) * sx)
        said.append(
            f"crop {number + 1} of the preview: {scene.name}{scene.picked}, from row {max(0, rows[0])}, column "
            f"{max(0, rows[1])}, around a pixel of {config.classes[wanted]}"
        )
    gap = np.full((tiles[0].shape[0], GAP, 3), 255, np.uint8)
    lines = [np.concatenate([left, gap, right], axis=1) for left, right in (tiles[:2], tiles[2:])]
    whole = np.concatenate([lines[0], np.full((GAP, lines[0].shape[1], 3), 255, np.uint8), lines[1]])
    pixel, _ = dataset.pixel_size
    bar = ScaleBar.at((pixel or 1.0) / zoom, config.unit if pixel else None, whole.shape[1])
    legend = [(f"{name}{' (clear)' if clear and k == 0 else ''}", colours[k]) for k, name in enumerate(config.classes)]
    page = io.BytesIO()
    page_of(whole, [*legend, ("not labelled (stripes)", GREY)], bar).save(page, "PNG", optimize=True)
    write_durably(path, page.getvalue())
    return said


def _labelled(
    picture: NDArray[np.uint8], labels: NDArray[np.int64], colours: tuple[Colour, ...], clear: bool
) -> NDArray[np.uint8]:
    """Return a picture with its labels over it: the colour of the class, opaque along edges; stripes without label."""
    table = np.zeros((len(colours) + 1, 4), np.uint8)
    table[:-1, :3], table[:-1, 3] = colours, 255
    if clear:
        table[0] = 0
    # The last row stands for -1, a pixel without a label, which is clear here.
    coloured = table[labels]
    picture = over(picture, coloured, edges(coloured))
    y, x = np.indices(labels.shape)
    striped = (labels == IGNORE) & ((y + x) // STRIPE % 2 == 0)
    return np.where(striped[..., None], np.array(GREY, np.uint8), picture)


def _numbered(picture: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Return a picture with its number in the corner."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 27, 27), fill=(255, 255, 255))
    pen.text((14, 14), clean_line(number), (34, 34, 34), ImageFont.load_default(20), anchor="mm")
    return np.asarray(image)
