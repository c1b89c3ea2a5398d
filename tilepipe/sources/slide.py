"""SlideSource: whole-slide images through OpenSlide, in level-0 pixels of the full canvas.

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

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Georeference, Resolution, Source, read_reflected
from tilepipe.sources.checks import (
    LARGE_PIECE_BYTES,
    READERS,
    SPARE_BYTES,
    check_size,
    decoding_alone,
    given_resolution,
    usable,
)
from tilepipe.sources.companions import check_companions, slide_files
from tilepipe.sources.handles import Handles, content_sha256, stamp, unchanged
from tilepipe.text import JSON

SLIDE_CACHE_BYTES = 64 << 20
"""OpenSlide's cache of decoded tiles, for all slides and threads of a process."""
DECODED_BLOCK = 512
"""Levels above 0 are read in blocks of this size on a fixed grid, so a pixel never depends on the box asked."""
BLOCKS_PER_THREAD = 32
"""Blocks of levels a thread keeps: at most 32 x 512 x 512 x 4 bytes (colours, mask) = 32 MiB."""
TILE_BYTES = 11
"""Bytes that a pixel of a stored tile takes while it is decoded: as stored, and as it goes to the cache."""
WAVELETS = {"aperio": 24, "dicom": 24}
"""The same in formats whose tiles may be JPEG 2000, which is decoded to 32 bits per colour."""
PIECE_PIXELS = 4 << 20
"""Pixels OpenSlide renders at once; it takes about 12 bytes for each."""

Painted = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]
"""(3, y, x) colours, and where alpha is above 0; None when it is everywhere."""

_handles: Handles[openslide.OpenSlide] = Handles(lambda slide: slide.close())
_masks: Handles[list[NDArray[np.bool_] | None]] = Handles(lambda _: None, limit=2)
_blocks: Handles[Painted] = Handles(lambda _: None, limit=BLOCKS_PER_THREAD)


@lru_cache(maxsize=1)
def _tile_cache(process: int) -> openslide.OpenSlideCache:
    return openslide.OpenSlideCache(SLIDE_CACHE_BYTES)


def slide_format(path: str | Path) -> str | None:
    """Return OpenSlide's name of a file's format ('aperio', 'mirax', 'generic-tiff', ...), or None.

    Raises `InputError` where it names files outside its folder.
    """
    check_companions(Path(path))
    try:
        found = openslide.OpenSlide.detect_format(str(path))
    except openslide.OpenSlideError:
        return None
    return None if found is None else str(found)


