"""This module computes the tiles of a plan in bands of rows, and collects their results on a canvas."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError, ModelError
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.incremental.block_hashes import bands_of, pixels_hash, rows_hash
from tilepipe.execution.job import FAIL, MODEL_FAILS, Job
from tilepipe.execution.model_watch import ModelWatch
from tilepipe.execution.statistics.provider import StatisticsProvider
from tilepipe.execution.trials import place
from tilepipe.inference.banded.columns import Columns, Logits
from tilepipe.inference.banded.steady import MOST as STEADY
from tilepipe.inference.predictor import finished, without_number
from tilepipe.stage_times import stage
from tilepipe.tiling.blend import CropCanvas
from tilepipe.tiling.grid import Index

PIECE = 512
"""Width of the pieces in which a band is read that cannot be read whole (pixels)."""


class BandedTiles:
    """The tiles of a job in one process. Threads can share it: one tile is computed at a time."""

    def __init__(
        self,
        job: Job,
        image: FilledImage,
        readers: Executor,
        watch: ModelWatch,
        statistics: StatisticsProvider | None = None,
    ) -> None:
        """Bring the model to its device. `readers` decode the bands."""
        plan = job.plan
        assert plan.tiling.columns is not None
        self.job, self.plan, self.image, self._readers, self._watch = job, plan, image, readers, watch
        self.bands = plan.tiling.columns
        around = statistics.nodes if statistics else None
        self._columns = Columns(job.model, self.bands, plan.tiling.stride, plan.compute, plan.statistics, around)
        self._unread: dict[Box, str] = {}
        """Pieces of bands that cannot be read, each with the reason."""
        # The hashes of a pass are those of one column, and another thread may ask for the next column.
        self._one_at_a_time = threading.Lock()
        self._hashes: dict[Box, bytes] = {}
        """Hashes of the bands of this column that further tiles see, if the job keeps hashes."""

    def fill(
        self, canvas: CropCanvas, wanted: str, asked: Iterable[tuple[Index, Box]], seen: dict[Index, bytes]
    ) -> tuple[int, list[str]]:
        """Compute boxes of tiles, and give the canvas their labels, probabilities or logits, as `wanted` says.

        Returns the number of tiles that got a label, and a reason for each place that got none because its pixels
        cannot be read, or because the model gives no number there. Such places, and all pixels that see them, become
        nodata; the rest of a tile is right. Hashes of what the tiles see are put into `seen`, if the job keeps them.
        """
        done, failed = 0, list[str]()
        for tile, over in asked:
            if why := self._watch.suspects.given_up.get(self.plan.grid.tile_box(tile)):
                failed.append(self._problem(over, why))
                continue
            with self._one_at_a_time:
                nodata = self._compute(canvas, wanted, tile, over)
                if self.job.hashes and not self._unread:
                    seen[tile] = self._seen(tile, over)
            if nodata.any():
                failed.append(self._problem(over, "it gives NaN or infinite logits"))
            for part, reason in self._blind(over):
                nodata[part.slices_in(over)] = True
                failed.append(reason)
            canvas.make_nodata(over, nodata)
            done += not nodata.all()
        return done, list(dict.fromkeys(failed))

    def close(self) -> None:
        """Stop the thread that computes."""
        self._columns.close()

    def _compute(self, canvas: CropCanvas, wanted: str, tile: Index, over: Box) -> NDArray[np.bool_]:
        """Compute the rows of `over`, and return where in it the model gives no number."""
        seen, nodata = self.plan.grid.tile_box(tile), np.zeros(over.shape, bool)

        def take(box: Box, logits: Logits) -> None:
            values = finished(logits, wanted, self.plan.label_dtype)
            with stage("blend"):
                canvas.add(tile, values, box)
            # NaN and infinity show in the largest score of a pixel.
            wrong = without_number(logits)
            part = box & over
            assert part is not None
            nodata[part.slices_in(over)] = wrong[part.slices_in(box)]

        rows = Box(over.y0, seen.x0, over.y1, seen.x1)
        self._forget(rows, rows.y0 - 2 * self.bands.lead)
        self._columns.run(rows, self.plan.grid.y.padded, self._read, take, partial(self._watch.over, [seen]))
        return nodata

    def _blind(self, over: Box) -> Iterator[tuple[Box, str]]:
        """Yield the parts of a box whose pixels see a piece that could not be read, each with the reason."""
        sides = self.plan.reach.sides
        assert sides is not None
        for piece, reason in list(self._unread.items()):
            grown = Box(piece.y0 - sides.bottom, piece.x0 - sides.right, piece.y1 + sides.top, piece.x1 + sides.left)
            if (part := grown & over) is not None:
                yield part, reason

    def _seen(self, tile: Index, over: Box) -> bytes:
        """Return the hash of what a pass has seen that has just computed the rows of `over`."""
        box, height, padded = self.plan.grid.tile_box(tile), self.bands.height, self.plan.grid.y.padded
        rows = self._columns.seen(Box(over.y0, box.x0, over.y1, box.x1))
        bands = bands_of(Box(rows.start, box.x0, rows.stop, box.x1), height)
        return rows_hash(over, rows.start, [self._hashes[band] for band in bands], last=rows.stop == padded)

    def _forget(self, rows: Box, above: int) -> None:
        """Forget what was read above a row, and hashes of another column than that of `rows`."""
        for piece in [piece for piece in list(self._unread) if piece.y1 <= above]:
            self._unread.pop(piece, None)
        # Passes begin at the top of the image as long as bands are not steady there.
        top = range(STEADY * self.bands.height, above)
        for band in [band for band in list(self._hashes) if band.y1 in top or band.x0 != rows.x0]:
            self._hashes.pop(band, None)

    def _problem(self, over: Box, why: str) -> str:
        """Return the reason why pixels get no label; raise it if a failed tile stops the run."""
        problem = f"{MODEL_FAILS}{place(over, self.plan)}: {why}"
        if self.job.on_tile_error == FAIL:
            raise ModelError(problem)
        return problem

    def _read(self, box: Box) -> Future[Pixels]:
        return self._readers.submit(self._pixels, box)

    def _pixels(self, box: Box) -> Pixels:
        """Return the pixels of a band; a piece that cannot be read has the model's mean, and is kept in mind."""
        try:
            pixels = self.image.read(box)[0]
        except InputError:
            if self.job.on_tile_error == FAIL:
                raise
        else:
            if self.job.hashes:
                self._hashes[box] = pixels_hash(pixels)
            return pixels
        parts = []
        # Pieces lie on multiples of their width, so that a place fails or not whatever the tiles are.
        edges = [box.x0, *range(-(-(box.x0 + 1) // PIECE) * PIECE, box.x1, PIECE), box.x1]
        for left, right in pairwise(edges):
            piece = Box(box.y0, left, box.y1, right)
            try:
                parts.append(self.image.read(piece)[0])
            except InputError as error:
                self._unread[piece] = str(error)
                parts.append(self.image.blank(piece))
        return np.concatenate(parts, axis=2)
