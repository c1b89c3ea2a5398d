"""Opens many GeoTIFFs quickly: files whose headers say the same, but for the place, are opened by GDAL once.

Opening a file by GDAL and checking it takes milliseconds, and most files of a mosaic differ in their place and pixels
only. So the tags of each file are read by tifffile, and a file whose tags are known already is not opened again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

import tifffile

from tilepipe.errors import InputError
from tilepipe.sources.beside import side_names
from tilepipe.sources.geo_drivers import JPEG_2000
from tilepipe.sources.geo_raster import RasterSource
from tilepipe.sources.georeference import Transform
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.handles import Stamp, stamp
from tilepipe.sources.stac_bands import ENDS

MOST_PAGES = 32
"""Largest number of pages (overviews and masks) whose tags are compared."""
STORED = (273, 279, 288, 289, 324, 325)
"""Tags that say where and how long the pieces of pixels are in the file."""
DATE = 306
NOWHERE: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Affine of a file without a position."""
SCALE, TIE_POINTS, AFFINE = 33550, 33922, 34264
"""Tags of the place: ModelPixelScale, ModelTiepoint and ModelTransformation."""


class Opened(NamedTuple):
    """A file that was opened."""

    known: Stamp
    """State of the file before it was opened."""
    kind: int
    """Index of the source among the kinds whose header says the same, but for the place."""
    transform: Transform
    """Affine of the file."""


class Header(NamedTuple):
    """The tags of a TIFF file."""

    same: int
    """Hash of all tags but those of the place and of the stored pieces."""
    origin: tuple[float, float]
    """Position (x, y) of the corner of the first pixel, or of its centre if the tags count from there."""


class Kinds:
    """The sources that stand for all files with the same header, and the files that were opened."""

    def __init__(self, *, placed: bool = True) -> None:
        """If `placed`, each file must have an affine position on the earth."""
        self._placed = placed
        self.sources: list[GeoTiffSource] = []
        """Sources, one for each kind of header."""
        self._known: dict[int, tuple[int, tuple[float, float]]] = {}
        self._names: dict[str, set[str]] = {}

    def open(self, paths: Sequence[str]) -> Iterator[Opened]:
        """Yield each file, opened. Raises `InputError` if one cannot be read or has no affine position."""
        for path in paths:
            known = stamp(path)
            header = None if self._has_side_files(known.path) else header_of(known)
            if header is not None and header.same in self._known:
                kind, (x, y) = self._known[header.same]
                a, b, c, d, e, f = self._place(kind)
                yield Opened(known, kind, (a, b, c + header.origin[0] - x, d, e, f + header.origin[1] - y))
                continue
            kind = self._opened(path)
            if header is not None:
                self._known[header.same] = kind, header.origin
            yield Opened(known, kind, self._place(kind))

    def _opened(self, path: str) -> int:
        with open(path, "rb") as file:
            start = file.read(16)
        jpeg2000 = start.startswith(JPEG_2000.magic)
        source = RasterSource(path, driver=JPEG_2000.name) if jpeg2000 else GeoTiffSource(path)
        if source.selected:
            raise InputError(f"{path} holds several images, so it cannot be a part of one; give it alone")
        where = source.georeference
        if self._placed and (where is None or where.transform is None):
            raise InputError(
                f"{path} has no position on the earth (no affine transform), so it has no place among the other files; "
                "label images that do not belong together in a batch: tilepipe batch run JOBS.yaml"
            )
        self.sources.append(source)
        return len(self.sources) - 1

    def _place(self, kind: int) -> Transform:
        where = self.sources[kind].georeference
        known = None if where is None else where.transform
        return known or NOWHERE

    def _has_side_files(self, path: str) -> bool:
        """Return whether a file lies beside `path` that may change what its header says; each folder is listed once."""
        folder = os.path.dirname(path)
        if folder not in self._names:
            self._names[folder] = set(os.listdir(folder))
        stem = os.path.splitext(path)[0]
        names = [*side_names(path), *(stem + end for end in ENDS)]
        return not self._names[folder].isdisjoint(os.path.basename(name) for name in names)


@lru_cache(maxsize=1 << 15)
def header_of(known: Stamp) -> Header | None:
    """Return the tags of a TIFF file; None if it cannot be read, or has no place that one point and a scale say.

    They are kept, since one command opens its image several times.
    """
    with suppress(OSError, ValueError, KeyError, IndexError, TypeError, tifffile.TiffFileError):
        with tifffile.TiffFile(known.path) as file:
            pages = []
            for page in file.pages:
                tags = page.tags  # type: ignore[union-attr]
                pages.append([(tag.code, tag.value) for tag in tags if tag.code not in (*STORED, DATE)])
                if len(pages) > MOST_PAGES:
                    return None
        first = dict(pages[0])
        origin = _origin(first)
        pages[0] = [(code, value) for code, value in pages[0] if code not in (TIE_POINTS, AFFINE)]
        turned = [value for k, value in enumerate(first.get(AFFINE, ())) if k not in (3, 7)]
        return Header(hash(repr((file.byteorder, file.is_bigtiff, turned, pages))), origin)
    return None


def _origin(tags: dict[int, tuple[float, ...]]) -> tuple[float, float]:
    """Return the position of pixel (0, 0). Raises `ValueError` if the tags place it by several points or none."""
    if AFFINE in tags:
        return float(tags[AFFINE][3]), float(tags[AFFINE][7])
    if len(tags.get(TIE_POINTS, ())) != 6 or SCALE not in tags:
        raise ValueError("no place, or one by ground control points")
    column, row, _, x, y, _ = tags[TIE_POINTS]
    return x - column * tags[SCALE][0], y + row * tags[SCALE][1]
