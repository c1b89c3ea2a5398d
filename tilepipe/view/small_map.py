"""SmallMap: a smaller version of a map that has none, or whose labels are still being computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap
from tilepipe.products.pyramid import halved
from tilepipe.view.gradual import Gradual
from tilepipe.view.small_image import READ_AT_ONCE

LARGEST = 64 << 20
"""Largest size of a smaller version in memory [bytes]."""
PIECE = 4096
"""Side of the part of the map that is read at once [pixels]."""


def small_map_of(levels: list[LabelMap]) -> SmallMap | None:
    """Return a smaller version of a map to be filled; None if its own smaller versions are small enough."""
    last = levels[-1]
    return SmallMap(last) if last.shape[0] * last.shape[1] > READ_AT_ONCE else None


class SmallMap(Gradual):
    """A map halved as often as memory asks. A pixel is nodata until its part of the map has been added."""

    def __init__(self, of: LabelMap) -> None:
        """Take the map; nothing of it is read yet."""
        super().__init__()
        self._of = of
        self.times = 1
        """How often the map is halved."""
        height, width = of.shape
        while (height * width * of.dtype.itemsize) >> 2 * self.times > LARGEST:
            self.times += 1
        shape = -(-height >> self.times), -(-width >> self.times)
        self._values = np.full(shape, of.legend.nodata, of.dtype)
        scale = of.scale[0] * 2**self.times, of.scale[1] * 2**self.times
        self.map = replace(of, shape=shape, read=self._read, scale=scale, georeference=None, resolution=None)
        """The smaller version."""

    def fill(self) -> None:
        """Add the whole map from the top to the bottom, unless `stop` is called; the caller gives a thread."""
        self._each(list(self._of.boxes(PIECE)), lambda box: self.add([box]))

    def add(self, boxes: Iterable[Box]) -> None:
        """Read parts of the map that hold new values. Raises `TilepipeError` if they cannot be read."""
        whole, step = Box.of_shape(*self._of.shape), 1 << self.times
        for part in boxes:
            # A small pixel counts with all its values, of other parts too.
            y0, x0 = part.y0 // step, part.x0 // step
            y1, x1 = -(-part.y1 // step), -(-part.x1 // step)
            box = Box(y0 * step, x0 * step, y1 * step, x1 * step) & whole
            assert box is not None
            values = self._of.read(box)
            for _ in range(self.times):
                values = halved(values, self._of.legend)
            self._values[y0:y1, x0:x1] = values

    def _read(self, box: Box) -> Labels:
        return self._values[box.y0 : box.y1, box.x0 : box.x1]
