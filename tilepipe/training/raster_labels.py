"""This module reads label rasters: one band of whole numbers or three bands of colours, on the image's own grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Source
from tilepipe.sources.geo_labels import IGNORE
from tilepipe.sources.georeference import apart, where
from tilepipe.sources.label_values import nodata_class, whole_numbers
from tilepipe.sources.open import of_labels, open_source
from tilepipe.training.config import TrainConfig
from tilepipe.training.given import is_path

# -1 is IGNORE already.
UNKNOWN = -2
NEAR = 0.49
"""Largest offset of labels from the image's grid (pixels); at half a pixel it is unclear which pixel is meant."""


@dataclass(frozen=True, eq=False)
class Raster:
    """A label raster on the pixels of an image; boxes are in its own pixels."""

    source: Source
    config: TrainConfig

    def __call__(self, box: Box) -> NDArray[np.int64]:
        """Return the classes of a box, (height, width); -1 for ignored pixels. Raises `InputError` for an unknown
        value."""
        values, known = self._coded(box)
        classes = np.full(values.shape, UNKNOWN if self.config.other is None else self.config.other, np.int64)
        for value, of_class in known.items():
            classes[values == value] = of_class
        ignored = np.isin(values, self.config.ignore)
        if (valid := self.source.valid(box)) is not None:
            # A value that `values` names is a label, even if the raster calls it nodata.
            ignored |= ~valid & ~self._named(values)
        if (unknown := (classes == UNKNOWN) & ~ignored).any():
            raise InputError(f"{self.source.name} holds {self._says(int(values[unknown][0]), values[~ignored])}")
        return np.where(ignored, IGNORE, classes)

    def _coded(self, box: Box) -> tuple[NDArray[np.int64], dict[int, int]]:
        """Return the values or colours of a box as numbers, and the class of each known number."""
        if self.source.shape[0] == 1:
            known = self.config.values or {k: k for k in range(len(self.config.classes))}
            return whole_numbers(self.source, box), dict(known)
        red, green, blue = self.source.read(box)[:3].astype(np.int64)
        # A colour is one number, as '#rrggbb' writes it.
        by_class = {int(c[1:], 16): k for k, c in enumerate(self.config.colors)}
        return red << 16 | green << 8 | blue, dict(self.config.values or by_class)

    def _named(self, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a bool array: True if a pixel's value is nodata and `values` names it, so that it is a label all the
        same."""
        nodata = getattr(self.source, "nodata", None)
        if nodata is None or nodata not in (self.config.values or {}):
            return np.zeros(values.shape, bool)
        return np.asarray(values == nodata)

    def _says(self, value: int, values: NDArray[np.int64]) -> str:
        if self.source.shape[0] > 1:
            named, known = "colors", ", ".join(self.config.colors)
            if self.config.values:
                named, known = "values", ", ".join(f"#{k:06x}" for k in self.config.values)
            return (
                f"the colour #{value:06x}, which is none of {named} {known}; if it is a class, write values: "
                f"{{'#{value:06x}': CLASS, ...}}; if nobody labelled it, ignore: ['#{value:06x}']"
            )
        found = [int(v) for v in np.unique(values)[:8]]
        if len(found) == len(self.config.classes) and not self.config.values:
            pairs = ", ".join(f"{v}: {k}" for k, v in enumerate(found))
            return f"the value {value}, which is no class; if its values are {found}, write values: {{{pairs}}}"
        return f"the value {value}, which is no class; name it under values, other or ignore"


def raster(path: Any, image: Source, config: TrainConfig) -> Raster:
    """Open the label raster of an image, or an array of labels. Raises `InputError` if its kind or its grid does not
    fit."""
    if not is_path(path):
        source = of_labels(open_source(path, name="the array of labels"))
        path = source.name
    else:
        tiff = {"allow_driver": "GTiff"} if path.suffix.lower() in (".tif", ".tiff") else {}
        source = of_labels(open_source(path, allow_palette=True, **tiff))
    same = source.shape[1:] == image.shape[1:]
    _check_colours(source, config)
    if source.shape[0] not in (1, 3) or not (same or reduced(source, image)):
        raise InputError(
            f"{path} is {source.shape} {source.dtype}, not one band of whole numbers on the {image.shape[1:]} pixels "
            f"of {image.name}; labels lie on the image's own grid, of a slide also on one reduced by a whole factor"
            f"{_both(source, image)}"
        )
    _check_nodata(source, config)
    if (distance := apart(source.georeference, image.georeference, *image.shape[1:])) > NEAR:
        raise InputError(
            f"{path} lies {distance:.1f} pixels away from {image.name}; labels lie on the image's own grid"
            f"{_both(source, image)}"
        )
    return Raster(source, config)


def _check_colours(source: Source, config: TrainConfig) -> None:
    if source.shape[0] != 3:
        return
    if source.dtype != np.uint8 or not (config.values or len(config.colors) == len(config.classes)):
        box = Box.of_shape(*(min(side, 1024) for side in source.shape[1:]))
        found = np.unique(source.read(box).reshape(3, -1), axis=1).T[:6]
        seen = ", ".join("#" + "".join(f"{int(v) & 255:02x}" for v in color) for color in found)
        wanted = ", ".join(f"{name}: '#rrggbb'" for name in config.classes)
        raise InputError(
            f"{source.name} has 3 bands of {source.dtype}, so its labels are colours (among them {seen}); say which "
            f"colour is which class, in uint8, with colors: {{{wanted}}}"
        )


def _check_nodata(source: Source, config: TrainConfig) -> None:
    """Raise `InputError` if a raster says that a class is nodata, and the settings do not say which is right."""
    value = nodata_class(source, len(config.classes)) if source.shape[0] == 1 else None
    if value is None or config.values or value in config.ignore:
        return
    pairs = ", ".join(f"{k}: {k}" for k in range(len(config.classes)))
    raise InputError(
        f"{source.name} says that {value} is nodata, and {value} is the value of class {config.classes[value]!r}. If "
        f"its pixels are of that class, write values: {{{pairs}}}; if they are ground that nobody labelled, "
        f"ignore: [{value}]"
    )


def _both(source: Source, image: Source) -> str:
    """Return both extents, and the command that brings the labels onto the image's grid, as far as they are known."""
    labels, picture = (where(s.georeference, *s.shape[1:]) for s in (source, image))
    if not labels or not picture:
        return ""
    return f". The labels cover {labels}, the image {picture}{_warp(source.name, image)}"


def _warp(labels: str, image: Source) -> str:
    known = image.georeference
    if known is None or known.crs is None or known.transform is None or known.transform[1] or known.transform[3]:
        return ""
    a, _, c, _, e, f = known.transform
    _, height, width = image.shape
    corners = f"{c:.12g} {min(f, f + e * height):.12g} {c + a * width:.12g} {max(f, f + e * height):.12g}"
    crs = where(known, height, width).rpartition("(")[2].rstrip(")")
    to = f"-t_srs {crs} " if crs.startswith("EPSG") else ""
    # `-r near`, because classes must not be averaged.
    return f". Where they overlap: gdalwarp -r near {to}-te {corners} -ts {width} {height} {labels} on_grid.tif"


def reduced(source: Source, image: Source) -> bool:
    """Return whether a mask covers an image without position in pixels that are larger by one whole factor."""
    factor = round(image.shape[1] / max(1, source.shape[1]))
    sides = zip(source.shape[1:], image.shape[1:], strict=True)
    return (
        # Programs round the size of a reduced mask down or up.
        image.georeference is None and factor > 1 and all(size in (n // factor, -(-n // factor)) for size, n in sides)
    )
