"""ArraySource: an image in memory or a lazy array; the reference that other sources are tested against."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Array, DType, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Georeference, Resolution, Source, all_finite, read_reflected
from tilepipe.sources.checks import LARGE_PIECE_BYTES, READERS, given_resolution, usable
from tilepipe.sources.content import array_sha256, chunks_sha256
from tilepipe.sources.dask_chunks import WIDEST, Chunks
from tilepipe.sources.data_array import taken
from tilepipe.sources.foreign import Taken, axes_checked, named_axes, plain, read_as
from tilepipe.sources.georeference import ground_resolution
from tilepipe.text import JSON

USUAL_BYTES = 64 << 20
"""Memory that a process takes beside the pixels if nothing large is computed [bytes]."""


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
        self._valid = None if valid is None else np.asarray(valid, dtype=np.bool_)
        # What a masked array or a nodata value says is looked up when pixels are read.
        self._nodata = known.nodata if valid is None else ()
        self._hides = valid is None and isinstance(getattr(known.array, "_meta", known.array), np.ma.MaskedArray)
        self._array = known.array
        self._chunks = None if isinstance(known.array, np.ndarray) else Chunks(known.array)
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
        if inside is None or self.complete:
            return usable(None, box, *self.shape[1:])
        masks: list[NDArray[np.bool_]] = []
        if self._valid is not None:
            masks.append(self._valid[inside.slices_in(Box.of_shape(*self.shape[1:]))])
        given = self._given(inside) if self._hides or self._nodata else None
        if given is not None and self._hides:
            masks.append(_shown(given))
        if given is not None and self._nodata:
            values = np.asarray(given)
            masks.append(np.logical_or.reduce([values[k] != value for k, value in enumerate(self._nodata)]))
        if self.dtype.kind == "f":
            masks.append(all_finite(self._inside(inside)))
        return usable(np.logical_and.reduce(masks), box, *self.shape[1:])

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return self._valid is None and self.dtype.kind != "f" and not (self._hides or self._nodata)

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
        if self._chunks is None:
            return USUAL_BYTES
        values = self._chunks.values
        at_once = 1 if values * WIDEST > LARGE_PIECE_BYTES else READERS
        return self._chunks.room + max(USUAL_BYTES, at_once * values * 2 * (WIDEST + self.dtype.itemsize))

    def forget(self) -> None:
        """Forget the chunks that were computed: what lies below a lazy array may have changed since."""
        if self._chunks is not None:
            self._chunks.forget()

    @property
    def on_cluster(self) -> bool:
        """Whether pixels lie on the workers of a Dask cluster, because the array was persisted there."""
        return self._chunks is not None and bool(self._chunks.futures)

    def bind(self, client: Any) -> None:
        """Let a copy in a worker of a Dask cluster get its pixels through the worker's own client."""
        if self._chunks is not None:
            self._chunks.bind(client)

    @property
    def identity_bytes(self) -> int:
        """Bytes of pixels that must be computed to tell the image from others; 0 if the pixels lie in memory."""
        return 0 if isinstance(self._array, np.ndarray) else int(self._array.nbytes)

    def identity(self) -> JSON:
        """Return a hash of the pixels, with shape, dtype, mask and position; a dask array is computed once for this."""
        known: JSON = {"reader": "array", "shape": list(self.shape), "dtype": self.dtype.name}
        if self._chunks is not None:
            known["dask_sha256"] = chunks_sha256(self._chunks.each())
        else:
            known["sha256"] = array_sha256(np.asarray(self._array))
        # The same bytes mean other pixels in another type.
        if self._array.dtype != self._dtype:
            known["from"] = self._array.dtype.str
        mask = self._valid
        if mask is None and self._hides and isinstance(self._array, np.ndarray):
            mask = _shown(self._array)
        if mask is not None:
            known["valid_sha256"] = array_sha256(mask)
        if self._nodata:
            known["nodata"] = [repr(value) for value in self._nodata]
        if self.resolution is not None or self.georeference is not None:
            known["position"] = [place and asdict(place) for place in (self.resolution, self.georeference)]
        return known

    def _inside(self, box: Box) -> Pixels:
        """Return a copy of the pixels of a box inside the image, in the dtype in which they are read.

        Raises `InputError` if the array is computed as another shape or dtype than it says.
        """
        part = self._given(box)
        if isinstance(part, np.ma.MaskedArray):
            if not isinstance(getattr(self._array, "_meta", self._array), np.ma.MaskedArray):
                raise InputError(
                    f"{self.name} is computed as masked arrays, which it does not say; give map_blocks "
                    "meta=numpy.ma.masked_array([], dtype=...), or array.compute()"
                )
            part = np.ma.getdata(part)
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

    def _given(self, box: Box) -> Array:
        """Return the pixels of a box inside the image as the array has them; a lazy array is computed."""
        where = (slice(0, self.shape[0]), *box.slices_in(Box.of_shape(*self.shape[1:])))
        if self._chunks is not None:
            return self._chunks.read(where)
        found: Array = self._array[where]
        return found


def _shown(array: Array) -> NDArray[np.bool_]:
    """Return True where not all bands of a masked array are masked, (height, width)."""
    return np.asarray(~np.ma.getmaskarray(array).all(axis=0))