class SlideSource:
    """A whole-slide image as a source: RGB uint8 at level 0, alpha composited on the slide's background or white.

    The shape is that of the full level-0 canvas; pixels outside `openslide.bounds-*` or with alpha 0 are not valid.
    `mpp` overrides micrometres per pixel, one number or (y, x); objective power is not taken for a pixel size.
    Raises `InputError` where OpenSlide cannot open or decode the slide.
    """

    def __init__(self, path: str | Path, *, mpp: float | tuple[float, float] | Resolution | None = None) -> None:
        self.name = str(path)
        self._stamp = stamp(path)
        check_companions(Path(path))
        try:
            with openslide.OpenSlide(self._stamp.path) as slide:
                self._describe(slide)
                self.resolution = given_resolution(mpp, "um") or micrometres(slide.properties)
        except openslide.OpenSlideError as error:
            raise InputError(f"{self.name} cannot be opened as a slide: {error}") from error
        check_size(self.name, self.shape)

    def _describe(self, slide: openslide.OpenSlide) -> None:
        properties = slide.properties
        self.levels = tuple((int(height), int(width)) for width, height in slide.level_dimensions)
        self.downsamples = tuple(float(value) for value in slide.level_downsamples)
        self.vendor = str(properties.get("openslide.vendor", "unknown"))
        self.bounds = slide_bounds(properties, *self.levels[0])
        sides = [
            [int(properties.get(f"openslide.level[{k}].tile-{side}", 0)) for side in ("height", "width")]
            for k in range(slide.level_count)
        ]
        self._tile_pixels = max(height * width for height, width in sides)
        colour = properties.get("openslide.background-color", "FFFFFF")
        self._background = np.array(list(bytes.fromhex(colour)), dtype=np.uint16)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, height, width) of the level-0 canvas."""
        return 3, *self.levels[0]

    @property
    def dtype(self) -> DType:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def frame(self) -> tuple[int, int]:
        """(y, x) of the pixel from which QuPath counts: the corner of the bounds."""
        return self.bounds.y0, self.bounds.x0

    @property
    def cache_bytes(self) -> int:
        """Memory that the reader keeps in a process beyond the pixels it returns, with one thread reading levels."""
        blocks = BLOCKS_PER_THREAD * DECODED_BLOCK * DECODED_BLOCK * 4
        at_once = (1 if self._large else READERS) * self._tile_pixels * WAVELETS.get(self.vendor, TILE_BYTES)
        return SLIDE_CACHE_BYTES + blocks + max(0, at_once - SPARE_BYTES)

    @property
    def _large(self) -> bool:
        """Whether tiles are decoded by one thread at a time."""
        return 4 * self._tile_pixels > LARGE_PIECE_BYTES

    @property
    def files(self) -> list[Path]:
        """All files that hold the slide's pixels."""
        return slide_files(Path(self._stamp.path), self.vendor)

    @property
    def georeference(self) -> Georeference | None:
        """None: a slide has no position on the earth."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the colours of `box`, (3, box.height, box.width) uint8, reflected outside the canvas.

        Raises `InputError` naming slide, level and box where a tile cannot be decoded.
        """
        return read_reflected(box, *self.shape[1:], self._colours)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where the slide was scanned: alpha above 0 and inside its bounds; None when all is."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None and inside & self.bounds:
            # Colours and validity of a tile are asked for one after the other, and both need the same decoded pixels.
            (mask,) = _masks.get((self._stamp, inside), lambda: [self.paint(0, inside)[1]])
        if inside is not None:
            mask = within(self.bounds, inside, mask)
        return usable(mask, box, *self.shape[1:])

    def coarser(self, height: int, width: int) -> Source:
        """Return the smallest level with at least `height` x `width` pixels; itself where that is level 0."""
        fit = [k for k, (h, w) in enumerate(self.levels) if h >= height and w >= width]
        return SlideLevel(self, fit[-1]) if fit and fit[-1] > 0 else self

    def identity(self) -> JSON:
        """Return hashes of the slide's files and the reader's version."""
        return {
            "reader": f"openslide {openslide.__library_version__}",
            "sha256": [content_sha256(stamp(file)) for file in self.files],
            "shape": list(self.shape),
        }

    def paint(self, level: int, box: Box) -> Painted:
        """Return colours and alpha mask of a box of `level` pixels inside it; rows and columns count on that level."""
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

    def _colours(self, box: Box) -> NDArray[np.uint8]:
        colours, mask = self.paint(0, box)
        _masks.drop((self._stamp, box))
        _masks.get((self._stamp, box), lambda: [mask])
        return colours

    def _render(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return (y, x, 4) straight RGBA; a handle that failed is closed, as OpenSlide's errors stay with it."""
        down = self.downsamples[level]  # OpenSlide divides level-0 positions by this, for both axes
        height, width = self.levels[level]
        # at the far edges never beyond the position, where there is nothing to blend with
        corner = (
            math.floor(box.x0 * down + (0.5 if box.x1 < width else 0.0)),
            math.floor(box.y0 * down + (0.5 if box.y1 < height else 0.0)),
        )
        try:
            slide = _handles.get(self._stamp, self._open)
            with decoding_alone(os.getpid()) if self._large else nullcontext():
                return np.asarray(slide.read_region(corner, level, (box.width, box.height)))
        except openslide.OpenSlideError as error:
            _handles.drop(self._stamp)
            raise InputError(
                f"{self.name} cannot be read at level {level}, rows {box.y0} to {box.y1}, "
                f"columns {box.x0} to {box.x1}: {error}. The slide may be truncated or damaged there."
            ) from error

    def _composite(self, rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (3, y, x) colours of straight RGBA on the background, rounded."""
        colours, alpha = rgba[..., :3], rgba[..., 3:]
        if not alpha.all() or alpha.min() < 255:
            # At most 255 * 255 + 127, which 16 bits hold.
            over = alpha.astype(np.uint16)
            mixed = (colours * over + self._background * (255 - over) + 127) // 255
            colours = mixed.astype(np.uint8)
        return colours.transpose(2, 0, 1)

    def _open(self) -> openslide.OpenSlide:
        slide = openslide.OpenSlide(unchanged(self._stamp).path)
        # One cache for all slides and threads: each handle would have its own, which the promise does not count.
        slide.set_cache(_tile_cache(os.getpid()))
        return slide


class SlideLevel:
    """A level of a slide as a source that covers the same ground; its pixels do not depend on the box asked."""

    def __init__(self, slide: SlideSource, level: int) -> None:
        self.slide = slide
        self.level = level
        self.name = slide.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, height, width) of the level."""
        return 3, *self.slide.levels[self.level]

    @property
    def dtype(self) -> DType:
        """uint8."""
        return self.slide.dtype

    @property
    def resolution(self) -> Resolution | None:
        """Pixel size of the level: level 0's times the exact ratio of sizes, per axis."""
        known = self.slide.resolution
        sy, sx = (full / size for full, size in zip(self.slide.shape[1:], self.shape[1:], strict=True))
        return known and Resolution(known.y * sy, known.x * sx, known.unit)

    @property
    def georeference(self) -> Georeference | None:
        """None."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the colours of `box` in pixels of the level, reflected outside it."""
        return read_reflected(box, *self.shape[1:], lambda inside: self._gather(inside)[0])

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where the level holds scanned pixels that touch the slide's bounds, or None."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None:
            bounds, (_, full_height, full_width), (_, height, width) = self.slide.bounds, self.slide.shape, self.shape
            y0, x0 = bounds.y0 * height // full_height, bounds.x0 * width // full_width
            y1, x1 = -(-bounds.y1 * height // full_height), -(-bounds.x1 * width // full_width)
            mask = within(Box(y0, x0, y1, x1), inside, self._gather(inside)[1])
        return usable(mask, box, *self.shape[1:])

    def on_canvas(self, box: Box) -> NDArray[np.bool_] | None:
        """Return where `box` of level-0 pixels was scanned: inside the bounds, with the alpha of this level.

        Level 0 itself, up to a thousand times as many pixels, would have to be decoded for its own alpha.
        """
        (_, full_height, full_width), (_, height, width) = self.slide.shape, self.shape
        rows = (2 * np.arange(box.y0, box.y1) + 1) * height // (2 * full_height)
        columns = (2 * np.arange(box.x0, box.x1) + 1) * width // (2 * full_width)
        hull = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        mask = self._gather(hull)[1]
        if mask is not None:
            mask = mask[(rows - hull.y0)[:, None], (columns - hull.x0)[None, :]]
        return within(self.slide.bounds, box, mask)

    def coarser(self, height: int, width: int) -> Source:
        """Return the smallest level of the slide with at least `height` x `width` pixels."""
        return self.slide.coarser(height, width)

    def identity(self) -> JSON:
        """Return the slide's identity and the level."""
        return {**self.slide.identity(), "level": self.level}

    def _gather(self, box: Box) -> Painted:
        """Return colours and mask of a box inside the level, from blocks of the fixed grid."""
        colours = np.empty((3, *box.shape), dtype=np.uint8)
        mask = np.ones(box.shape, dtype=np.bool_)
        level = Box.of_shape(*self.shape[1:])
        for y in range(box.y0 // DECODED_BLOCK * DECODED_BLOCK, box.y1, DECODED_BLOCK):
            for x in range(box.x0 // DECODED_BLOCK * DECODED_BLOCK, box.x1, DECODED_BLOCK):
                # OpenSlide is told where to begin in level-0 pixels, which is between two pixels of a level whose
                # ratio is no whole number: what it returns would depend on the box. From a fixed grid it does not.
                block = Box(y, x, y + DECODED_BLOCK, x + DECODED_BLOCK) & level
                part = block and block & box
                if block is None or part is None:
                    continue
                painted, opaque = self._block(block)
                colours[(slice(None), *part.slices_in(box))] = painted[(slice(None), *part.slices_in(block))]
                if opaque is not None:
                    mask[part.slices_in(box)] = opaque[part.slices_in(block)]
        return colours, None if mask.all() else mask

    def _block(self, block: Box) -> Painted:
        key = (self.slide._stamp, self.level, block)
        return _blocks.get(key, lambda: self.slide.paint(self.level, block))


def micrometres(properties: Mapping[str, str]) -> Resolution | None:
    """Return the pixel size a slide states, per axis; None where it states none or one no microscope has."""
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
        # A file without a single stored tile states bounds of no pixels.
        return ((Box(y, x, y + h, x + w) & canvas) if min(h, w) > 0 else None) or canvas
    except (KeyError, ValueError):
        return canvas


def within(bounds: Box, box: Box, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Return `mask` of `box` (None: all True) with everything outside `bounds` False."""
    if bounds.contains(box):
        return mask
    full = np.zeros(box.shape, dtype=np.bool_)
    part = bounds & box
    if part is not None:
        full[part.slices_in(box)] = True if mask is None else mask[part.slices_in(box)]
    return full
