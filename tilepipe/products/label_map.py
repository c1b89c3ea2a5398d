"""LabelMap: a finished label map on its output grid, read by box; every product is written from a LabelMap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tilepipe.arrays import DType, Labels
from tilepipe.box import Box
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.tiling.uncertainty import STEPS, VOID

CLEAR = ("background", "other")
"""Names of a class 0 that hides nothing of the image."""
LABELS = "labels"
"""Name of the labels among uncertainty layers."""


@dataclass(frozen=True)
class Measure:
    """The meaning of the values of an uncertainty layer: numbers, not classes."""

    step: float
    """Number that the stored value 1 stands for; the stored value 0 stands for 0."""
    meaning: str
    """Meaning of the numbers in a few words."""


@dataclass(frozen=True)
class Legend:
    """The meaning of label values: names, colours and nodata."""

    name: str
    """Name of the layer, for instance 'buildings'."""
    classes: tuple[str, ...]
    """Class names by label value, from 0."""
    palette: tuple[tuple[int, int, int], ...]
    """Colour (red, green, blue) of each class, from 0 to 255."""
    nodata: int
    """Value of pixels that are not computed or hold no image data: 255 (uint8) or 65535 (uint16)."""
    measure: Measure | None = None
    """Meaning of the values of an uncertainty layer, which has no classes; None for labels."""

    @property
    def background(self) -> int | None:
        """Value of the class that is no object; see `background_of`."""
        return background_of(self.classes)

    @property
    def clear(self) -> int | None:
        """Value of the class that hides nothing of an image: 0 if class 0 is called 'background' or 'other'."""
        return 0 if self.classes and self.classes[0].lower() in CLEAR else None


def background_of(classes: Sequence[str]) -> int | None:
    """Return the value of the class that is no object: 0 if class 0 is called 'background'; else None."""
    # Only the name tells: in many models class 0 is an object like the others.
    return 0 if classes and classes[0].lower() == "background" else None


def probability_legend(name: str) -> Legend:
    """Return the legend of the probability of the class `name`."""
    return Legend(name, (), (), VOID, Measure(1 / STEPS, f"probability of class {name}"))


@dataclass(frozen=True)
class LabelMap:
    """A finished label map. `read` may be called from any thread."""

    shape: tuple[int, int]
    """Shape (height, width) in output pixels."""
    dtype: DType
    """Type of the labels: uint8 or uint16."""
    legend: Legend
    """Names, colours and nodata."""
    read: Callable[[Box], Labels]
    """Function that returns the labels (box.height, box.width) of a box inside `shape`."""
    block: tuple[int, int]
    """Shape (height, width) in pixels of a stored block; boxes aligned to blocks are read fastest."""
    georeference: Georeference | None = None
    """Georeference of this map (a region's transform is already shifted); None for slides and arrays."""
    resolution: Resolution | None = None
    """Size of an output pixel, or None if unknown."""
    origin: tuple[int, int] = (0, 0)
    """Position (y, x) of this map's top left corner in full-resolution pixels of the source (level 0 of a slide)."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Full-resolution source pixels per output pixel, (y, x); 1 unless labels are kept at the model's resolution."""

    frame: tuple[int, int] = (0, 0)
    """Point (y, x) in full-resolution pixels from which QuPath counts: the corner of a slide's bounds."""

    def boxes(self, size: int) -> Iterator[Box]:
        """Yield boxes of `size` x `size` pixels that cover the map row by row; the last ones are smaller."""
        height, width = self.shape
        for y in range(0, height, size):
            for x in range(0, width, size):
                yield Box(y, x, min(y + size, height), min(x + size, width))


def label_map_of(array: Labels, legend: Legend, **fields: Any) -> LabelMap:
    """Return the LabelMap of an array (H, W) in memory; `fields` are LabelMap's own (block, georeference, ...)."""
    height, width = array.shape
    fields = {"block": (512, 512), **fields}
    return LabelMap((height, width), array.dtype, legend, partial(_crop, array), **fields)


def _crop(array: Labels, box: Box) -> Labels:
    return array[box.y0 : box.y1, box.x0 : box.x1]
