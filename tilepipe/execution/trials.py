"""This module runs tiles through a model; a tile that the model fails on is found alone, and the others stay right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tilepipe.arrays import Array, Pixels
from tilepipe.box import Box
from tilepipe.errors import ModelError, NoMemoryError
from tilepipe.execution.job import MODEL_FAILS
from tilepipe.execution.model_watch import ModelWatch
from tilepipe.inference.statistics.capture import FixedStatistics
from tilepipe.models.model import Model
from tilepipe.models.probe.sample_tiles import made_up_tiles
from tilepipe.planning.plan import Plan

Found = Array | str
"""Values of a tile, or the reason why there are none."""
Call = Callable[[Pixels, FixedStatistics | None], Array]
"""Function from tiles (n, bands, height, width) and fixed statistics to the values of each tile."""
Under = Callable[[Sequence[Box]], FixedStatistics | None]
"""Function from the boxes of tiles to the fixed statistics with which the model runs on them."""


class Trials:
    """A caller of a model on groups of tiles. If a group fails, each tile is tried again alone, in the same batch
    shape."""

    def __init__(self, model: Model, plan: Plan, watch: ModelWatch, *, stop: bool = False) -> None:
        """Keep the model and the watch over its calls; if `stop` is True, the first tile that the model fails on raises
        an error."""
        self._model, self._plan, self._watch, self._stop = model, plan, watch, stop
        self._works = False

    def of(self, call: Call, pixels: Sequence[Pixels], boxes: Sequence[Box], under: Under) -> list[Found]:
        """Return the values of each tile at `boxes`, or where and why the model fails on the tile.

        Raises `ModelError` if the model has worked on no tile so far, and also fails on a made-up tile.
        """
        if not pixels:
            return []
        if any(box in self._watch.suspects.ends for box in boxes):
            return self._one_by_one(call, pixels, boxes, under)
        try:
            found: list[Found] = list(self._called(call, stacked(pixels), boxes, under))
        except (ModelError, NoMemoryError):
            if len(pixels) > 1:
                return self._one_by_one(call, pixels, boxes, under)
            return [self._again(call, pixels[0], boxes[0], under)]
        self._works = True
        return found

    def _one_by_one(self, call: Call, pixels: Sequence[Pixels], boxes: Sequence[Box], under: Under) -> list[Found]:
        """Try each tile alone, but padded to the same batch shape: good tiles get the bits that they would have got
        without the bad tile. A tile that has ended processes alone is left out."""
        found: list[Found] = []
        for one, box in zip(pixels, boxes, strict=True):
            if why := self._watch.suspects.given_up.get(box):
                found.append(self._problem(box, why))
            else:
                if box in self._watch.suspects.ends and not self._can_work(call, one, under([box])):
                    raise ModelError(f"{self._model.name} has ended the process, and it fails on made-up pixels too")
                found.append(self._again(call, one, box, under))
        return found

    def _called(self, call: Call, tiles: Pixels, boxes: Sequence[Box], under: Under) -> Array:
        """Call the model while the watch knows on which tiles."""
        mode = under(boxes)  # it may call the model itself, on patches
        with self._watch.over(boxes):
            return call(tiles, mode)

    def _problem(self, box: Box, why: str, cause: Exception | None = None) -> str:
        """Return the reason why a tile gets no label; raise it if a failed tile stops the run."""
        problem = f"{MODEL_FAILS}{place(box, self._plan)}: {why}"
        if self._stop:
            raise ModelError(problem) from cause
        return problem

    def _again(self, call: Call, pixels: Pixels, box: Box, under: Under) -> Found:
        try:
            found: Array = self._called(call, pixels[None], [box], under)[0]
        except (ModelError, NoMemoryError) as error:
            # Memory that made-up pixels do not find either is short for all tiles, also if it was not before.
            self._works = self._works and not isinstance(error, NoMemoryError)
            # A model that works on no tile (a missing library, a wrong number of channels) is not a million bad tiles:
            # the run ends with its error.
            if not self._can_work(call, pixels, under([box])):
                raise
            return self._problem(box, _said(error), error)
        self._works = True
        return found

    def _can_work(self, call: Call, like: Pixels, under: FixedStatistics | None) -> bool:
        """Return whether the model has worked on a tile, or works on a made-up tile; if not, the run fails."""
        if why := self._watch.suspects.hopeless:
            raise ModelError(f"{self._model.name} cannot be used: {why}, on made-up pixels too")
        if not self._works:
            height, width = like.shape[1:]
            try:
                with self._watch.over(()):
                    call(made_up_tiles(self._model.card, 1, (height, width), str(like.dtype)), under)
            except (ModelError, NoMemoryError):
                return False
            self._works = True
        return True


def stacked(tiles: Sequence[Pixels]) -> Pixels:
    """Return tiles as one array; one tile is not copied."""
    return tiles[0][None] if len(tiles) == 1 else np.stack(tiles)


def place(box: Box, plan: Plan) -> str:
    """Return the position of a tile in the image, in full-resolution pixels."""
    (height, width), (tall, wide) = plan.shape, plan.predicted
    y0, y1 = box.y0 * height // tall, min(-(-box.y1 * height // tall), height)
    x0, x1 = box.x0 * width // wide, min(-(-box.x1 * width // wide), width)
    return f"rows {y0} to {y1}, columns {x0} to {x1}"


def _said(error: ModelError | NoMemoryError) -> str:
    """Return the error of a model on a tile, without advice about the model as a whole, since it works elsewhere."""
    cause = error.__cause__
    if cause is None:
        return str(error)
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}".removesuffix(": ")
