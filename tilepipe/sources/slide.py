"""SlideSource: reads whole-slide images in level-0 pixels of the full canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.sources.bands import COLOURS
from tilepipe.sources.base import Georeference, Resolution, Source, read_reflected
from tilepipe.sources.checks import check_size, given_resolution, usable
from tilepipe.sources.handles import Handles, content_sha256, stamp
from tilepipe.sources.slide_file import READER, Painted, SlideFile
from tilepipe.text import JSON

DECODED_BLOCK = 512
"""Side of a block [pixels]: levels above 0 are read in blocks of a fixed grid, so no pixel depends on the box."""
BLOCKS_PER_THREAD = 32
"""Number of blocks of levels that a thread keeps: at most 32 x 512 x 512 x 4 bytes (colours, mask) = 32 MiB."""

_masks: Handles[list[NDArray[np.bool_] | None]] = Handles(lambda _: None, limit=2)
_blocks: Handles[Painted] = Handles(lambda _: None, limit=BLOCKS_PER_THREAD)


class SlideSource:
    """A whole-slide image as a source: RGB uint8 at level 0, alpha composited on the slide's background or white.

    The shape is the shape of the full level-0 canvas. Pixels outside `openslide.bounds-*` or with alpha 0 are not
    valid. `mpp` overrides micrometres per pixel, one number or (y, x). Objective power is not taken for a pixel size.
    Raises `InputError` if OpenSlide cannot open or decode the slide.
    """

    def __init__(self, path: str | Path, *, mpp: float | tuple[float, float] | Resolution | None = None) -> None:
        self.file = SlideFile(path)
        self.name = self.file.name
        self.place = Path(path)
        """Path that stands for the slide: its file, or the folder of its DICOM files."""
        self.notes: tuple[str, ...] = ()
        """Sentences about the choice of the slide, if its folder holds several."""
        self.selected: dict[str, int | str] = {}
        self.file_bands = COLOURS
        self.levels = self.file.levels
        self.bounds = self.file.bounds
        self.acquired = self.file.acquired
        """When the slide was scanned; see `acquired_of`."""
        self.resolution = given_resolution(mpp, "um") or self.file.resolution
        check_size(self.name, self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, height, width) of the level-0 canvas."""
        return 3, *self.levels[0]

    @property
    def dtype(self) -> DType:
        """Type of the pixels: uint8."""
        return np.dtype(np.uint8)

    @property
    def objective(self) -> str:
        """Power of the objective as the slide states it, such as '40'; '' if it states none."""
        return self.file.objective

    @property
    def frame(self) -> tuple[int, int]:
        """(y, x) of the pixel from which QuPath counts: the corner of the bounds."""
        return self.bounds.y0, self.bounds.x0

    @property
    def cache_bytes(self) -> int:
        """Memory that a process keeps beyond the pixels it returns, if one thread reads levels [bytes]."""
        return self.file.cache_bytes + BLOCKS_PER_THREAD * DECODED_BLOCK * DECODED_BLOCK * 4

    @property
    def files(self) -> list[Path]:
        """All files that hold the slide's pixels."""
        return self.file.files

    @property
    def georeference(self) -> Georeference | None:
        """None: a slide has no position on the earth."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the colours of `box`, (3, box.height, box.width) uint8, reflected outside the canvas.

        Raises `InputError`, which names slide, level and box, if a tile cannot be decoded.
        """
        return read_reflected(box, *self.shape[1:], self._colours)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where the slide was scanned, with alpha above 0 and inside its bounds; None if all were."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None and inside & self.bounds:
            # Colours and validity of a tile are asked for one after the other, and both need the same decoded pixels.
            (mask,) = _masks.get((self.file.stamp, inside), lambda: [self.file.paint(0, inside)[1]])
        if inside is not None:
            mask = within(self.bounds, inside, mask)
        return usable(mask, box, *self.shape[1:])

    def coarser(self, height: int, width: int) -> Source:
        """Return the smallest level with at least `height` x `width` pixels; this source if that is level 0."""
        fit = [k for k, (h, w) in enumerate(self.levels) if h >= height and w >= width]
        return SlideLevel(self, fit[-1]) if fit and fit[-1] > 0 else self

    def identity(self) -> JSON:
        """Return hashes of the slide's files and the reader's version."""
        return {
            # Another version of OpenSlide may decode the same file to other colours.
            "reader": READER,
            "sha256": [content_sha256(stamp(file)) for file in self.files],
            "shape": list(self.shape),
        }

    def _colours(self, box: Box) -> NDArray[np.uint8]:
        colours, mask = self.file.paint(0, box)
        _masks.drop((self.file.stamp, box))
        _masks.get((self.file.stamp, box), lambda: [mask])
        return colours


class SlideLevel:
    """A level of a slide as a source that covers the same ground; no pixel depends on the box that is read."""

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
        """Type of the pixels: uint8."""
        return self.slide.dtype

    @property
    def resolution(self) -> Resolution | None:
        """Pixel size of the level: the pixel size of level 0 times the exact ratio of the levels' sizes, per axis."""
        known = self.slide.resolution
        # OpenSlide's own downsample is one number for both axes, made of sizes that are rounded.
        sy, sx = (full / size for full, size in zip(self.slide.shape[1:], self.shape[1:], strict=True))
        return known and Resolution(known.y * sy, known.x * sx, known.unit)

    @property
    def georeference(self) -> Georeference | None:
        """None: a slide has no position on the earth."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the colours of `box`, (3, box.height, box.width), in pixels of the level, reflected outside it."""
        return read_reflected(box, *self.shape[1:], lambda inside: self._gather(inside)[0])

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where the level holds scanned pixels that touch the slide's bounds; None if all pixels do."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None:
            bounds, (_, full_height, full_width), (_, height, width) = self.slide.bounds, self.slide.shape, self.shape
            y0, x0 = bounds.y0 * height // full_height, bounds.x0 * width // full_width
            y1, x1 = -(-bounds.y1 * height // full_height), -(-bounds.x1 * width // full_width)
            mask = within(Box(y0, x0, y1, x1), inside, self._gather(inside)[1])
        return usable(mask, box, *self.shape[1:])

    def on_canvas(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where `box` of level-0 pixels was scanned: inside the bounds, with the alpha of this level.

        The result is None if all pixels were scanned.
        """
        (_, full_height, full_width), (_, height, width) = self.slide.shape, self.shape
        rows = (2 * np.arange(box.y0, box.y1) + 1) * height // (2 * full_height)
        columns = (2 * np.arange(box.x0, box.x1) + 1) * width // (2 * full_width)
        hull = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        # The alpha of level 0 is not read, since level 0 may have a thousand times as many pixels to decode.
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
        key = (self.slide.file.stamp, self.level, block)
        return _blocks.get(key, lambda: self.slide.file.paint(self.level, block))


def within(bounds: Box, box: Box, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Return `mask` of `box` (None: all True) with everything outside `bounds` False."""
    if bounds.contains(box):
        return mask
    full = np.zeros(box.shape, dtype=np.bool_)
    part = bounds & box
    if part is not None:
        full[part.slices_in(box)] = True if mask is None else mask[part.slices_in(box)]
    return full
