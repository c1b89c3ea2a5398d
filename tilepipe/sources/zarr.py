"""ZarrSource: reads Zarr v2 and v3 arrays and OME-Zarr (NGFF 0.4, 0.5) images."""

from __future__ import annotations

import hashlib
import lzma
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Georeference, Resolution, Source, all_finite, read_reflected
from tilepipe.sources.checks import (
    check_dtype,
    check_size,
    decoding_bytes,
    given_resolution,
    pick,
    pick_bands,
    usable,
)
from tilepipe.sources.chunks import Chunks
from tilepipe.sources.zarr_array import coding, open_zarr, read_part
from tilepipe.sources.zarr_metadata import Metadata, array_axes, multiscale, pick_several, planes
from tilepipe.text import JSON

if TYPE_CHECKING:
    from zarr.types import AnyArray

USUAL_BYTES = 64 << 20
"""Largest memory that decoding of small chunks takes [bytes]."""


class ZarrSource:
    """A Zarr image as a source: an array, or an OME-Zarr multiscale group with its levels.

    Axes are taken by name (OME-Zarr axes or Zarr v3 dimension names; without names (y, x), (c, y, x), (t, c, y, x),
    (t, c, z, y, x)). `bands` picks channels by number from 1; `z` and `t` pick planes from 0, and must be given if
    there are several planes. `resolution` overrides the pixel size; a number is in metres.
    Raises `InputError` for folders that are no image, other dtypes and chunks too large to decode.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        bands: Sequence[int] | None = None,
        scene: int | None = None,
        z: int | None = None,
        t: int | None = None,
        resolution: Resolution | float | None = None,
    ) -> None:
        self.name = str(path)
        self._root = Path(path).absolute()
        node = self._node("")
        if isinstance(node, zarr.Array):
            said = Metadata(array_axes(self.name, node))
        else:
            said = multiscale(self.name, node, scene)
        number, self.notes = pick_several(self.name, scene, said.images)
        self._axes = axes = said.axes
        self._levels = [ZarrPlanes(self, self._node(part), part) for part in said.levels]
        whole = self._levels[0].array
        self._picks = {
            "z": pick(self.name, "z", z, planes(whole, axes, "z")),
            "t": pick(self.name, "t", t, planes(whole, axes, "t")),
        }
        given = {"scene": number if said.images > 1 else None, "z": z, "t": t}
        self.selected = {name: value for name, value in given.items() if value is not None}
        self._bands = pick_bands(self.name, bands, planes(whole, axes, "c"))
        self.resolution = given_resolution(resolution, "m") or said.resolution
        for level in self._levels:
            level.check()

    def _node(self, part: str) -> AnyArray | zarr.Group:
        """Return the array or group at the path `part` below the image, opened."""
        return open_zarr(self.name, self._root / part)

    def _chunks(self, array: AnyArray, part: str) -> Chunks:
        """Return the stored chunks of the array of a level."""
        return Chunks(self.name, array, self._root / part, self._root)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) at full resolution."""
        return self._levels[0].shape

    @property
    def dtype(self) -> DType:
        """Type of the pixels."""
        return self._levels[0].dtype

    @property
    def lossy(self) -> bool:
        """Whether the pixels may differ from the written values."""
        return self._levels[0].chunks.lossy

    @property
    def georeference(self) -> Georeference | None:
        """None: the image has no position on the earth."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), reflected outside the image.

        Raises `InputError`, which names image and box, if a chunk cannot be decoded.
        """
        return self._levels[0].read(box)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return False outside the image and where a float is not finite; None if all pixels are valid."""
        return self._levels[0].valid(box)

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return self.dtype.kind != "f"

    def coarser(self, height: int, width: int) -> Source:
        """Return the smallest level with at least `height` x `width` pixels; this source if that is the first level."""
        fit = [level for level in self._levels if level.shape[1] >= height and level.shape[2] >= width]
        return fit[-1] if fit and fit[-1] is not self._levels[0] else self

    def identity(self) -> JSON:
        """Return a hash of the chunks of all levels and of their coding, with the bands and planes that are picked.

        Other files in the folder, and attributes that do not decide pixels, do not count.
        """
        digest = hashlib.sha256()
        for level in self._levels:
            # A zero byte ends each text, as no name can hold one.
            digest.update(f"{level.part} {coding(level.array)}\0".encode())
            # The stored bytes are hashed, not the pixels, so nothing has to be decoded.
            for key, file in level.chunks.files():
                digest.update(f"{level.part}/{key}\0".encode())
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
        return {"reader": "zarr", "sha256": digest.hexdigest(), **self._picked()}

    def _picked(self) -> JSON:
        """Return the part of the arrays that is read, as JSON types."""
        return {"shape": list(self.shape), "bands": list(self._bands), **self._picks, "axes": self._axes}

    @cached_property
    def cache_bytes(self) -> int:
        """Memory that decoding takes in a process beyond the pixels that are returned [bytes]."""
        # This is kept, since the sizes of large chunks are looked up file by file.
        return USUAL_BYTES + max(
            decoding_bytes(level.piece_bytes, level.chunks.stored_bytes(level.piece_bytes), level.chunks.copies)
            for level in self._levels
        )

    @property
    def files(self) -> list[Path]:
        """Path of the folder."""
        return [self._root]


class ZarrPlanes:
    """One level of a Zarr image as a source."""

    def __init__(self, image: ZarrSource, array: AnyArray | zarr.Group, part: str) -> None:
        if not isinstance(array, zarr.Array):
            raise InputError(f"{image.name}: {part} is listed as a level of the image, but is no array")
        self.image = image
        self.array = array
        self.part = part
        self.name = image.name
        self.piece_bytes = int(np.prod(array.chunks)) * array.dtype.itemsize
        self.chunks = image._chunks(array, part)

    def check(self) -> None:
        """Raise `InputError` for dtypes that are not read and for chunks too large to decode."""
        check_dtype(self.name, self.array.dtype, "Convert it: zarr.save('out.zarr', array.astype('float32'))")
        check_size(self.name, self.shape, self.piece_bytes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) of the level."""
        axes = self.image._axes
        height, width = (int(self.array.shape[axes.index(axis)]) for axis in "yx")
        return len(self.image._bands), height, width

    @property
    def dtype(self) -> DType:
        """Type of the pixels, in native byte order."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    @property
    def resolution(self) -> Resolution | None:
        """Pixel size of the level: the image's pixel size times the exact ratio of sizes, per axis."""
        known, (_, full_height, full_width) = self.image.resolution, self.image.shape
        _, height, width = self.shape
        return known and Resolution(known.y * full_height / height, known.x * full_width / width, known.unit)

    @property
    def georeference(self) -> Georeference | None:
        """None: the image has no position on the earth."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), which counts pixels of the level.

        Outside the level, pixels are reflected. Raises `InputError` if a chunk cannot be decoded.
        """
        return read_reflected(box, *self.shape[1:], self._inside)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return False outside the level and where a float is not finite; None if all pixels are valid."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None and self.dtype.kind == "f":
            mask = all_finite(self._inside(inside))
        return usable(mask, box, *self.shape[1:])

    def coarser(self, height: int, width: int) -> Source:
        """Return the image's smallest level with at least `height` x `width` pixels."""
        return self.image.coarser(height, width)

    def identity(self) -> JSON:
        """Return the image's identity and the level."""
        return {**self.image.identity(), "level": self.part}

    def _inside(self, box: Box) -> Pixels:
        axes, bands = self.image._axes, self.image._bands
        if "c" in axes and bands != tuple(range(1, self.array.shape[axes.index("c")] + 1)):
            # Zarr's plain selection takes slices, and bands may come in any order.
            return np.concatenate([self._select(box, slice(band - 1, band)) for band in bands])
        return self._select(box, slice(None))

    def _select(self, box: Box, channels: slice) -> Pixels:
        axes = self.image._axes
        picks = self.image._picks
        parts: dict[str, slice] = {"y": slice(box.y0, box.y1), "x": slice(box.x0, box.x1), "c": channels}
        where = tuple(parts[axis] if axis in parts else picks[axis] for axis in axes)
        try:
            self.chunks.check(where)
            found = read_part(self.array, where)
        # Each decoder has errors of its own.
        except (OSError, RuntimeError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InputError(
                f"{self.name} cannot be read in rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}: {error}. "
                "A chunk may be truncated or damaged."
            ) from error
        # An axis that is picked by a number is not in the result.
        left = [axis for axis in axes if axis in "cyx"]
        found = found.transpose([left.index(axis) for axis in "cyx" if axis in left])
        return np.ascontiguousarray(found if "c" in left else found[None], dtype=self.dtype)
