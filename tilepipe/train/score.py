"""Scores of a finished model on scenes that it was not trained on, at full resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.quality.confusion import Confusion, confusion_matrix
from tilepipe.train.data import IGNORE, Scene

BLOCK = 1024
"""Full-resolution pixels scored at once, per side."""


def score(model: Model, scenes: Sequence[Scene]) -> Confusion:
    """Return the confusion of the model's labels over the scenes' windows, on full-resolution pixels.

    Tiles start at multiples of the stride and have the halo as real context: labels equal those of whole images.
    """
    total = Confusion.zero(len(model.card.classes))
    for scene in scenes:
        for box in blocks(scene.full):
            total += compared(predicted(model, scene, box), truth(scene, box), len(model.card.classes))
    return total


def compared(labels: NDArray[Any], true: NDArray[np.int64], classes: int) -> Confusion:
    """Return the confusion of two maps; -1 in the truth is not scored."""
    return confusion_matrix(labels, true, classes, ignore=IGNORE, nodata=None)


def blocks(window: Box) -> Iterator[Box]:
    """Yield boxes of at most BLOCK x BLOCK pixels that cover a window."""
    for y in range(window.y0, window.y1, BLOCK):
        for x in range(window.x0, window.x1, BLOCK):
            yield Box(y, x, min(y + BLOCK, window.y1), min(x + BLOCK, window.x1))


def truth(scene: Scene, box: Box) -> NDArray[np.int64]:
    """Return the classes of a full-resolution box; -1 where ignored or where the image is not valid."""
    rows, columns = nearest(scene, box)
    valid = scene.source.valid(hull(rows, columns))
    labels = scene.labels(box)
    return labels if valid is None else np.where(spread(valid, rows, columns), labels, IGNORE)


def predicted(model: Model, scene: Scene, box: Box) -> NDArray[np.uint8]:
    """Return the model's labels of a full-resolution box, nearest neighbour from the prediction grid."""
    rows, columns = nearest(scene, box)
    wanted = hull(rows, columns)
    tile = tile_around(wanted, scene.source.shape[1:], model.card)
    with torch.inference_mode():
        pixels = torch.from_numpy(scene.source.read(tile)[None])
        labels = model.module(model.normalise(pixels))[0].argmax(0).numpy().astype(np.uint8)
    return spread(labels[wanted.slices_in(tile)], rows, columns)


def tile_around(box: Box, shape: tuple[int, int], card: ModelCard) -> Box:
    """Return `box` with the halo around it, on multiples of the stride, cut at the edges of the padded image."""
    s, halo = card.stride, card.halo or 0
    aligned = Box(box.y0 // s * s, box.x0 // s * s, -(-box.y1 // s) * s, -(-box.x1 // s) * s)
    inside = aligned.pad(halo) & Box(0, 0, -(-shape[0] // s) * s, -(-shape[1] // s) * s)
    assert inside is not None, "the box lies in the image"
    return inside


def nearest(scene: Scene, box: Box) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return for each full-resolution row and column the pixel of the training grid that it lies in."""
    (sy, sx), (_, height, width) = scene.scale, scene.source.shape
    rows = ((np.arange(box.y0, box.y1) + 0.5) / sy).astype(np.intp)
    columns = ((np.arange(box.x0, box.x1) + 0.5) / sx).astype(np.intp)
    return np.minimum(rows, height - 1), np.minimum(columns, width - 1)


def hull(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Box:
    """Return the box that holds all these rows and columns, which rise."""
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def spread(part: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[Any]:
    """Return `part`, which covers their hull, at the given rows and columns."""
    return part[..., (rows - rows[0])[:, None], (columns - columns[0])[None]]
