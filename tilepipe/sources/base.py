"""Source: an image that can be read by box.

A source is picklable and safe under threads: it keeps the path of the image, and each thread opens its own handle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Array, DType, Pixels
from tilepipe.box import Box
from tilepipe.text import JSON

Kind = TypeVar("Kind", bound=np.generic)
"""Type of the numbers of an array."""


@dataclass(frozen=True)
class Resolution:
    """Size of a pixel on the ground or in the tissue, per axis; never averaged over the axes."""

    y: float
    """Height of a pixel in `unit`."""
    x: float
    """Width of a pixel in `unit`."""
    unit: str = "m"
    """'m' (metres on the ground) or 'um' (micrometres in the specimen)."""

    def __str__(self) -> str:
        return f"{self.y:.4g} x {self.x:.4g} {self.unit}/px"


@dataclass(frozen=True)
class Georeference:
    """Position of the pixels on the earth, exactly as the file says; nothing is fitted or rounded."""

    crs: str | None = None
    """WKT of the coordinate reference system; None if there is none."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine (a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f; None if there is none."""
    gcps: tuple[tuple[float, float, float, float, float], ...] = ()
    """Ground control points (row, col, x, y, z) in `crs`; () if the file has a transform."""
    rpcs: tuple[tuple[str, str], ...] = ()
    """Rational polynomial coefficients as GDAL's RPC metadata (name, value), sorted; () if there are none."""

    @property
    def on_earth(self) -> bool:
        """Whether the file says where on the earth the image lies; a slide's transform alone does not."""
        return bool(self.crs or self.gcps or self.rpcs)


@runtime_checkable
class Source(Protocol):
    """An image that can be read box by box.

    `tp.open_source` makes a source of a file or an array. Any object with these attributes and methods is a source too,
    and is accepted wherever a path is. It must be picklable, and `read` is called from several threads.

    Example:
        >>> import numpy as np
        >>> import tilepipe as tp
        >>> class Ramp:
        ...     name = "ramp"
        ...     shape = (1, 1000, 2000)
        ...     dtype = np.dtype("uint8")
        ...     resolution = georeference = None
        ...
        ...     def read(self, box):
        ...         return np.tile(np.arange(box.x0, box.x1).astype("uint8"), (1, box.height, 1))
        ...
        ...     def valid(self, box):
        ...         return None
        ...
        ...     def coarser(self, height, width):
        ...         return self
        ...
        ...     def identity(self):
        ...         return {"reader": "ramp"}
        >>> isinstance(Ramp(), tp.Source)
        True
        >>> tp.open_source(Ramp()).read(tp.Box(0, 7, 1, 10))
        array([[[7, 8, 9]]], dtype=uint8)
    """

    @property
    def name(self) -> str:
        """Name of the image in messages: the path, or 'array'."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) at full resolution."""

    @property
    def dtype(self) -> DType:
        """Type of the pixels: uint8, uint16, int16 or float32."""

    @property
    def resolution(self) -> Resolution | None:
        """Pixel size at full resolution, or None if the image does not say it."""

    @property
    def georeference(self) -> Georeference | None:
        """Position on the earth for rasters; None for slides and arrays."""

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width) of `dtype`.

        Outside the image, pixels are reflected at its true edge. Raises `InputError` if the file cannot be decoded.
        """

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return whether each pixel holds image data, (box.height, box.width) bool; None if all pixels do.

        Pixels outside the image hold no image data.
        """

    def coarser(self, height: int, width: int) -> Source:
        """Return the image's own smaller version (pyramid level) from which to resample to `height` x `width` pixels.

        The smaller version has at least `height` rows and `width` columns and covers the same ground. If there is
        none, the source itself is returned.
        """

    def identity(self) -> JSON:
        """Return what decides the pixels: the hash of the content and the reader. The run key uses it.

        The result holds JSON types only.
        """


def reflect(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return for each index in [start, stop) its mirror image in [0, size); the edge pixel is not repeated."""
    index = np.arange(start, stop)
    # A single pixel has nothing to mirror, and its period would be 0.
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.asarray(np.minimum(index, period - index), dtype=np.intp)


def all_finite(pixels: Array) -> NDArray[np.bool_]:
    """Return where no band of (bands, height, width) pixels is NaN or infinite, (height, width)."""
    return np.asarray(np.isfinite(pixels).all(axis=0))


def read_reflected(box: Box, height: int, width: int, read_inside: Callable[[Box], NDArray[Kind]]) -> NDArray[Kind]:
    """Return `box` of a height x width image, mirrored at its true edges; `read_inside` gets a box inside the image.

    The last two axes of the array are (y, x).
    """
    if Box.of_shape(height, width).contains(box):
        return read_inside(box)
    # Readers are asked for pixels inside the image only: rasterio's own reads beyond the edge fill with nodata or 0,
    # and versions of it differ.
    rows, columns = reflect(box.y0, box.y1, height), reflect(box.x0, box.x1, width)
    hull = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    inside = read_inside(hull)
    return np.ascontiguousarray(inside[..., (rows - hull.y0)[:, None], (columns - hull.x0)[None, :]])
