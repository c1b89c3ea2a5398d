"""This module draws crops: first a survey of the labels, then crops from it; a step always gets the same crops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.geo_labels import IGNORE, Polygons
from tilepipe.text import JSON
from tilepipe.training.config import TrainConfig
from tilepipe.training.config_parts import Augment
from tilepipe.training.scenes import Scene

CELL = 64
"""Side of the cells in which labels are counted (pixels at the training resolution)."""
MOST_CELLS = 1 << 16
"""Largest number of cells of a scene that are examined (268 million pixels); of a larger scene so many are drawn."""


@dataclass(frozen=True, eq=False)
class Survey:
    """The survey of the training regions, read once, cell by cell."""

    places: NDArray[np.int64]
    """Places of the cells, (cells, 3): scene, y and x of the corner."""
    counts: NDArray[np.int64]
    """Number of labelled pixels of each class in each cell, (cells, classes)."""
    mean: NDArray[np.float64]
    """Mean of the labelled pixels, (bands,), in the image's units."""
    std: NDArray[np.float64]
    """Standard deviation of the labelled pixels, (bands,); 1 if it would be 0."""
    examined: int = 0
    """Number of pixels in the cells that were examined, labelled or not."""


def survey(scenes: Sequence[Scene], classes: int) -> Survey:
    """Count the labels of all scenes. Raises `InputError` if bands or dtypes differ or nothing is labelled."""
    _check_alike(scenes)
    places, counts, examined = [], [], 0
    total = np.zeros((3, scenes[0].source.shape[0]))  # The rows hold pixels, sum, and sum of squares, per band.
    for k, scene in enumerate(scenes):
        height, width = scene.region.shape
        # The fill value is of no matter: a pixel without data gets no label below.
        read = scene.pixels([0.0] * len(total[0])).read
        for y, x in cells(scene):
            box = Box(y, x, min(y + CELL, height), min(x + CELL, width))
            examined += box.area
            label = scene.label(box)
            if (label == IGNORE).all():
                continue
            image, valid = read(box)
            label = np.where(valid, label, IGNORE)
            pixels = image[:, label != IGNORE].astype(np.float64)
            total += np.stack([np.full(len(pixels), pixels.shape[1]), pixels.sum(1), (pixels**2).sum(1)])
            places.append((k, y, x))
            counts.append(np.bincount(label[label != IGNORE], minlength=classes))
    if not total[0, 0]:
        raise InputError(f"{scenes[0].name} and the other training images hold no labelled pixel")
    mean = total[1] / total[0]
    std = np.sqrt(np.maximum(total[2] / total[0] - mean**2, 0))
    std = rounded(np.where(std > 0, std, 1.0))
    return Survey(np.array(places), np.array(counts), rounded(mean), std, examined)


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values rounded to 9 significant digits, more than float32 holds: short in a card, and equal on every
    machine."""
    return np.array([float(f"{value:.9g}") for value in values])


def cells(scene: Scene) -> Iterator[tuple[int, int]]:
    """Yield the corners of the cells to examine, by rows: all, or for a large scene an even draw and cells of objects.

    The cell of an object is the one with the polygon's centre. With a labelled area, cells are drawn from those that
    the area's polygons may touch.
    """
    rows, columns = (-(-side // CELL) for side in scene.region.shape)
    if rows * columns <= MOST_CELLS:
        chosen = np.arange(rows * columns)
    else:
        chosen = np.union1d(_some(_ground(scene, rows, columns)), _some(_centres(scene, rows, columns)))
    yield from ((int(k) // columns * CELL, int(k) % columns * CELL) for k in chosen)


def seen_whole(scene: Scene) -> bool:
    """Return whether all cells of a scene are examined."""
    rows, columns = (-(-side // CELL) for side in scene.region.shape)
    return rows * columns <= MOST_CELLS


def _some(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most MOST_CELLS of `numbers`; the draw is always the same."""
    if len(numbers) <= MOST_CELLS:
        return numbers
    return np.asarray(np.random.default_rng(0).choice(numbers, MOST_CELLS, replace=False))


def _ground(scene: Scene, rows: int, columns: int) -> NDArray[np.int64]:
    """Return the numbers of the cells that may hold labels."""
    layer = scene.labels.area if isinstance(scene.labels, Polygons) else None
    if layer is None:
        return np.arange(rows * columns)
    touched = np.zeros((rows, columns), bool)
    for y0, x0, y1, x1 in _in_cells(scene, layer.extents):
        touched[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1] = True
    return np.flatnonzero(touched)


def _centres(scene: Scene, rows: int, columns: int) -> NDArray[np.int64]:
    """Return the numbers of the cells that hold the centre of a polygon."""
    if not isinstance(scene.labels, Polygons):
        return np.zeros(0, np.int64)
    extents = scene.labels.objects.extents
    middles = (extents[:, :2] + extents[:, 2:]) / 2
    y, x = _in_cells(scene, np.concatenate([middles, middles], 1))[:, :2].T
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    return np.unique(y[inside] * columns + x[inside])


