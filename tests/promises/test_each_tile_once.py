"""A counting model sees each tile of the grid exactly once in a run, and only the missing ones on resume."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fakes import job_for, open_queue
from torch import Tensor, nn

from tilepipe.box import Box
from tilepipe.execution.executors import blocks, serial
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.sources.array import ArraySource

SEEN: Counter[tuple[int, int]] = Counter()
HEIGHT, WIDTH = 330, 290


class Counting(nn.Module):
    """Notes where the tiles that it sees lie: an image of coordinates tells."""

    def forward(self, x: Tensor) -> Tensor:
        for tile in x:
            if tile.abs().sum() > 0:  # not the padding of the last batch
                SEEN[int(tile[0, 0, 0]), int(tile[1, 0, 0])] += 1
        return torch.zeros(len(x), 2, *x.shape[2:])


@pytest.fixture
def coordinates() -> ArraySource:
    SEEN.clear()
    rows, columns = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    return ArraySource(np.stack([rows, columns, np.ones_like(rows)]).astype(np.float32))


def counting() -> Model:
    model = Model.from_torch(Counting(), ModelCard(bands=3, classes=["a", "b"], halo=8))
    SEEN.clear()  # what the model gives was looked at
    return model


@pytest.mark.parametrize("window", ["crop", "hann"])
@pytest.mark.parametrize("engine", [serial.run, blocks.run])
def test_each_tile_once(window: str, engine: object, coordinates: ArraySource, tmp_path: Path) -> None:
    cut = {"tile": 40, "overlap": 16, "window_shape": window, "block": 100, "batch": 3}
    job = job_for(coordinates, counting(), tmp_path, **cut)
    engine(job, open_queue(job))  # type: ignore[operator]
    grid = job.plan.grid
    wanted = {(grid.tile_box(tile).y0, grid.tile_box(tile).x0) for tile in job.plan.tiles()}
    assert set(SEEN) == wanted
    assert set(SEEN.values()) == {1}
    assert len(SEEN) == job.plan.tile_count


@pytest.mark.parametrize("window", ["crop", "hann"])
def test_only_the_missing_ones_on_resume(window: str, coordinates: ArraySource, tmp_path: Path) -> None:
    job = job_for(coordinates, counting(), tmp_path, tile=40, overlap=16, window_shape=window, block=100)

    class StopError(Exception):
        pass

    def stop(event: object) -> None:
        raise StopError

    for _ in range(3):
        with pytest.raises(StopError):
            serial.run(job, open_queue(job, stop))
    before = sum(SEEN.values())
    queue = open_queue(job)
    missing = sum(len(job.plan.tiles_of(block)) for block in queue.missing())
    serial.run(job, queue)
    assert sum(SEEN.values()) == before + missing == job.plan.tile_count
    assert set(SEEN.values()) == {1}


def test_tiles_without_image_data_are_not_predicted(coordinates: ArraySource, tmp_path: Path) -> None:
    valid = np.zeros((HEIGHT, WIDTH), bool)
    valid[200:210, 30:60] = True
    source = ArraySource(coordinates.read(_all()), valid=valid)
    job = job_for(source, counting(), tmp_path, tile=40, overlap=16, window_shape="crop", block=100)
    queue = open_queue(job)
    serial.run(job, queue)
    grid = job.plan.grid
    wanted = sum(valid[grid.kept_box(tile).slices_in(_all())].any() for tile in job.plan.tiles())
    assert sum(SEEN.values()) == wanted < job.plan.tile_count
    assert (queue.store.labels.read(_all()) == np.where(valid, 0, 255)).all()


def _all() -> Box:
    return Box.of_shape(HEIGHT, WIDTH)
