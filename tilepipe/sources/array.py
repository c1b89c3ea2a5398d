"""ArraySource: an image in memory or a lazy array; the reference that other sources are tested against."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Array, DType, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Georeference, Resolution, Source, all_finite, read_reflected
from tilepipe.sources.checks import LARGE_PIECE_BYTES, READERS, decoding_alone, given_resolution, usable
from tilepipe.sources.content import array_sha256, dask_sha256
from tilepipe.sources.data_array import taken
from tilepipe.sources.foreign import Plain, Taken, axes_checked, hidden, named_axes, plain, read_as, unmasked
from tilepipe.sources.georeference import ground_resolution
from tilepipe.text import JSON

if TYPE_CHECKING:
    import dask.array as da

USUAL_BYTES = 64 << 20
"""Memory that a process takes beside the pixels if nothing large is computed [bytes]."""
WIDEST = 8
"""Largest size of a value while a graph is computed [bytes]: each step of a graph has one chunk and makes another."""


class ArraySource:
    """An array of numpy, dask, torch, zarr or xarray as a source; a lazy array is computed box by box.

    `array` is (bands, height, width) or (height, width). If its axes have names (xarray, zarr), they are put in this
    order. The types uint8, uint16, int16 and float32 are read as they are. float64 and float16 become float32, rounded
    to the nearest value with 24 bits; a value beyond 3.4e38 becomes infinite and is no image data. bool becomes uint8
    (0 and 1), and int8 becomes int16. An array of another type of whole numbers that lies in memory becomes the first
    of uint8, uint16 and int16 that holds all its values; a lazy array must be converted with `.astype(...)`. The given
    array is not changed, and the identity of the source is the identity of the given array.
    `valid` is (height, width), True where a pixel holds image data. A masked array brings its own mask (False where
    every band is masked), and so does an xarray.DataArray with a nodata value (False where every band is nodata). In
    floats only finite pixels are valid. A `resolution` that is a number is in metres. The coordinates and the CRS of a
    DataArray are its position.
    Raises `InputError` for another shape or dtype, and says what to type.
    """

    def __init__(
        self,
        array: Any,
        *,
        valid: NDArray[np.bool_] | None = None,
        resolution: Resolution | float | None = None,
        georeference: Georeference | None = None,
        name: str = "array",
    ) -> None:
        known = taken(array, name) if named_axes(array) else Taken(axes_checked(plain(array, name), name))
        self._valid: Plain | None = None if valid is None else np.asarray(valid, dtype=np.bool_)
        if valid is None:
            mask = hidden(known.array)
            own: list[Any] = [
                part for part in (known.valid, None if mask is None else ~mask.all(axis=0)) if part is not None
            ]
            # If there is one mask, it is both the first and the last.
            self._valid = own[0] & own[-1] if own else None
        self._array = unmasked(known.array)
        self._dtype = read_as(self._array, name)
        self.name = name
        self.axes_named, self.file_bands, self.notes = known.named, known.bands, known.notes
        self.georeference = georeference or known.georeference
        self.resolution = given_resolution(resolution, "m") or ground_resolution(known.georeference, *self.shape[1:])
        if self._valid is not None and self._valid.shape != self.shape[1:]:
            raise InputError(f"{name}: the valid mask is {self._valid.shape}, the image {self.shape[1:]} pixels")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width)."""
        bands, height, width = self._array.shape
        return int(bands), int(height), int(width)

    @property
    def dtype(self) -> DType:
        """Type of the pixels as they are read."""
        return self._dtype

    @property
    def lazy(self) -> bool:
        """Whether pixels are computed when they are read."""
        return not isinstance(self._array, np.ndarray)

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), reflected outside the image."""
        return read_reflected(box, *self.shape[1:], self._inside)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a pixel holds image data, or None when all do."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None and self._valid is not None:
            mask = np.asarray(_computed(self._valid, inside.slices_in(Box.of_shape(*self.shape[1:]))))
        if inside is not None and self.dtype.kind == "f":
            finite = all_finite(self._inside(inside))
            mask = finite if mask is None else mask & finite
        return usable(mask, box, *self.shape[1:])

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return self._valid is None and self.dtype.kind != "f"

    def coarser(self, height: int, width: int) -> Source:
        """Return this source: an array has no pyramid."""
        return self

    @property
    def held_bytes(self) -> int:
        """Size of the pixels and their mask in the memory of each process [bytes]."""
        pixels = int(self._array.nbytes) if isinstance(self._array, np.ndarray) else 0
        return pixels + (0 if self._valid is None else int(self._valid.nbytes))

    @property
    def cache_bytes(self) -> int:
        """Memory that a process takes beside `held_bytes` [bytes]: for a dask array, the chunks that are computed."""
        if isinstance(self._array, np.ndarray):
            return USUAL_BYTES
        values = _largest_chunk(self._array)
        at_once = 1 if values * WIDEST > LARGE_PIECE_BYTES else READERS
        return max(USUAL_BYTES, at_once * values * 2 * (WIDEST + self.dtype.itemsize))

    @property
    def identity_bytes(self) -> int:
        """Bytes of pixels that must be computed to tell the image from others; 0 if the pixels lie in memory."""
        return 0 if isinstance(self._array, np.ndarray) else int(self._array.nbytes)

    def identity(self) -> JSON:
        """Return a hash of the pixels, with shape, dtype, mask and position; a dask array is computed once for this."""
        known: JSON = {"reader": "array", "shape": list(self.shape), "dtype": self.dtype.name}
        if isinstance(self._array, np.ndarray):
            known["sha256"] = array_sha256(self._array)
        else:
            known["dask_sha256"] = dask_sha256(self._array)
        # The same bytes mean other pixels in another type.
        if self._array.dtype != self._dtype:
            known["from"] = self._array.dtype.str
        if (mask := self._valid) is not None:
            known["valid_sha256"] = array_sha256(mask) if isinstance(mask, np.ndarray) else dask_sha256(mask)
        if self.resolution is not None or self.georeference is not None:
            known["position"] = [place and asdict(place) for place in (self.resolution, self.georeference)]
        return known

    def _inside(self, box: Box) -> Pixels:
        """Return a copy of the pixels of a box inside the image, in the dtype in which they are read.

        Raises `InputError` if the array is computed as another shape or dtype than it says.
        """
        rows, columns = box.slices_in(Box.of_shape(*self.shape[1:]))
        part = _computed(self._array, (slice(0, self.shape[0]), rows, columns))
        if isinstance(part, np.ma.MaskedArray):
            raise InputError(
                f"{self.name} is computed as masked arrays, which it does not say; give map_blocks "
                "meta=numpy.ma.masked_array([], dtype=...), or array.compute()"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # too large for float32 is infinite, so no image data
            pixels = np.array(part, dtype=self._dtype)
        # Dask does not check what its functions return, so a part is compared with what the array says of itself.
        exact = part.dtype.kind == self._array.dtype.kind == "f" or part.dtype == self._array.dtype
        if pixels.shape != (self.shape[0], *box.shape) or not (exact or np.array_equal(pixels, part)):
            raise InputError(
                f"{self.name} says that {box} is {(self.shape[0], *box.shape)} {self._array.dtype}, but it is computed "
                f"as {part.shape} {part.dtype}; give map_blocks the chunks and the dtype that come out, or "
                "array.compute()"
            )
        return pixels


def _computed(array: Plain, where: tuple[slice, ...]) -> Array:
    """Return a part of an array as a numpy array; a lazy array is computed, large chunks one at a time in a process.

    If a chunk is no plain numpy array (but a masked array), or has another shape, that chunk is returned at once.
    """
    if isinstance(array, np.ndarray):
        return array[where]
    if _largest_chunk(array) * WIDEST <= LARGE_PIECE_BYTES:
        return _compute(array[where])
    whole: list[Array] = []
    cuts = [list(_cut(part, sizes)) for part, sizes in zip(where, array.chunks, strict=True)]
    for chunk in itertools.product(*cuts):
        with decoding_alone(os.getpid()):
            found = _compute(array[chunk])
            if type(found) is not np.ndarray or found.shape != tuple(part.stop - part.start for part in chunk):
                return found
            whole.append(found.copy())  # a view would keep the whole chunk
    for axis in reversed(range(array.ndim)):  # the last axis varies fastest
        count = len(cuts[axis])
        whole = [np.concatenate(whole[k : k + count], axis) for k in range(0, len(whole), count)]
    return whole[0]


def _cut(part: slice, sizes: tuple[int, ...]) -> Iterator[slice]:
    """Yield the pieces of a range of pixels that lie in one chunk each; `sizes` are the sizes of all chunks."""
    ends = list(itertools.accumulate(sizes))
    for start, end in zip([0, *ends], ends, strict=False):
        if start < part.stop and part.start < end:
            yield slice(max(start, part.start), min(end, part.stop))


def _largest_chunk(array: da.Array) -> int:
    """Return the number of values of the largest chunk of a dask array."""
    return math.prod(int(max(sizes)) for sizes in array.chunks)


def _compute(part: da.Array) -> Array:
    import dask

    with dask.config.set(scheduler="synchronous"):  # the caller's threads are the parallelism
        found: Array = part.compute()
        return found
