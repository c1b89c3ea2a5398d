"""A counting model sees each tile of the grid exactly once in a run, and only the missing ones on resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from helpers.fakes import job_for, open_queue
from rasterio.transform import from_origin
from torch import Tensor, nn

from tilepipe.box import Box
from tilepipe.execution.executors import blocks, serial
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.sources.array import ArraySource
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.open import open_source
from tilepipe.testing import noise, random_unet

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


@pytest.mark.parametrize(("window", "looks"), [("crop", 1), ("hann", 4)])
def test_parts_without_image_data_are_not_read_twice(
    window: str, looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file says by its pixels what is image data, each block looks at them once; the model reads none.

    Tiles that blend reach over four blocks where these meet; the file's blocks stay in GDAL's cache meanwhile.
    """
    pixels = np.zeros((3, 640, 640), np.uint8)
    pixels[:, :150, :150] = noise(150, 150).read(Box(0, 0, 150, 150)) // 2 + 1
    path = tmp_path / "holes.tif"
    form = {
        "driver": "GTiff",
        "count": 3,
        "dtype": "uint8",
        "nodata": 0,
        "tiled": True,
        "crs": "EPSG:3857",
        "transform": from_origin(9, 9, 1, 1),
    }
    with rasterio.open(path, "w", width=640, height=640, blockxsize=64, blockysize=64, **form) as file:
        file.write(pixels)
    job = job_for(open_source(path), random_unet(), tmp_path, tile=96, overlap=32, window_shape=window, block=192)
    times = {name: np.zeros((640, 640), int) for name in ("read", "valid")}

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(GeoTiffSource, name)

        def call(self: GeoTiffSource, box: Box) -> Any:
            times[name][max(0, box.y0) : box.y1, max(0, box.x0) : box.x1] += 1
            return real(self, box)

        return call

    for name in times:
        monkeypatch.setattr(GeoTiffSource, name, counted(name))
    serial.run(job, open_queue(job))
    empty = np.s_[400:, 400:]
    assert times["read"][:150, :150].min() > 0
    assert times["read"][empty].max() == 0
    assert times["valid"][empty].max() == looks


def _all() -> Box:
    return Box.of_shape(HEIGHT, WIDTH)
