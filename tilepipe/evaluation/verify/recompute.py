"""Computes parts of a run again: as its tiles give them, on a grid moved by an offset, and by one centred pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError, ModelError
from tilepipe.evaluation.metrics.seams import total_variation
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.job import Job
from tilepipe.execution.statistics.provider import StatisticsProvider
from tilepipe.inference.predictor import PROBABILITY_BITS, Predictor
from tilepipe.inference.statistics.capture import Nodes
from tilepipe.sources.base import Georeference, Source
from tilepipe.sources.wrapped import Wrapped
from tilepipe.text import JSON
from tilepipe.tiling.blend import BlendCanvas
from tilepipe.tiling.grid import Index
from tilepipe.tiling.weights import UNITY

Probabilities = NDArray[np.float64]
"""Probabilities (classes, height, width) from 0 to 1. Ties go to the lowest class, as in the labels."""
ONE = float(1 << PROBABILITY_BITS)


class Passes:
    """Computes probabilities of boxes of the prediction grid that lie inside the image."""

    def __init__(
        self,
        job: Job,
        statistics: StatisticsProvider | None = None,
        *,
        lenient: bool = False,
        ended: Sequence[Box] = (),
    ) -> None:
        """Move the model to its device; `statistics` gives its statistics, those of the job's own image by default.

        `lenient` is for a run with tiles that failed: `attempt` leaves out what needs a tile that fails. On the boxes
        `ended` the model has ended the process or did not come back, so it is not called on any part of them.
        """
        self.job, self.lenient, self.ended = job, lenient, tuple(ended)
        self.grid = job.plan.grid
        # Without a directory the worker opens no store, so nothing of the run can be changed by mistake.
        self.worker = BlockWorker(replace(job, directory=None), statistics)

    def attempt(self) -> AbstractContextManager[None]:
        """Return a context. If `lenient`, a tile that cannot be read or predicted ends it without an error."""
        return suppress(InputError, ModelError) if self.lenient else nullcontext()

    def close(self) -> None:
        """Stop the reading threads."""
        self.worker.close()

    def tiled(self, box: Box) -> tuple[Probabilities, NDArray[np.float64]]:
        """Return the probabilities that the run's tiles give for `box`, and how far apart neighbouring tiles are.

        The second array is (box.height, box.width): the largest total variation distance between tiles that are
        neighbours in a row or a column; nan if only one tile sees the pixel.
        """
        classes, gaps = self.job.plan.classes, np.full(box.shape, np.nan)
        if self.job.plan.tiling.columns:  # a column gives only what it keeps
            return self.worker.probabilities(box) / ONE, gaps
        kept = np.zeros((classes, *box.shape))
        sums = None
        if self.grid.blended:
            sums = BlendCanvas(self.grid, box, self.job.plan.tiling.window, classes=classes)
        seen: dict[Index, _Part] = {}
        for tile, values in self._tiles(box):
            if sums is not None:
                sums.add(tile, values, self.grid.tile_box(tile))
            where = self.grid.tile_box(tile)
            part, mine = where & box, self.grid.kept_box(tile) & box
            assert part is not None
            assert mine is not None
            # With crop windows each pixel is kept by one tile, so writing it is enough; blended tiles are summed by the
            # canvas.
            kept[:, *mine.slices_in(box)] = values[:, *mine.slices_in(where)] / ONE
            seen[tile] = _Part(part, values[:, *part.slices_in(where)] / ONE)
            for near in (Index(tile.row - 1, tile.column), Index(tile.row, tile.column - 1)):
                _widen(gaps, box, seen[tile], seen.get(near))
        return kept if sums is None else sums.values / (ONE * UNITY**2), gaps

    def _tiles(self, box: Box) -> Iterator[tuple[Index, NDArray[np.int32]]]:
        tiles = self.grid.tiles_over(box)
        while group := list(islice(tiles, self.job.plan.compute.batch)):
            boxes = [self.grid.tile_box(tile) for tile in group]
            pixels = np.stack([self._pixels(box) for box in boxes])
            yield from zip(group, self.worker.predictor.probabilities(pixels, self.worker.under(boxes)), strict=True)

    def _pixels(self, box: Box) -> Pixels:
        if any(box & tile for tile in self.ended):
            raise ModelError(f"{self.job.model.name} has ended the process on a tile in {box}")
        return self.worker.pixels(box)

    def whole(self, box: Box, context: int) -> Probabilities:
        """Return the probabilities of one pass over `box` and at least `context` pixels per side, up to the edge."""
        stride = self.job.plan.tiling.stride
        edges = self.grid.y.padded, self.grid.x.padded
        # Like a tile, the pass begins on a multiple of the stride, so that pooling meets the same pixels.
        spans = [
            (max(0, start - context) // stride * stride, min(-(-(stop + context) // stride) * stride, edge))
            for start, stop, edge in zip((box.y0, box.x0), (box.y1, box.x1), edges, strict=True)
        ]
        patch = Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1])
        one = Predictor(self.job.model, patch.shape, replace(self.job.plan.compute, batch=1))
        values = one.probabilities(self._pixels(patch)[None], self.worker.under([patch]))[0]
        return np.asarray(values[:, *box.slices_in(patch)] / ONE)

    def valid(self, box: Box) -> NDArray[np.bool_]:
        """Return a mask (height, width): True if the pixel of `box` is asked for and holds image data."""
        return self.worker.tiles.wanted(box)


@dataclass(frozen=True)
class _Part:
    """Probabilities that one tile gives for a part of a box."""

    box: Box
    values: Probabilities


def _widen(gaps: NDArray[np.float64], box: Box, one: _Part, other: _Part | None) -> None:
    """Raise `gaps` of `box` to the distance of two tiles at the pixels that both see."""
    shared = one.box & other.box if other is not None else None
    if shared is None or other is None:
        return
    here, there = (part.values[:, *shared.slices_in(part.box)] for part in (one, other))
    target = gaps[shared.slices_in(box)]
    # fmax takes the number if the other value is nan, which stands for a pixel that no two tiles have shared so far.
    np.fmax(target, total_variation(here, there), out=target)


def moved(job: Job, dy: int, dx: int) -> Job:
    """Return the same job on the image without its first `dy` rows and `dx` columns, so that the grid is moved."""
    height, width = job.plan.predicted
    shape = height - dy, width - dx
    plan = replace(job.plan, shape=shape, predicted=shape, output=shape, region=Box.of_shape(*shape))
    return replace(job, plan=plan, source=Moved(job.source, dy, dx))


class MovedStatistics:
    """The statistics of an image for tiles of the same image without its first rows and columns."""

    def __init__(self, statistics: StatisticsProvider, dy: int, dx: int) -> None:
        """Leave out `dy` rows and `dx` columns."""
        self.statistics, self.dy, self.dx = statistics, dy, dx

    def nodes(self, box: Box) -> Nodes:
        """Return the statistics around a tile; `box` counts pixels of the smaller image."""
        return self.statistics.nodes(box.shift(self.dy, self.dx))


class Moved(Wrapped):
    """A source without its first rows and columns; what lies beyond its far edges is as it was."""

    def __init__(self, source: Source, dy: int, dx: int) -> None:
        """Leave out `dy` rows and `dx` columns."""
        super().__init__(source)
        self.dy, self.dx = dy, dx

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) of the rest."""
        bands, height, width = self.source.shape
        return bands, height - self.dy, width - self.dx

    @property
    def georeference(self) -> Georeference | None:
        """None: a comparison needs no position."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the pixels of the source; `box` counts from the new first pixel and does not begin before it."""
        return self.source.read(box.shift(self.dy, self.dx))

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return the valid pixels of the source; `box` counts from the new first pixel."""
        return self.source.valid(box.shift(self.dy, self.dx))

    def identity(self) -> JSON:
        """Return the identity of the source and the offset in pixels."""
        return {**self.source.identity(), "moved": [self.dy, self.dx]}
