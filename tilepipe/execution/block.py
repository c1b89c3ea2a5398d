"""This module processes one block: read, predict, blend, commit. It is the only place where these parts meet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Array, Labels, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError, ModelError
from tilepipe.execution.banded_tiles import BandedTiles
from tilepipe.execution.constant_tiles import ConstantTiles
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.incremental.block_hashes import block_hashes, pixels_hash
from tilepipe.execution.job import FAIL, Job
from tilepipe.execution.ledger import Record
from tilepipe.execution.model_watch import TILES, watch_of
from tilepipe.execution.stages import StageNotes
from tilepipe.execution.statistics.provider import StatisticsProvider, provider_of
from tilepipe.execution.store import Store
from tilepipe.execution.trials import Call, Found, Trials
from tilepipe.execution.wanted_tiles import WantedTiles, reached
from tilepipe.inference.predictor import LOGITS, Predictor
from tilepipe.inference.statistics.capture import FixedStatistics
from tilepipe.planning.plan import Plan
from tilepipe.products.label_map import LABELS
from tilepipe.stage_times import stage
from tilepipe.tiling.blend import SIDES, BlendCanvas, Canvas, CropCanvas, CropLayerCanvas, ScoreCanvas, strip_boxes
from tilepipe.tiling.grid import Index
from tilepipe.tiling.uncertainty import INFORMATION, PROBABILITIES, VOID, probability_names


@dataclass
class Tally:
    """The counts of a block's tiles."""

    tiles: int = 0
    """Number of tiles predicted."""
    failed: list[str] = field(default_factory=list)
    """Tiles that could not be read or predicted, each with the reason."""
    seen: dict[Index, bytes] = field(default_factory=dict)
    """Hashes of what each tile has seen, if the job keeps hashes."""