def _in_cells(scene: Scene, extents: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return rows and columns of cells (n, 4) for positions (n, 4) in full-resolution pixels; some may lie outside."""
    pixels = extents / (scene.scale * 2) - np.array([scene.region.y0, scene.region.x0] * 2)
    return np.asarray(np.floor(pixels / CELL), np.int64)


def class_weights(found: Survey, config: TrainConfig) -> tuple[float, ...]:
    """Return the weight of each class in the losses; the result is empty if all weights are 1.

    'balanced' is one over the square root of a class's share of the labelled pixels, scaled to a mean of 1 over the
    classes that occur; the others have 1. (Inverse frequency itself lets a rare class drown the rest.)
    """
    if config.class_weights != "balanced":
        return config.class_weights
    counts = found.counts.sum(0)
    raw = np.where(counts > 0, 1 / np.sqrt(np.maximum(counts, 1) / counts.sum()), 0.0)
    scaled = np.where(counts > 0, raw / raw[counts > 0].mean(), 1.0)
    return tuple(float(value) for value in scaled)


def _check_alike(scenes: Sequence[Scene]) -> None:
    first = scenes[0]
    for scene in scenes:
        if (scene.source.shape[0], scene.source.dtype) != (first.source.shape[0], first.source.dtype):
            raise InputError(
                f"{scene.name} has {scene.source.shape[0]} bands of {scene.source.dtype}, "
                f"{first.name} has {first.source.shape[0]} of {first.source.dtype}; all images must be alike"
            )


class Sampler:
    """A sampler of batches of crops. A batch depends on the seed and the step alone, not on earlier batches."""

    def __init__(self, scenes: Sequence[Scene], found: Survey, config: TrainConfig) -> None:
        self._scenes, self._places, self._config = scenes, found.places, config
        self._pixels = [scene.pixels(found.mean) for scene in scenes]
        self._classes = np.flatnonzero(found.counts.sum(0))
        # A class without pixels is never drawn, so dividing by 1 is good enough for it.
        self._by_class = found.counts / np.maximum(found.counts.sum(0), 1)  # (cells, classes)
        self._by_area = found.counts.sum(1) / found.counts.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return crops (B, C, crop, crop) float32 in pixel units and classes (B, crop, crop) int64, -1 to ignore."""
        crops = [self._crop(k, box) for k, box in self.boxes(step)]
        return torch.stack([image for image, _ in crops]), torch.stack([label for _, label in crops])

    def boxes(self, step: int) -> list[tuple[int, Box]]:
        """Return the place of each crop of a batch: the number of the scene, and a box of the scene's region."""
        # numpy mixes both numbers, so neighbouring steps and seeds draw independently.
        random = np.random.default_rng([self._config.seed, step])
        return [self._place(random) for _ in range(self._config.batch)]

    def _place(self, random: np.random.Generator) -> tuple[int, Box]:
        how = self._config.augment
        spread = np.log(how.scale) if isinstance(how, Augment) else 0.0  # a function of the caller's does it all
        # The factor is even in its logarithm, so crops are shrunk as often as they are enlarged.
        side = round(self._config.crop * float(np.exp(random.uniform(-spread, spread))))
        wanted = random.choice(self._classes) if random.random() < self._config.balance else None
        k, y, x = self.centre(random, wanted)
        return k, square_around(y, x, side, self._scenes[k].region.shape)

    def read(self, k: int, box: Box) -> tuple[Pixels, NDArray[np.int64]]:
        """Return the pixels of a box of scene `k` as prediction would see them, and its classes.

        A pixel without image data has no label, which is -1.
        """
        pixels, valid = self._pixels[k].read(box)
        return pixels, np.where(valid, self._scenes[k].label(box), IGNORE)

    def _crop(self, k: int, box: Box) -> tuple[Tensor, Tensor]:
        pixels, label = self.read(k, box)
        return resized(torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(label), self._config.crop)

    def centre(self, random: np.random.Generator, wanted: int | None) -> tuple[int, int, int]:
        """Return the number of a scene and one of its labelled pixels, of class `wanted`, or of any class if it is
        None."""
        chances = self._by_area if wanted is None else self._by_class[:, wanted]
        k, y, x = self._places[random.choice(len(chances), p=chances)]
        label = self._scenes[k].label(Box(y, x, y + CELL, x + CELL))
        pixels = np.argwhere(label != IGNORE if wanted is None else label == wanted)
        dy, dx = pixels[random.integers(len(pixels))]
        return int(k), int(y + dy), int(x + dx)


def square_around(y: int, x: int, side: int, shape: tuple[int, int]) -> Box:
    """Return the square around (y, x), moved inside an image of `shape` if it fits, else centred on (y, x)."""

    def first(centre: int, size: int) -> int:
        return min(max(centre - side // 2, 0), size - side) if side <= size else (size - side) // 2

    y0, x0 = first(y, shape[0]), first(x, shape[1])
    return Box(y0, x0, y0 + side, x0 + side)


def resized(image: Tensor, label: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return image (C, side, side), averaged or interpolated, and labels (side, side) by nearest pixel."""
    if image.shape[-1] == side:
        return image, label
    # Without `antialias` a crop that is made smaller would leave out pixels.
    how: JSON = {"mode": "bilinear", "align_corners": False, "antialias": True}
    image = F.interpolate(image[None], (side, side), **how)[0]
    # torch interpolates no whole numbers; a double holds every class number exactly.
    return image, F.interpolate(label[None, None].double(), (side, side), mode="nearest-exact")[0, 0].long()
