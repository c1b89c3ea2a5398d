"""This module defines a region of a source that mirrors at its own edges, so that nothing beyond the region is seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.sources.base import Georeference, Source, read_reflected
from tilepipe.sources.checks import usable
from tilepipe.sources.wrapped import Wrapped
from tilepipe.text import JSON


class Part(Wrapped):
    """The pixels of `region` of `source` as a source of their own; boxes are relative to the region's corner."""

    def __init__(self, source: Source, region: Box) -> None:
        super().__init__(source)
        self.region = region

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (bands, height, width) of the region."""
        return (self.source.shape[0], *self.region.shape)

    @property
    def georeference(self) -> Georeference | None:
        """Always None: nobody asks where a crop lies on the earth."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), mirrored outside the region."""
        return read_reflected(box, *self.region.shape, lambda inside: self.source.read(self._whole(inside)))

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return a bool array (box.height, box.width): True for image data, False outside; None if all pixels hold
        data."""
        inside = box & Box.of_shape(*self.region.shape)
        mask = None if inside is None else self.source.valid(self._whole(inside))
        return usable(mask, box, *self.region.shape)

    def identity(self) -> JSON:
        """Return the source's identity and the region."""
        return {"reader": "part", "window": self.region.to_list(), "of": self.source.identity()}

    def _whole(self, box: Box) -> Box:
        return box.shift(self.region.y0, self.region.x0)
