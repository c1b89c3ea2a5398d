"""PictureSource: reads PNG and JPEG images whole."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.bands import COLOURS
from tilepipe.sources.base import Resolution
from tilepipe.sources.handles import content_sha256, stamp, unchanged
from tilepipe.text import JSON

MAX_PIXELS = 128 << 20
"""Largest number of pixels of a picture; a larger picture is refused, since pictures are decoded whole."""
ROWS_PIXELS = 1 << 20
"""Number of pixels that are converted at once."""
JPEG = b"\xff\xd8\xff"
MAGIC = (b"\x89PNG", JPEG)
MODES = ("L", "RGB", "I;16", "1")
WITH_ALPHA = {"LA": "L", "RGBA": "RGB"}


class PictureSource(ArraySource):
    """A PNG or JPEG picture as a source: grey (1 band) or RGB (3 bands), 8 or 16 bit.

    Pixels with alpha 0 are not valid, nor are pixels of the colour that a PNG without alpha names as transparent.
    `allow_palette` reads the indices of a palette picture as they are (label pictures). The picture is read as stored:
    EXIF rotation and colour profiles are not applied. Raises `InputError` for other kinds and damaged files.
    """

    def __init__(
        self, path: str | Path, *, resolution: Resolution | float | None = None, allow_palette: bool = False
    ) -> None:
        self._options = {"resolution": resolution, "allow_palette": allow_palette}
        self._stamp = stamp(path)
        pixels, valid, self.alpha = _decode(str(path), allow_palette)
        super().__init__(pixels, valid=valid, resolution=resolution, name=str(path))
        self.axes_named = True
        self.file_bands = COLOURS if len(pixels) == len(COLOURS) else None
        with open(path, "rb") as file:
            self.lossy = file.read(len(JPEG)) == JPEG

    def __getstate__(self) -> tuple[str, str, JSON]:
        return self._stamp.path, self.name, self._options  # the path is absolute: a worker has its own working folder

    def __setstate__(self, state: tuple[str, str, JSON]) -> None:
        PictureSource.__init__(self, state[0], **state[2])
        self.name = state[1]

    @property
    def cache_bytes(self) -> int:
        """Memory that decoding takes beside the pixels [bytes]: Pillow's picture, colours in 4 bytes a pixel."""
        _, height, width = self.shape
        return max(super().cache_bytes, height * width * max(4 if self.shape[0] > 1 else 1, self.dtype.itemsize))

    def read(self, box: Box) -> Pixels:
        """Return pixels (bands, y, x). Raises `ChangedError` if the file has changed since the picture was decoded."""
        unchanged(self._stamp)
        return super().read(box)

    def identity(self) -> JSON:
        """Return the hash of the file."""
        return {"reader": "picture", "sha256": content_sha256(stamp(self.name)), "shape": list(self.shape)}


Decoded = tuple[Pixels, NDArray[np.bool_] | None, str | None]
"""Pixels (bands, y, x); a mask, True where alpha is above 0 (None if it is everywhere); a sentence about alpha, or
None if there is no alpha."""


def _decode(name: str, allow_palette: bool) -> Decoded:
    try:
        with warnings.catch_warnings():
            # The limit is ours (MAX_PIXELS), and is checked before a pixel is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Pillow would try all formats that it knows.
            with Image.open(name, formats=("PNG", "JPEG")) as picture:
                return _planes(name, picture, allow_palette)
    # Pillow raises SyntaxError for a broken PNG.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read: {error}. It may be truncated or damaged.") from error


def _planes(name: str, picture: Image.Image, allow_palette: bool) -> Decoded:
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"{name} has {picture.width * picture.height} pixels, and pictures are decoded whole: at most {MAX_PIXELS} "
            "are read. Store it in tiles: gdal_translate -co TILED=YES in.png out.tif"
        )
    if picture.mode == "P" and not allow_palette:
        raise InputError(
            f"{name} has a colour palette: its pixels are numbers of colours, not colours. "
            "Convert it: gdal_translate -expand rgb in.png out.png"
        )
    if picture.mode not in (*MODES, *WITH_ALPHA, "P"):
        raise InputError(
            f"{name} has pixels of kind {picture.mode}; grey, RGB and 16 bit grey are read. Convert it to RGB."
        )
    # Pillow reads 16 bit colours as 8 bit without a word; the raw mode of its pieces tells.
    if picture.mode != "I;16" and any("16" in str(part[3]) for part in getattr(picture, "tile", ())):
        raise InputError(
            f"{name} has 16 bit colours, which would be cut to 8. Convert it: gdal_translate in.png out.tif"
        )
    pixels = _unpacked(picture)
    if picture.mode in WITH_ALPHA:
        return pixels[:-1], pixels[-1] > 0, _said(picture.histogram()[-256:])
    clear = picture.info.get("transparency")  # the one colour that a PNG without alpha shows as transparent
    if clear is None or picture.mode == "P":
        return pixels, None, None
    return pixels, (pixels != np.reshape(clear, (-1, 1, 1))).any(axis=0), None


def _said(counts: list[int]) -> str:
    """Return a sentence about alpha; `counts` is the number of pixels of each value."""
    if any(counts[1:255]):
        return (
            "alpha holds other values than 0 and 255; pixels where it is 0 hold no data, the others are read as "
            "if they were opaque"
        )
    return "alpha holds only 0 and 255 and says where there is image data"


def _unpacked(picture: Image.Image) -> Pixels:
    """Return the pixels (bands, y, x), converted some rows at a time; the whole at once would be copied twice."""
    pixels: Pixels | None = None
    rows = max(1, ROWS_PIXELS // picture.width)
    for y in range(0, picture.height, rows):
        below = min(y + rows, picture.height)
        part = np.asarray(picture.crop((0, y, picture.width, below)))
        part = part.astype(np.uint8) if part.dtype == np.bool_ else part
        part = part[None] if part.ndim == 2 else part.transpose(2, 0, 1)
        if pixels is None:
            pixels = np.empty((len(part), picture.height, picture.width), part.dtype)
        pixels[:, y:below] = part
    assert pixels is not None, "a picture has a row"
    return pixels
