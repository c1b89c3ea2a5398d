"""This module defines a label map in class numbers, for measuring, and the same map as its file stores it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Array
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.products.label_map import LabelMap
from tilepipe.products.labels import Labels, open_label_file
from tilepipe.sources.base import Georeference, Source
from tilepipe.sources.label_values import whole_numbers
from tilepipe.sources.open import of_labels, open_source

Map = str | Path | Labels | LabelMap | Source | Array
"""Objects that may stand for a label map: a path, labels, a source of one band, or an array (height, width)."""
OFFSET = 1 << 15  # so that int16 values have an index too
UNKNOWN = -1


@dataclass(frozen=True)
class RawMap:
    """The label map as it is stored."""

    name: str
    """Name of the map in messages."""
    shape: tuple[int, int]
    """Shape (height, width) of the map in pixels."""
    read: Callable[[Box], NDArray[np.integer]]
    """Function that returns the values of a box inside the map."""
    valid: Callable[[Box], NDArray[np.bool_] | None]
    """Function that returns a bool array: True if a pixel of a box holds a value. It returns None if all pixels do."""
    without_label: frozenset[int]
    """Values of pixels without a label."""
    georeference: Georeference | None = None
    """Position on the earth, as the file says it."""
    classes: tuple[str, ...] = ()
    """Class names by label value; () if the map has none."""
    nodata: float | None = None
    """Value that the file declares as nodata, besides a mask."""
    origin: tuple[int, int] = (0, 0)
    """Position (y, x) of the map's corner in full-resolution pixels of its image, if tilepipe made the map."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Full-resolution pixels per pixel of the map, (y, x)."""
    frame: tuple[int, int] = (0, 0)
    """Point (y, x) in full-resolution pixels from which QuPath counts."""


@dataclass(frozen=True)
class ClassMap:
    """The label map in class numbers; a pixel without a label has `nodata`."""

    raw: RawMap
    """Map as it is stored."""
    table: NDArray[np.int32]
    """Result of `class_table` for the map."""
    nodata: int
    """Class number of pixels without a label."""
    remedy: str
    """What the user should type if a value is no class."""
    nodata_is_label: bool = False
    """Whether the value that the file declares as nodata was named as a label."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (height, width) of the map in pixels."""
        return self.raw.shape

    def read(self, box: Box, /) -> NDArray[np.uint16]:
        """Return the class numbers of `box`. Raises `InputError` if a value is no class."""
        values, valid = self.raw.read(box), self.raw.valid(box)
        # A value beyond the table comes to one of its ends, which always stay UNKNOWN.
        index = np.clip(values.astype(np.int64) + OFFSET, 0, len(self.table) - 1)
        labels = self.table[index]
        if valid is not None:
            # A reader says that pixels of the declared value hold no data, also if the user has named this value as a
            # label.
            meant = values == self.raw.nodata if self.nodata_is_label else False
            labels = np.where(valid | meant, labels, self.nodata)
        if (unknown := labels == UNKNOWN).any():
            value = int(values[unknown][0])
            raise InputError(f"{self.raw.name} holds the value {value}, which is no class; {self.remedy}")
        return labels.astype(np.uint16)


def open_raw(what: Map, without_label: set[int]) -> RawMap:
    """Return a label map as it is stored. Raises `InputError` if the object is no label map."""
    path = str(what) if isinstance(what, str | Path) else ""
    if isinstance(what, str | Path):
        what = _open_file(Path(what))
    if isinstance(what, Labels):
        what = what.map
    if isinstance(what, LabelMap):
        legend, without = what.legend, frozenset(without_label | {what.legend.nodata})
        return RawMap(
            path or legend.name, what.shape, what.read, _everywhere, without, what.georeference, legend.classes,
            origin=what.origin, scale=what.scale, frame=what.frame,
        )  # fmt: skip
    if isinstance(what, np.ndarray):
        return _of_array(what, frozenset(without_label))
    if what.shape[0] != 1:
        raise InputError(
            f"{what.name} has {what.shape[0]} bands of {what.dtype}; labels are one band of whole numbers: "
            "gdal_translate -b 1 writes the first band"
        )
    source, shape = what, (what.shape[1], what.shape[2])
    without, nodata = frozenset(without_label), getattr(what, "nodata", None)
    read = partial(whole_numbers, source)
    return RawMap(source.name, shape, read, source.valid, without, source.georeference, nodata=nodata)


def _of_array(array: Array, without_label: frozenset[int]) -> RawMap:
    if array.ndim != 2 or array.dtype.kind not in "uib":
        raise InputError(f"an array of {array.shape} {array.dtype} is no label map; give (height, width) whole numbers")
    shape = array.shape[0], array.shape[1]
    return RawMap("array", shape, lambda box: array[box.y0 : box.y1, box.x0 : box.x1], _everywhere, without_label)


def _everywhere(box: Box) -> None:
    """Return None for every box; it is the `valid` of a map without a mask."""


def _open_file(path: Path) -> LabelMap | Source:
    """Open a label file of tilepipe or of another program; a colour palette only gives colours to the values."""
    try:
        return open_label_file(path)
    except InputError:
        # The file is none of tilepipe's, so it is opened as an image.
        tiff = {"allow_driver": "GTiff"} if path.suffix.lower() in (".tif", ".tiff") else {}
        return of_labels(open_source(path, allow_palette=True, **tiff))


def class_table(
    values: Mapping[int, int] | None, without_label: frozenset[int], nodata: int, classes: int
) -> NDArray[np.int32]:
    """Return the class at index value + OFFSET; UNKNOWN if a value has no class. All of `values` are labels."""
    table = np.full(OFFSET + (1 << 16) + 1, UNKNOWN, np.int32)
    table[OFFSET : OFFSET + classes] = range(classes) if values is None else UNKNOWN
    for value in without_label:
        if -OFFSET < value < 1 << 16:
            table[value + OFFSET] = nodata
    for value, label in (values or {}).items():
        if not 0 <= label < classes:
            raise UsageError(f"value {value} cannot be class {label}: there are {classes}, 0 to {classes - 1}")
        if not -OFFSET < value < 1 << 16:
            raise UsageError(f"value {value} cannot be in a label file; its values are {1 - OFFSET} to 65535")
        table[value + OFFSET] = label
    return table
