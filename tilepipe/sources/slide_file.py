"""SlideFile: reads with OpenSlide the properties of a slide and the pixels of its levels.

ICC profiles are not applied: models see the colours that are stored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.acquired import slide_time
from tilepipe.sources.base import Resolution
from tilepipe.sources.checks import LARGE_PIECE_BYTES, READERS, SPARE_BYTES, decoding_alone
from tilepipe.sources.companions import check_companions, slide_files
from tilepipe.sources.handles import Handles, stamp, unchanged

READER = f"openslide {openslide.__library_version__}"
"""Name and version of the library that reads slides."""
SLIDE_CACHE_BYTES = 64 << 20
"""Size of OpenSlide's cache of decoded tiles, for all slides and threads of a process [bytes]."""
TILE_BYTES = 11
"""Memory for a pixel of a stored tile while it is decoded [bytes]: the stored pixel, and its copy for the cache."""
WAVELETS = {"aperio": 24, "dicom": 24}
"""Memory for such a pixel [bytes] in formats whose tiles may be JPEG 2000, which is decoded to 32 bits per colour."""
PIECE_PIXELS = 4 << 20
"""Number of pixels that OpenSlide renders at once; each takes about 12 bytes."""

Painted = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]
"""Colours (3, y, x), and a mask (y, x), True where alpha is above 0; the mask is None if all of it is True."""

CZI = b"ZISRAWFILE"
"""First bytes of a Zeiss CZI."""
OF_CZI = (
    f" here: OpenSlide {openslide.__library_version__} reads CZI of bright field that is uncompressed or by Zstandard, "
    "not by JPEG XR. Write it as OME-TIFF: bfconvert in.czi out.ome.tif, or export it in QuPath or ZEN"
)
"""What to do with a CZI that OpenSlide cannot open, as the end of a sentence."""

_handles: Handles[openslide.OpenSlide] = Handles(lambda slide: slide.close())


@lru_cache(maxsize=1)
def _tile_cache(process: int) -> openslide.OpenSlideCache:
    return openslide.OpenSlideCache(SLIDE_CACHE_BYTES)


def slide_format(path: str | Path) -> str | None:
    """Return OpenSlide's name of a file's format ('aperio', 'mirax', 'generic-tiff', ...); None if it is no slide.

    Raises `InputError` if the file names files outside its folder.
    """
    check_companions(Path(path))
    try:
        found = openslide.OpenSlide.detect_format(str(path))
    except openslide.OpenSlideError:
        return None
    return None if found is None else str(found)


