"""ArraySource: an image in memory or a dask array; the reference that other sources are tested against."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Georeference, Resolution, Source, read_reflected
from tilepipe.sources.checks import check_dtype, check_size, stated, usable
from tilepipe.sources.content import array_sha256, dask_sha256


class ArraySource:
    """A numpy or dask array as a source; dask arrays are computed box by box.

    `array` is (bands, height, width) or (height, width), of uint8, uint16, int16 or float32. `valid` is (height,
    width), True where a pixel holds image data; a numpy masked array brings its own. In floats only finite pixels are
    valid. `resolution` is in metres where it is a number.
    Raises `InputError` for another shape or dtype.
    """

    def __init__(
        self,
        array: NDArray[Any] | da.Array,
        *,
        valid: NDArray[np.bool_] | None = None,
        resolution: Resolution | float | None = None,
        georeference: Georeference | None = None,
        name: str = "array",
    ) -> None:
        if isinstance(array, np.ma.MaskedArray) and valid is None:
            hidden = np.ma.getmaskarray(array)
            valid = np.logical_not(hidden if hidden.ndim == 2 else hidden.all(axis=0))
        self._array = _bands_first(array, name)
        self._valid = None if valid is None else np.asarray(valid, dtype=np.bool_)
        self.name = name
        self.resolution = stated(resolution, "m")
        self.georeference = georeference
        if self._valid is not None and self._valid.shape != self.shape[1:]:
            raise InputError(f"{name}: the valid mask is {self._valid.shape}, the image {self.shape[1:]} pixels")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width)."""
        bands, height, width = self._array.shape
        return int(bands), int(height), int(width)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(self._array.dtype)

    @property
    def lazy(self) -> bool:
        """Whether pixels are computed when they are read."""
        return not isinstance(self._array, np.ndarray)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the pixels of `box`, (bands, box.height, box.width), reflected outside the image."""
        return read_reflected(box, *self.shape[1:], self._inside)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a pixel holds image data, or None when all do."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None and self._valid is not None:
            mask = self._valid[inside.slices_in(Box.of_shape(*self.shape[1:]))]
        if inside is not None and self.dtype.kind == "f":
            finite = np.isfinite(self._inside(inside)).all(axis=0)
            mask = finite if mask is None else mask & finite
        return usable(mask, box, *self.shape[1:])

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return self._valid is None and self.dtype.kind != "f"

    def coarser(self, height: int, width: int) -> Source:
        """Return itself: an array has no pyramid."""
        return self

    @property
    def identity_bytes(self) -> int:
        """Bytes that must be computed to tell the image from others; 0 where they lie in memory."""
        return 0 if isinstance(self._array, np.ndarray) else int(self._array.nbytes)

    def identity(self) -> dict[str, Any]:
        """Return a hash of the pixels, with shape, dtype, mask and position; a dask array is computed once for it."""
        known: dict[str, Any] = {"reader": "array", "shape": list(self.shape), "dtype": self.dtype.name}
        if isinstance(self._array, np.ndarray):
            known["sha256"] = array_sha256(self._array)
        else:
            known["dask_sha256"] = dask_sha256(self._array)
        if self._valid is not None:
            known["valid_sha256"] = array_sha256(self._valid)
        if self.resolution is not None or self.georeference is not None:
            known["position"] = [place and asdict(place) for place in (self.resolution, self.georeference)]
        return known

    def _inside(self, box: Box) -> NDArray[Any]:
        rows, columns = box.slices_in(Box.of_shape(*self.shape[1:]))
        part = self._array[:, rows, columns]
        if isinstance(part, np.ndarray):
            return part.copy()
        with dask.config.set(scheduler="synchronous"):  # the caller's threads are the parallelism
            return np.array(part.compute())


def _bands_first(array: NDArray[Any] | da.Array, name: str) -> NDArray[Any] | da.Array:
    """Return (bands, height, width) in native byte order, or refuse."""
    if isinstance(array, np.ndarray):
        array = np.asarray(array)
    if array.ndim not in (2, 3):
        raise InputError(f"{name} has {array.ndim} axes; give (bands, height, width) or (height, width)")
    if array.ndim == 2:
        array = array[None]
    if array.shape[-1] in (1, 3, 4) and array.shape[0] > 16 and array.shape[1] > 16:
        raise InputError(
            f"{name} is {array.shape}, which looks like (height, width, bands); "
            "give (bands, height, width): array.transpose(2, 0, 1)"
        )
    dtype = check_dtype(name, array.dtype, "Convert it first, for instance array.astype('float32').")
    check_size(name, (int(array.shape[0]), int(array.shape[1]), int(array.shape[2])))
    return array if array.dtype == dtype else array.astype(dtype)
