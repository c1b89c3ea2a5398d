"""This module scores a model on scenes that it was not trained on, at full resolution, as users get its labels.

It also finds the best score so far, and decides when to stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.evaluation.metrics.components import ComponentCounter
from tilepipe.evaluation.metrics.confusion import Confusion, confusion_matrix, confusion_of
from tilepipe.evaluation.metrics.objects import ObjectScores
from tilepipe.evaluation.metrics.pair import Pair, pair
from tilepipe.execution.job import make_job
from tilepipe.execution.region_labels import region_labels
from tilepipe.models.model import Model
from tilepipe.planning.receptive_field import MEASURED, reach_of_card
from tilepipe.planning.settings import Request
from tilepipe.sources.base import Kind
from tilepipe.training.config import TrainConfig
from tilepipe.training.scenes import IGNORE, Scene

VALIDATED_BLOCK = 2048
"""Side of the area that is scored at once (full-resolution pixels)."""

COUNTED_PIXELS = 2**20
"""Pixels whose components are numbered at once."""


def score(model: Model, scenes: Sequence[Scene], device: str = "cpu") -> Confusion:
    """Return the confusion of the model's labels over the scenes' regions, on full-resolution pixels.

    The labels are those of `tilepipe.predict` with its own choice of tiles. Raises the same errors as
    `tilepipe.predict`.
    """
    classes, nodata = len(model.card.classes), model.card.nodata
    total = Confusion.zero(classes)
    for scene in scenes:
        # A region has the labels that it has in the whole image, so a scene is scored part by part.
        for box in blocks(scene.full):
            total += compared(predicted(model, scene, box, device), truth(scene, box), classes, nodata)
    return total


def judge(model: Model, scenes: Sequence[Scene], device: str = "cpu") -> tuple[Confusion, tuple[ObjectScores, ...]]:
    """Return the confusion as `score` does, and for each class the scores of its connected pixels as objects.

    Objects of an image that has several scenes are cut at the edges of these. Raises the same errors as
    `tilepipe.predict`.
    """
    classes, nodata = len(model.card.classes), model.card.nodata
    total, objects = Confusion.zero(classes), (ObjectScores(0, 0, 0, 0.0),) * classes
    for scene in scenes:
        counter = ComponentCounter(classes)
        for _, row in groupby(blocks(scene.full), attrgetter("y0")):
            parts = [
                pair(predicted(model, scene, box, device), truth(scene, box), classes, ignore=IGNORE, nodata=nodata)
                for box in row
            ]
            # Components are counted in rows of the full width.
            maps = Pair(np.hstack([p.prediction for p in parts]), np.hstack([p.truth for p in parts]), classes)
            total += confusion_of(maps)
            rows = max(COUNTED_PIXELS // maps.truth.shape[1], 1)
            for y in range(0, len(maps.truth), rows):
                counter.add(maps.crop(slice(y, y + rows), slice(None)))
        objects = tuple(one + other for one, other in zip(objects, counter.objects(), strict=True))
    return total, objects


def predicted(model: Model, scene: Scene, box: Box, device: str = "cpu") -> Labels:
    """Return the model's labels of a full-resolution box, (height, width); a pixel without image data has the card's
    nodata."""
    # Weights change between validations, and the card's halo is that of the network's layers, which training measures.
    reach = reach_of_card(model.card)
    known = model.card, replace(reach, known=MEASURED) if reach.sides else reach
    return region_labels(make_job(scene.whole, model, Request(region=box, device=device), known), scene.whole)


def compared(labels: Labels, true: NDArray[np.int64], classes: int, nodata: int | None = None) -> Confusion:
    """Return the confusion of two maps; pixels with -1 in the truth or `nodata` in the labels are not scored."""
    return confusion_matrix(labels, true, classes, ignore=IGNORE, nodata=nodata)


def blocks(region: Box, size: int | None = None) -> Iterator[Box]:
    """Yield boxes that cover a region; their sides are at most `size` pixels (by default VALIDATED_BLOCK)."""
    size = size or VALIDATED_BLOCK
    for y in range(region.y0, region.y1, size):
        for x in range(region.x0, region.x1, size):
            yield Box(y, x, min(y + size, region.y1), min(x + size, region.x1))


def truth(scene: Scene, box: Box) -> NDArray[np.int64]:
    """Return the classes of a full-resolution box; -1 for ignored and for invalid pixels."""
    rows, columns = training_pixels(scene, box)
    valid = scene.source.valid(hull(rows, columns))
    labels = scene.labels(box)
    return labels if valid is None else np.where(spread(valid, rows, columns), labels, IGNORE)


def training_pixels(scene: Scene, box: Box) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return for each full-resolution row and column the pixel of the training grid that it lies in."""
    (sy, sx), (_, height, width) = scene.scale, scene.source.shape
    rows = ((np.arange(box.y0, box.y1) + 0.5) / sy).astype(np.intp)
    columns = ((np.arange(box.x0, box.x1) + 0.5) / sx).astype(np.intp)
    # Rounding may lead one pixel beyond the last row or column.
    return np.minimum(rows, height - 1), np.minimum(columns, width - 1)


def hull(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Box:
    """Return the box that holds all these rows and columns, which are in ascending order."""
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def spread(part: NDArray[Kind], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[Kind]:
    """Return the values of `part` at the given rows and columns; `part` covers the hull of these."""
    return part[..., (rows - rows[0])[:, None], (columns - columns[0])[None]]


Rows = Sequence[Sequence[float]]


def best(rows: Rows) -> int:
    """Return the index of the first row with the largest mean IoU; -1 without rows."""
    return max(range(len(rows)), key=lambda k: rows[k][1], default=-1)


def waited(rows: Rows, min_gain: float) -> int:
    """Return the number of validations since the last one that beat all before it by more than `min_gain`."""
    reached, passed = -1.0, 0
    for row in rows:
        gained = row[1] > reached + min_gain or reached < 0
        reached, passed = (row[1], 0) if gained else (reached, passed + 1)
    return passed


def stopped(rows: Rows, config: TrainConfig) -> bool:
    """Return whether training ends here because validation does not improve."""
    return config.patience is not None and waited(rows, config.min_gain) >= config.patience