class SlideFile:
    """A slide on disk: its levels, its bounds, its pixel size, and the colours and the alpha of a box of a level.

    Raises `InputError` if OpenSlide cannot open the slide.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self.stamp = stamp(path)
        check_companions(Path(path))
        try:
            with openslide.OpenSlide(self.stamp.path) as slide:
                self._describe(slide)
        except openslide.OpenSlideError as error:
            raise InputError(f"{self.name} cannot be opened as a slide{_remedy(self.stamp.path)}: {error}") from error

    def _describe(self, slide: openslide.OpenSlide) -> None:
        properties = slide.properties
        self.levels = tuple((int(height), int(width)) for width, height in slide.level_dimensions)
        self.downsamples = tuple(float(value) for value in slide.level_downsamples)
        self.vendor = str(properties.get("openslide.vendor", "unknown"))
        self.resolution = micrometres(properties)
        self.objective = str(properties.get("openslide.objective-power", ""))
        self.acquired = slide_time(properties)
        self.bounds = slide_bounds(properties, *self.levels[0])
        sides = [
            [int(properties.get(f"openslide.level[{k}].tile-{side}", 0)) for side in ("height", "width")]
            for k in range(slide.level_count)
        ]
        self._tile_pixels = max(height * width for height, width in sides)
        colour = properties.get("openslide.background-color", "FFFFFF")
        self._background = np.array(list(bytes.fromhex(colour)), dtype=np.uint16)

    @property
    def cache_bytes(self) -> int:
        """Memory that OpenSlide keeps in a process, and that decoding takes [bytes]."""
        at_once = (1 if self._large else READERS) * self._tile_pixels * WAVELETS.get(self.vendor, TILE_BYTES)
        return SLIDE_CACHE_BYTES + max(0, at_once - SPARE_BYTES)

    @property
    def _large(self) -> bool:
        """Whether tiles are decoded by one thread at a time."""
        return 4 * self._tile_pixels > LARGE_PIECE_BYTES

    @property
    def files(self) -> list[Path]:
        """All files that hold the slide's pixels."""
        return slide_files(Path(self.stamp.path), self.vendor)

    def paint(self, level: int, box: Box) -> Painted:
        """Return the colours and the alpha mask of `box`, which lies inside `level` and counts its pixels.

        Raises `InputError`, which names slide, level and box, if a tile cannot be decoded.
        """
        unchanged(self.stamp)
        colours = np.empty((3, *box.shape), dtype=np.uint8)
        mask = np.empty(box.shape, dtype=np.bool_)
        rows = max(1, PIECE_PIXELS // box.width)
        for y in range(box.y0, box.y1, rows):
            piece = Box(y, box.x0, min(y + rows, box.y1), box.x1)
            rgba = self._render(level, piece)
            part = piece.slices_in(box)
            colours[(slice(None), *part)] = self._composite(rgba)
            mask[part] = rgba[..., 3] > 0
        return colours, None if mask.all() else mask

    def _render(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return straight RGBA (y, x, 4); a handle that failed is closed, since OpenSlide's errors stay with it."""
        down = self.downsamples[level]  # OpenSlide divides level-0 positions by this, for both axes
        height, width = self.levels[level]
        # At the far edges, the corner is not moved beyond the position: there is nothing to blend with.
        corner = (
            math.floor(box.x0 * down + (0.5 if box.x1 < width else 0.0)),
            math.floor(box.y0 * down + (0.5 if box.y1 < height else 0.0)),
        )
        try:
            slide = _handles.get(self.stamp, self._open)
            with decoding_alone(os.getpid()) if self._large else nullcontext():
                return np.asarray(slide.read_region(corner, level, (box.width, box.height)))
        except openslide.OpenSlideError as error:
            _handles.drop(self.stamp)
            raise InputError(
                f"{self.name} cannot be read at level {level}, rows {box.y0} to {box.y1}, "
                f"columns {box.x0} to {box.x1}: {error}. The slide may be truncated or damaged there."
            ) from error

    def _composite(self, rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the colours (3, y, x) of straight RGBA on the background, rounded."""
        colours, alpha = rgba[..., :3], rgba[..., 3:]
        if not alpha.all() or alpha.min() < 255:
            # The sum is at most 255 * 255 + 127, which 16 bits hold.
            over = alpha.astype(np.uint16)
            mixed = (colours * over + self._background * (255 - over) + 127) // 255
            colours = mixed.astype(np.uint8)
        return colours.transpose(2, 0, 1)

    def _open(self) -> openslide.OpenSlide:
        slide = openslide.OpenSlide(self.stamp.path)
        # All slides and threads share one cache: if each handle had its own, memory would exceed the promised limit.
        slide.set_cache(_tile_cache(os.getpid()))
        return slide


def _remedy(path: str) -> str:
    """Return what to do with a slide of a format that OpenSlide reads in part only; '' for others."""
    with open(path, "rb") as file:
        return OF_CZI if file.read(len(CZI)) == CZI else ""


def micrometres(properties: Mapping[str, str]) -> Resolution | None:
    """Return the pixel size that a slide states, per axis; None if it states none, or a size no microscope has."""
    try:
        y, x = float(properties["openslide.mpp-y"]), float(properties["openslide.mpp-x"])
    except (KeyError, ValueError):
        return None
    return Resolution(y, x, "um") if 0.01 < y < 100 and 0.01 < x < 100 else None


def slide_bounds(properties: Mapping[str, str], height: int, width: int) -> Box:
    """Return the part of the level-0 canvas that was scanned: `openslide.bounds-*`, or all of it."""
    canvas = Box.of_shape(height, width)
    try:
        x, y, w, h = (int(properties[f"openslide.bounds-{what}"]) for what in ("x", "y", "width", "height"))
        # A file that stores no tile states bounds of no pixels.
        return ((Box(y, x, y + h, x + w) & canvas) if min(h, w) > 0 else None) or canvas
    except (KeyError, ValueError):
        return canvas