class BlockWorker:
    """A worker for the blocks of one job in one process. `run` may be called from several threads."""

    def __init__(self, job: Job, statistics: StatisticsProvider | None = None) -> None:
        """Move the model to its device and open the store; `statistics` come from `job` if not given."""
        self.job, plan = job, job.plan
        cut = plan.tiling
        blended_in_bands = None if cut.bands is None or cut.columns else cut.bands
        self.predictor = Predictor(job.model, plan.grid.tile_shape, plan.compute, blended_in_bands, cut.stride)
        self.store = Store(job.directory) if job.directory else None
        self._notes, self._constant = StageNotes(job.directory), ConstantTiles()
        self.image = FilledImage(job.source, job.model.card.mean or (0.0,) * plan.bands)
        self.tiles = WantedTiles(job, self.image)
        stop = job.on_tile_error == FAIL
        self.statistics = statistics or provider_of(plan, job.model, self.image, job.directory, stop=stop)
        self._trials = Trials(job.model, plan, watch_of(job, TILES), stop=stop)
        # Decoding releases the interpreter's lock, so reading goes on while the model computes. The memory promise
        # counts what these threads hold (planning/memory.py): more of them would break it.
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="read")
        self._banded: BandedTiles | None = None
        if cut.columns:
            self._banded = BandedTiles(job, self.image, self._readers, watch_of(job, TILES), self.statistics)

    def region(self) -> tuple[Labels, Tally]:
        """Return the labels of the plan's region on the prediction grid, in memory, and the counts of its tiles."""
        tally = Tally()
        return self.labels(self.job.plan.predicted_region, tally), tally

    def labels(self, box: Box, tally: Tally | None = None) -> Labels:
        """Return the labels of a box of the prediction grid, (box.height, box.width); count its tiles in `tally`."""
        wanted = self.tiles.wanted(box)
        labels = self._gather(self.job.plan.grid.tiles_over(box), box, wanted, tally or Tally()).labels(box)
        # The area cuts the labels and not the pixels: pixels outside are real context for the tiles at the area's
        # border. Filled pixels there once changed labels 273 px inside a polygon.
        labels[~wanted] = self.job.plan.nodata
        return labels

    def region_planes(self, returns: str) -> Array:
        """Return scores ('logits'), codes of all probabilities, or of one layer, (planes, height, width), as `region`.

        Pixels without a label are NaN in scores, and nodata in codes.
        """
        plan, area = self.job.plan, self.job.plan.predicted_region
        wanted = self.tiles.wanted(area)
        if returns == LOGITS:
            scores = ScoreCanvas(plan.grid, area, plan.classes, plan.compute.dtype)
            self._fill(scores, LOGITS, self.tiles.useful(plan.tiles(), area, wanted), Tally())
            scores.scores[:, ~wanted] = np.nan
            return scores.scores
        canvas = self._gather(plan.tiles(), area, wanted, Tally())
        names = probability_names(plan.classes) if returns == PROBABILITIES else (returns,)
        return np.stack([np.where(wanted, canvas.layer(name, area), np.uint8(VOID)) for name in names])

    def probabilities(self, box: Box) -> Array:
        """Return the probabilities times 2**24 of the tiles that keep a box's pixels, (classes, box.height, box.width).

        Raises `InputError` or `ModelError` for a tile that fails.
        """
        scores, tally = ScoreCanvas(self.job.plan.grid, box, self.job.plan.classes, "float64"), Tally()
        tiles = self.job.plan.grid.tiles_over(box)
        self._fill(scores, PROBABILITIES, self.tiles.useful(tiles, box, self.tiles.wanted(box)), tally)
        if tally.failed:
            raise ModelError(tally.failed[0])
        return scores.scores

    def run(self, block: Index, strips_from: Iterable[Record] = ()) -> Record:
        """Predict a block's tiles, write its labels and strips, and return the line for the ledger.

        `strips_from` are the ledger lines of the earlier neighbours that have written strips, or were taken over.
        """
        start, plan, tally, strips_from = time.monotonic(), self.job.plan, Tally(), tuple(strips_from)
        assert self.store is not None
        zone, area = plan.grid.zone(block), reached(plan.grid, block)
        wanted = self.tiles.wanted(area)
        canvas = self._gather(plan.tiles_of(block), area, wanted, tally)
        strips: dict[str, str] = {}
        if isinstance(canvas, BlendCanvas):
            # A block without a predicted tile leaves nothing: no strips of zeros are written over the empty parts of an
            # image.
            strips = self._exchange_strips(block, canvas, strips_from, own=bool(tally.tiles or tally.failed))
            # A neighbour whose labels were taken from an earlier run has left no strips, so its tiles are predicted.
            taken = [tile for record in strips_from if record.taken for tile in plan.tiles_of(record.block)]
            others = Tally()
            self._fill(canvas, PROBABILITIES, self.tiles.useful(taken, zone, wanted[zone.slices_in(area)]), others)
            tally.tiles, tally.failed = tally.tiles + others.tiles, tally.failed + others.failed
        with stage("blend"):
            labels = canvas.labels(zone)
        asked = wanted[zone.slices_in(area)]
        labels[~asked] = plan.nodata
        with stage("write"):
            sha256 = self.store.labels.write(labels, zone)
        layers = self._write_layers(zone, canvas, labels != plan.nodata)
        # A block with a failed tile is never taken over: the tile may be read or predicted the next time.
        keeps = self.job.hashes and not tally.failed
        seen = block_hashes(plan, block, asked, tally.seen) if keeps else ()
        seconds = round(time.monotonic() - start, 3)
        self._notes.write()
        return Record(block, sha256, tally.tiles, tuple(tally.failed), seconds, layers, strips, seen)

    def _write_layers(self, zone: Box, canvas: Canvas, labelled: NDArray[np.bool_]) -> tuple[str, ...]:
        """Write what the plan keeps beside labels, with nodata where they have it; return the sha256 of each array."""
        assert self.store is not None
        layers = self.job.plan.kept
        found = ((name, np.where(labelled, canvas.layer(name, zone), np.uint8(VOID))) for name in layers)
        return tuple(self.store.array(name).write(codes, zone) for name, codes in found)

    def close(self) -> None:
        """Stop the threads."""
        self._readers.shutdown(cancel_futures=True)
        if self._banded is not None:
            self._banded.close()

    def _gather(self, tiles: Iterable[Index], area: Box, wanted: NDArray[np.bool_], tally: Tally) -> Canvas:
        """Predict `tiles` and collect their results over `area`; tiles without a wanted pixel are left out."""
        canvas = _canvas(self.job.plan, area)
        # With crop windows only labels leave the device, a byte per pixel in place of a float per class.
        kind = PROBABILITIES if isinstance(canvas, BlendCanvas | CropLayerCanvas) else LABELS
        self._fill(canvas, kind, self.tiles.useful(tiles, area, wanted), tally)
        return canvas

    def _fill(self, canvas: Canvas, kind: str, asked: Iterator[tuple[Index, Box]], tally: Tally) -> None:
        """Predict the tiles of `asked`; add labels, probabilities or logits to the canvas, as `kind` says."""
        if self._banded is not None:
            assert isinstance(canvas, CropCanvas)
            done, failed = self._banded.fill(canvas, kind, asked, tally.seen)
            tally.tiles += done
            tally.failed += failed
            return
        predict: Call = self.predictor.labels
        if kind == LOGITS:
            predict = self.predictor.logits
        elif kind == PROBABILITIES:
            predict = partial(self.predictor.probabilities, informed=INFORMATION in self.job.plan.layers)
        predict = self._constant.once(predict, kind)
        # Tiles are batched over the whole block, and the predictor pads the last batch. If a model always sees one
        # batch shape, a tile gets the same bits whatever other tiles are in the batch.
        groups = _batched((tile for tile, _ in asked), self.job.plan.compute.batch)
        for group in self._read_ahead(groups, tally.seen):
            for tile, values in self._values(predict, group):
                if isinstance(values, str):
                    canvas.fail(tile)
                    tally.failed.append(values)
                else:
                    with stage("blend"):
                        canvas.add(tile, values, self.job.plan.grid.tile_box(tile))
                    tally.tiles += 1

    def _values(self, predict: Call, group: list[tuple[Index, Found]]) -> Iterator[tuple[Index, Found]]:
        """Yield the model's result for each tile of a group, or the reason why there is none."""
        good = [(tile, pixels) for tile, pixels in group if not isinstance(pixels, str)]
        yield from ((tile, problem) for tile, problem in group if isinstance(problem, str))
        boxes = [self.job.plan.grid.tile_box(tile) for tile, _ in good]
        found = self._trials.of(predict, [pixels for _, pixels in good], boxes, self.under)
        yield from zip((tile for tile, _ in good), found, strict=True)

    def _read_ahead(
        self, groups: Iterator[tuple[Index, ...]], seen: dict[Index, bytes]
    ) -> Iterator[list[tuple[Index, Found]]]:
        """Yield groups of tiles with their pixels, reading the next group while this one is used; put the hashes of
        the tiles into `seen`."""
        first = list(islice(groups, 2))
        if sum(map(len, first)) == 1:  # a single tile has nothing to wait for, and starting threads takes time
            yield [(tile, self._read(tile, seen)) for tile in first[0]]
            return
        waiting: list[list[tuple[Index, Future[Found]]]] = []
        for group in chain(first, groups):
            waiting.append([(tile, self._readers.submit(self._read, tile, seen)) for tile in group])
            # One group ahead is enough to hide reading, and each group ahead costs memory.
            if len(waiting) > 1:
                yield _waited_for(waiting.pop(0))
        for rest in waiting:
            yield _waited_for(rest)

    def _read(self, tile: Index, seen: dict[Index, bytes]) -> Found:
        """Return a tile's pixels, or the reason why they cannot be read; the error is raised if a failed tile stops the
        run."""
        try:
            pixels = self.pixels(self.job.plan.grid.tile_box(tile))
        # The reason is returned and not raised: a damaged tile in an image of a million costs its own pixels, not the
        # run.
        except InputError as error:
            if self.job.on_tile_error == FAIL:
                raise
            return str(error)
        if self.job.hashes:
            seen[tile] = pixels_hash(pixels)
        return pixels

    def pixels(self, box: Box) -> Pixels:
        """Return pixels as the model sees them; pixels without image data have its mean. Raises `InputError`."""
        return self.image.read(box)[0]

    def under(self, boxes: Iterable[Box]) -> FixedStatistics | None:
        """Return the fixed statistics for tiles at `boxes`; None if each tile uses its own statistics."""
        return FixedStatistics([self.statistics.nodes(box) for box in boxes]) if self.statistics else None

    def _exchange_strips(
        self, block: Index, canvas: BlendCanvas, strips_from: Iterable[Record], *, own: bool
    ) -> dict[str, str]:
        """Write this block's strips, if it has any of its `own`, and add the strips of its earlier neighbours.

        Returns the sha256 of the block's own strips, by side.
        """
        assert self.store is not None
        grid = self.job.plan.grid
        # A tile begins inside the zone of its block, so at least one of its pixels lies there.
        reach = max(grid.tile_shape) - 1
        boxes = strip_boxes(grid.zone(block), reach, grid.shape) if own else {}
        written = {side: self.store.write_strip(block, side, canvas.at(box)) for side, box in boxes.items()}
        dependencies = {record.block: record for record in strips_from if record.strips}
        for side, (rows, columns) in SIDES.items():
            near = Index(block.row - rows, block.column - columns)
            if near in dependencies:
                box = strip_boxes(grid.zone(near), reach, grid.shape)[side]
                canvas.at(box)[:] += self.store.read_strip(near, side, dependencies[near].strips[side])
        return written


def _waited_for(group: list[tuple[Index, Future[Found]]]) -> list[tuple[Index, Found]]:
    with stage("wait"):
        return [(tile, future.result()) for tile, future in group]


def _canvas(plan: Plan, area: Box) -> Canvas:
    """Return the canvas that collects labels over `area`: from labels, or from probabilities if tiles blend or have
    layers."""
    grid, dtype = plan.grid, plan.label_dtype
    if grid.blended:
        return BlendCanvas(grid, area, plan.tiling.window, classes=plan.classes, dtype=dtype, layers=plan.layers)
    return (
        CropLayerCanvas(grid, area, plan.classes, dtype=dtype, nodata=plan.nodata, layers=plan.kept)
        if plan.kept
        else CropCanvas(grid, area, dtype, plan.nodata)
    )


def _batched(tiles: Iterator[Index], size: int) -> Iterator[tuple[Index, ...]]:
    """Yield groups of `size` tiles; the last one may be smaller."""
    while group := tuple(islice(tiles, size)):
        yield group
