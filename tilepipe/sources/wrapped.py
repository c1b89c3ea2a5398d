"""Wrapped: a source that changes one property of another source and passes the rest on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.sources.base import Georeference, Resolution, Source
from tilepipe.sources.content import identity_of
from tilepipe.text import JSON


class Wrapped:
    """A source that passes `source` on unchanged; a wrapper inherits this class and overrides what it changes."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (bands, height, width) of the source."""
        return self.source.shape

    @property
    def dtype(self) -> DType:
        """Type of the source's pixels."""
        return self.source.dtype

    @property
    def resolution(self) -> Resolution | None:
        """Pixel size of the source."""
        return self.source.resolution

    @property
    def georeference(self) -> Georeference | None:
        """Position of the source on the earth."""
        return self.source.georeference

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return bool(getattr(self.source, "complete", False))

    @property
    def files(self) -> list[Path]:
        """The files that the source reads."""
        known = getattr(self.source, "files", None)
        return [Path(self.source.name)] if known is None else list(known)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was chosen when the source was opened."""
        return tuple(getattr(self.source, "notes", ()))

    @property
    def selected(self) -> dict[str, int | str]:
        """Scene, z and t that were picked, if the file holds several."""
        return dict(getattr(self.source, "selected", {}))

    @property
    def cache_bytes(self) -> int:
        """Memory that the source's reader keeps [bytes]."""
        return int(getattr(self.source, "cache_bytes", 0))

    @property
    def held_bytes(self) -> int:
        """Size of the part of the image that lies in the memory of each process [bytes]."""
        return int(getattr(self.source, "held_bytes", 0))

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width)."""
        return self.source.read(box)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a pixel holds image data, (box.height, box.width); None when all do."""
        return self.source.valid(box)

    def coarser(self, height: int, width: int) -> Source:
        """Return this source; a wrapper that can be put around a smaller version overrides this."""
        return self

    def identity(self) -> JSON:
        """Return the source's identity."""
        return identity_of(self.source)


def unwrapped(source: Source) -> Source:
    """Return the source inside all wrappers."""
    while isinstance(source, Wrapped):
        source = source.source
    return source


def frame_of(source: object) -> tuple[int, int]:
    """Return (y, x) of the full-resolution pixel from which QuPath counts; (0, 0) unless a slide has bounds."""
    source = unwrapped(source) if isinstance(source, Wrapped) else source
    y, x = getattr(source, "frame", (0, 0))
    return int(y), int(x)
