"""The comb test of a label map. It needs no model and no image, and reads the labels block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.evaluation.metrics.seams import ChangeCounter, SeamExcess, seam_excess
from tilepipe.products.label_map import LabelMap
from tilepipe.products.labels import open_label_file
from tilepipe.sources.base import Source
from tilepipe.sources.open import open_source

SIDE = 2048
"""Side in pixels of the block that is read at once."""
VOID = -1


@dataclass(frozen=True)
class Lines:
    """Labels as the test reads them: int32, and -1 if a pixel has no label."""

    shape: tuple[int, int]
    """(height, width) in pixels."""
    read: Callable[[Box], NDArray[np.int32]]
    """Labels of a box inside the map."""


def lines_of(labels: LabelMap) -> Lines:
    """Return a label map of tilepipe as lines."""
    return Lines(labels.shape, partial(_of_map, labels))


def open_lines(path: Path) -> Lines:
    """Open a label map of any program: one band of whole numbers, in any format that an image may have.

    Raises `InputError` if the file is no such map.
    """
    try:
        return lines_of(open_label_file(path))
    # A file that tilepipe did not write is a label map all the same, if it exists.
    except InputError:
        if not path.exists():
            raise
    source = open_source(path)
    if source.shape[0] != 1 or source.dtype.kind not in "iu":
        raise InputError(
            f"{path} has {source.shape[0]} bands of {source.dtype}; a label map has one band of whole numbers"
        )
    return Lines(source.shape[1:], partial(_of_source, source))


def _of_map(labels: LabelMap, box: Box) -> NDArray[np.int32]:
    # The map's own type has no negative number for pixels without a label.
    values = labels.read(box).astype(np.int32)
    values[values == labels.legend.nodata] = VOID
    return values


def _of_source(source: Source, box: Box) -> NDArray[np.int32]:
    values, valid = source.read(box)[0].astype(np.int32), source.valid(box)
    return values if valid is None else np.where(valid, values, np.int32(VOID))


def comb_test(lines: Lines, tile: int, step: int, stride: int | None, start: tuple[int, int] = (0, 0)) -> SeamExcess:
    """Return the seam-excess test of a whole map, which is read in blocks of 2048 x 2048 pixels.

    `tile`, `step` and `stride` are in pixels. The first tile begins at `start` (y, x).
    """
    height, width = lines.shape[0] - start[0], lines.shape[1] - start[1]
    counter = ChangeCounter(max(height, 1), max(width, 1), VOID)
    for box in _blocks(height, width):
        values: NDArray[np.int32] = lines.read(box.shift(*start))
        counter.add(values, box.y0, box.x0)
    return seam_excess(counter, tile, step, stride)


def _blocks(height: int, width: int) -> Iterator[Box]:
    """Yield blocks that begin one pixel early after the first on each axis, as `ChangeCounter` wants them."""
    for y in range(0, max(height, 0), SIDE):
        for x in range(0, max(width, 0), SIDE):
            # The change over the line between two blocks needs the last pixels of the block before.
            yield Box(max(y - 1, 0), max(x - 1, 0), min(y + SIDE, height), min(x + SIDE, width))
