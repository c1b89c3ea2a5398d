"""Mosaic: many GeoTIFFs that lie on one grid, as one source; each file is opened when its pixels are needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Georeference, Resolution, Source, read_reflected
from tilepipe.sources.checks import check_size, given_resolution, usable
from tilepipe.sources.georeference import ground_resolution
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.handles import contents_sha256
from tilepipe.sources.mosaic_files import Files
from tilepipe.sources.mosaic_grid import Laid, covered, lay_out
from tilepipe.sources.tiff_kinds import Opened
from tilepipe.text import JSON

PART_BYTES = 1 << 10
"""Memory that each process keeps for each file of a mosaic [bytes]."""
KIND_BYTES = 16 << 10
"""Memory that each process keeps for each file with a header of its own [bytes]."""
OPEN_BYTES = 16 << 20
"""Memory of the further files that threads keep open [bytes]."""


@dataclass(frozen=True)
class Composition:
    """What a mosaic is made of."""

    name: str
    """Name of the image in messages."""
    place: Path | None
    """Path that stands for the image on disk; None if there is none."""
    laid: Laid
    """The files on their grid."""
    kinds: tuple[GeoTiffSource, ...]
    """Sources that stand for all files with equal headers."""
    georeference: Georeference | None
    """Position on the earth of the grid."""
    bands: tuple[Band, ...]
    """Names and colours of the bands that can be picked."""
    numbers: tuple[int, ...]
    """Number in the files of each of these bands."""
    order: str
    """What decides which file lies on top, in words."""
    notes: tuple[str, ...] = ()
    """Sentences about files that were left out."""


class Mosaic:
    """GeoTIFFs on one grid of whole pixels as one source.

    Where files overlap, a pixel is that of the last file that holds image data there, as GDAL draws a virtual raster.
    Pixels that no file covers hold no image data.
    """

    def __init__(self, made: Composition, resolution: Resolution | float | None = None) -> None:
        """Take the files. Raises `InputError` if there are too many pixels."""
        self.name, self.place, self.parts, self.file_bands = made.name, made.place, made.laid.parts, made.bands
        self.dtype, self.georeference = made.kinds[0].dtype, made.georeference
        self.resolution = given_resolution(resolution, "m") or ground_resolution(made.georeference, *made.laid.shape)
        self.selected: dict[str, int | str] = {}
        self.allowed: tuple[str, ...] = ()
        self.lossy = any(kind.lossy for kind in made.kinds)
        self._made, self._kinds = made, made.kinds
        self.numbers = tuple(k for k, band in enumerate(made.bands, 1) if band.colour != "alpha")
        """Numbers of the bands that are read, from 1 in `file_bands`; all but alpha at first."""
        if self.numbers != made.kinds[0].numbers or made.numbers != tuple(range(1, len(made.numbers) + 1)):
            self._kinds = self._picked(self.numbers)
        self.shape = (len(self.numbers), *made.laid.shape)
        check_size(self.name, self.shape)
        self._sides = np.array([part.box.to_list() for part in self.parts], dtype=np.int64)
        self._overlap, self.whole = covered(self.parts, made.laid.shape) or (True, False)
        self.notes: tuple[str, ...] = (*made.notes, self._said(self._overlap))

    def _said(self, overlap: bool) -> str:
        _, height, width = self.shape
        over = f"; where files overlap, the last one in the order of {self._made.order} lies on top" if overlap else ""
        count = "1 file is" if len(self.parts) == 1 else f"{len(self.parts)} files are"
        return f"{self.name}: {count} read as one image of {height} x {width} pixels{over}"

    def _picked(self, numbers: Sequence[int]) -> tuple[GeoTiffSource, ...]:
        return tuple(kind.picking([self._made.numbers[number - 1] for number in numbers]) for kind in self._made.kinds)

    def picking(self, numbers: Sequence[int]) -> Mosaic:
        """Return the same files with other bands, by number from 1."""
        other = copy(self)
        other._kinds, other.numbers = self._picked(numbers), tuple(numbers)
        other.shape = (len(numbers), *self.shape[1:])
        return other

    @property
    def files(self) -> list[Path]:
        """Paths of the files, and of files beside them that GDAL reads."""
        beside = (file for kind in self._kinds for file in kind.files[1:])
        return list(dict.fromkeys([*(Path(part.known.path) for part in self.parts), *beside]))

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return self.whole and all(kind.complete for kind in self._kinds)

    @property
    def cache_bytes(self) -> int:
        """Memory that readers keep in a process, over all threads, beyond the pixels they return [bytes]."""
        return max(kind.cache_bytes for kind in self._kinds) + OPEN_BYTES

    @property
    def held_bytes(self) -> int:
        """Memory that each process keeps for the places and states of the files [bytes]."""
        return len(self.parts) * PART_BYTES + len(self._kinds) * KIND_BYTES

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), reflected outside the mosaic.

        Raises `InputError`, which names file and box, if the pixels cannot be decoded.
        """
        return read_reflected(box, *self.shape[1:], self._pixels)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a file holds image data, (box.height, box.width); None when all do."""
        if self.complete and Box.of_shape(*self.shape[1:]).contains(box):
            return None
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None if inside is None else self._valid(inside)
        return usable(mask, box, *self.shape[1:])

    def _valid(self, box: Box) -> NDArray[np.bool_]:
        mask = np.zeros(box.shape, np.bool_)
        for k, region, chosen in self._pieces(box):
            found = self._part(k, self._kinds).valid(self.parts[k].inside(region))
            here = mask[region.slices_in(box)]
            here[chosen] = True if found is None else found[chosen]
        return mask

    def coarser(self, height: int, width: int) -> Source:
        """Return this source: nobody knows how overviews were made, so they are not used."""
        return self

    def identity(self) -> JSON:
        """Return a hash over the content and the place of all files, in their order."""
        hashes = contents_sha256(tuple(part.known for part in self.parts))
        stated = [json.dumps(kind.stated(), sort_keys=True) for kind in self._kinds]
        digest = hashlib.sha256(json.dumps([kind.mask_sha256() for kind in self._kinds]).encode())
        for part, content in zip(self.parts, hashes, strict=True):
            place = [*part.box.to_list(), part.y, part.x]
            digest.update(f"{place} {content} {stated[part.kind]}\n".encode())
        return {
            "reader": "mosaic",
            "files": len(self.parts),
            "sha256": digest.hexdigest(),
            "shape": list(self.shape),
            "georeference": self.georeference and asdict(self.georeference),
        }

    def _pixels(self, box: Box) -> Pixels:
        over = self._over(box)
        if len(over) == 1 and self.parts[over[0]].box.contains(box):
            return self._part(over[0], self._kinds).read(self.parts[over[0]].inside(box))
        result = np.full((self.shape[0], *box.shape), self._fill, dtype=self.dtype)
        for k, region, chosen in self._pieces(box):
            found = self._part(k, self._kinds).read(self.parts[k].inside(region))
            here = result[(slice(None), *region.slices_in(box))]
            np.copyto(here, found, where=chosen)
        return result

    @property
    def _fill(self) -> float:
        """Value of pixels that no file covers: the nodata value of the first file, else 0."""
        return self._kinds[self.parts[0].kind].nodata or 0

    def _over(self, box: Box) -> list[int]:
        """Return the files that meet a box, in order."""
        top, left, bottom, right = self._sides.T
        meets = (top < box.y1) & (box.y0 < bottom) & (left < box.x1) & (box.x0 < right)
        return [int(k) for k in np.flatnonzero(meets)]

    def _pieces(self, box: Box) -> Iterator[tuple[int, Box, NDArray[np.bool_]]]:
        """Yield (file, the part of `box` that it covers, the pixels of this part that are taken from it).

        The pixels are those that hold image data in this file and in no later one; pixels that hold none in any file
        are taken from the last file that covers them. So a pixel does not depend on the box that is read.
        """
        over = [(k, region) for k in reversed(self._over(box)) if (region := box & self.parts[k].box)]
        open_pixels = np.ones(box.shape, np.bool_)
        bare: list[tuple[int, Box]] = []
        for n, (k, region) in enumerate(over):
            here = open_pixels[region.slices_in(box)]
            if not here.any():
                continue
            chosen = here.copy()
            if self._overlap and any(region & other for m, (_, other) in enumerate(over) if m != n):
                found = self._part(k, self._made.kinds).valid(self.parts[k].inside(region))
                if found is not None:
                    chosen &= found
                    bare.append((k, region))
            here &= ~chosen
            if chosen.any():
                yield k, region, chosen
        for k, region in bare:
            here = open_pixels[region.slices_in(box)]
            if here.any():
                chosen = here.copy()
                here[:] = False
                yield k, region, chosen

    def _part(self, k: int, kinds: Sequence[GeoTiffSource]) -> GeoTiffSource:
        """Return the source of a file; nothing is opened before it is read."""
        part = self.parts[k]
        return kinds[part.kind].at(part.known)

    def covers(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a file lies, (box.height, box.width), whatever it holds; None if files lie everywhere."""
        if self.whole and Box.of_shape(*self.shape[1:]).contains(box):
            return None
        mask = np.zeros(box.shape, np.bool_)
        for k in self._over(box):
            if (region := box & self.parts[k].box) is not None:
                mask[region.slices_in(box)] = True
        return mask


def mosaic_of(name: str, files: Files, opened: Sequence[Opened], kinds: Sequence[GeoTiffSource]) -> Composition:
    """Return the composition of opened files. Raises `InputError` if they are not parts of one image."""
    used = sorted({file.kind for file in opened})
    opened = [Opened(file.known, used.index(file.kind), file.transform) for file in opened]
    kinds = tuple(kinds[kind] for kind in used)
    laid = lay_out(opened, kinds)
    first = kinds[opened[0].kind]
    where = Georeference(first.georeference.crs if first.georeference else None, laid.transform)
    numbers = tuple(range(1, len(first.file_bands) + 1))
    return Composition(name, files.place, laid, kinds, where, first.file_bands, numbers, files.order, files.notes)
