"""One block: tiles that cannot be read, pixels without image data, reading ahead, and strips of uneven tiles."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import torch
from helpers.examples import drawn
from helpers.fakes import job_for, open_queue, run_labels
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.executors import serial
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.sources.array import ArraySource
from tilepipe.sources.open import open_source
from tilepipe.testing import codes_model, noise, random_unet

CODES = np.random.default_rng(0).integers(0, 4, (100, 140), dtype=np.uint8)
WHOLE = Box.of_shape(*CODES.shape)
SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample"


class Flaky(ArraySource):
    """An image with a box that cannot be read; its validity neither, if `blind`."""

    broken = Box(50, 60, 52, 61)
    blind = False

    def _inside(self, box: Box) -> NDArray[Any]:
        if box & self.broken:
            raise InputError(f"damaged near row {self.broken.y0}")
        return super()._inside(box)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        if self.blind and box & self.broken:
            raise InputError("damaged mask")
        return super().valid(box)


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("window", ["crop", "hann"])
def test_unreadable_tiles_cost_their_own_pixels_only(window: str, blind: bool, tmp_path: Path) -> None:
    """Nodata is exactly where a tile that cannot be read decides (crop) or weighs in (hann)."""
    source = Flaky(CODES)
    source.blind = blind
    job = job_for(source, codes_model(4), tmp_path, tile=32, overlap=8, block=50, window_shape=window)
    grid, queue = job.plan.grid, open_queue(job)
    serial.run(job, queue)
    lost = np.zeros(CODES.shape, bool)
    damaged = [tile for tile in job.plan.tiles() if grid.tile_box(tile) & source.broken]
    for tile in damaged:
        part = grid.kept_box(tile) & WHOLE
        assert part is not None
        lost[part.slices_in(WHOLE)] = True
    assert 0 < lost.sum() < CODES.size / 2
    assert (queue.store.labels.read(WHOLE) == np.where(lost, 255, CODES)).all()
    failed = [problem for record in queue.ledger.done.values() for problem in record.failed]
    assert failed == ["damaged near row 50"] * len(damaged)
    assert sum(record.tiles for record in queue.ledger.done.values()) == job.plan.tile_count - len(damaged)


@pytest.mark.parametrize("window", ["crop", "hann"])
def test_a_region_in_memory_tells_of_unreadable_tiles(window: str) -> None:
    worker = BlockWorker(job_for(Flaky(CODES), codes_model(4), tile=32, overlap=8, window_shape=window))
    labels, tally = worker.region()
    worker.close()
    assert tally.failed
    assert labels[50, 60] == 255
    assert labels[0, 0] == CODES[0, 0]


def test_a_pixel_under_a_thousand_tiles(tmp_path: Path) -> None:
    """More tiles than a uint8 counter holds, at the largest overlap."""
    codes = CODES[:64, :64]
    job = job_for(ArraySource(codes), codes_model(4), tmp_path, tile=32, overlap=31, window_shape="hann", block=40)
    assert len(list(job.plan.grid.tiles_over(Box(32, 32, 33, 33)))) == 1024
    queue = open_queue(job)
    serial.run(job, queue)
    assert (queue.store.labels.read(Box(32, 32, 33, 33)) == codes[32, 32]).all()
    assert (queue.store.labels.read(Box(0, 0, 64, 64)) != 255).all()


class Listening(nn.Module):
    """Class 0 everywhere; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return torch.zeros(len(x), 2, *x.shape[2:])


def seen_by_model(source: ArraySource, mean: tuple[float, ...], **settings: Any) -> NDArray[Any]:
    """Return the one tile that the model was given, in the source's units."""
    card = ModelCard(bands=source.shape[0], classes=["a", "b"], mean=mean)
    module = Listening()
    worker = BlockWorker(job_for(source, Model.owning(module, card), tile=64, **settings))
    worker.region()
    worker.close()
    (tile,) = module.seen
    return (tile + torch.tensor(mean).view(1, -1, 1, 1))[0].numpy()


@pytest.mark.parametrize(
    ("dtype", "mean", "filled"),
    [
        ("uint8", (99.6, 20.4), (100, 20)),
        ("uint8", (300.0, -7.0), (255, 0)),
        ("int16", (-99.6, 20.4), (-100, 20)),
        ("float32", (0.25, -1.5), (0.25, -1.5)),
    ],
)
def test_pixels_without_image_data_are_the_models_mean(
    dtype: str, mean: tuple[float, ...], filled: tuple[float, ...]
) -> None:
    valid = np.random.default_rng(1).random((64, 64)) > 0.3
    pixels = np.full((2, 64, 64), 7, dtype)
    found = seen_by_model(ArraySource(pixels, valid=valid), mean)
    wanted = np.where(valid, 7, np.array(filled)[:, None, None])
    assert np.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("mask", ["auto", "none"])
def test_what_is_no_number_never_reaches_the_model(mask: str) -> None:
    pixels = np.ones((2, 64, 64), np.float32)
    pixels[0, 5, 5], pixels[1, 9, 9] = np.nan, np.inf
    found = seen_by_model(ArraySource(pixels), (3.0, 4.0), mask=mask)
    wanted = np.ones((2, 64, 64))
    wanted[:, [5, 9], [5, 9]] = [[3], [4]]
    assert (found == wanted).all()


def test_float_images_have_nodata_where_they_have_no_numbers(tmp_path: Path) -> None:
    pixels = CODES.astype(np.float32)
    pixels[40:60, 30:90] = np.nan
    labels = run_labels(ArraySource(pixels), codes_model(4), tmp_path, tile=32, overlap=8, block=50)
    assert (labels == np.where(np.isnan(pixels), 255, CODES)).all()


class Sometimes(ArraySource):
    """Says None where everything is valid, an array elsewhere."""

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        found = super().valid(box)
        return None if found is not None and found.all() else found


@pytest.mark.parametrize("window", ["crop", "hann"])
def test_validity_that_is_sometimes_none(window: str, tmp_path: Path) -> None:
    valid = np.ones(CODES.shape, bool)
    valid[60:, 100:] = False
    source = Sometimes(CODES, valid=valid)
    labels = run_labels(source, codes_model(4), tmp_path, tile=32, overlap=8, block=50, window_shape=window)
    assert (labels == np.where(valid, CODES, 255)).all()


class Counted(ArraySource):
    """Counts its reads."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reads = threading.Semaphore(0)

    def read(self, box: Box) -> NDArray[Any]:
        pixels = super().read(box)
        self.reads.release()
        return pixels


def test_the_next_tile_is_read_while_this_one_is_predicted() -> None:
    """The model waits in its first tile until the second one has been read; without reading ahead it never is."""
    source, ahead = Counted(CODES), []
    begun: list[bool] = []  # the model is asked before, too: what it gives is looked at

    class Waiting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if begun and not ahead:
                ahead.append(all(source.reads.acquire(timeout=20) for _ in range(2)))
            return torch.zeros(len(x), 2, *x.shape[2:])

    model = Model.from_torch(Waiting(), ModelCard(bands=1, classes=["a", "b"], halo=4))
    worker = BlockWorker(job_for(source, model, tile=32, overlap=8))
    begun.append(True)
    worker.region()
    worker.close()
    assert ahead == [True]


@drawn(5)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 200),
    tile=st.sampled_from([16, 32, 48]),
    block=st.integers(1, 120),
    window=st.sampled_from(["crop", "hann", "linear", "gaussian"]),
    data=st.data(),
)
def test_blocks_on_disk_equal_the_region_in_memory(
    height: int, width: int, tile: int, block: int, window: str, data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """Also where the tile is cut to a small image on one axis only, so that tiles are not square."""
    overlap = data.draw(st.integers(0, tile * 3 // 16).map(lambda n: 4 * n))
    cut = {"tile": tile, "overlap": overlap, "window_shape": window, "block": block}
    model, image = random_unet(depth=1, width=2), noise(height, width, seed=height)
    labels = run_labels(image, model, tmp_path_factory.mktemp("run"), **cut)  # type: ignore[arg-type]
    worker = BlockWorker(job_for(image, model, **cut))  # type: ignore[arg-type]
    expected, _ = worker.region()
    worker.close()
    assert (labels == expected).all()
    assert (labels != 255).all()


def spoil(path: Path, offset: int, size: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)


def damaged_tiff(folder: Path) -> tuple[Path, Box]:
    """A crop of a real aerial image, one of whose blocks is zeros."""
    with rasterio.open(SAMPLE / "banepa_east_rgb.tif") as file:
        pixels = file.read(window=((200, 456), (200, 456)))
    path, layout = folder / "a.tif", {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    place = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.3, 0, 335000, 0, -0.3, 3058000)}
    size = {"count": 3, "height": 256, "width": 256, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **size, **layout, **place) as file:
        file.write(pixels)
    with rasterio.open(path) as file:
        offset, size = (int(file.get_tag_item(f"BLOCK_{what}_1_1", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    spoil(path, offset, size)
    return path, Box(64, 64, 128, 128)


def damaged_slide(folder: Path) -> tuple[Path, Box]:
    """A real slide, one of whose JPEG tiles is zeros."""
    path = Path(shutil.copy(SAMPLE / "CMU-1-Small-Region.svs", folder))
    with tifffile.TiffFile(path) as file:
        page, row, column = file.pages[0], 3, 4
        k, side = row * -(-page.imagewidth // page.tilewidth) + column, page.tilewidth
        offset, size = page.dataoffsets[k], page.databytecounts[k]
    spoil(path, offset, size)
    return path, Box(row * side, column * side, (row + 1) * side, (column + 1) * side)


@pytest.mark.parametrize("make", [damaged_tiff, damaged_slide])
@pytest.mark.parametrize("window", ["crop", "hann"])
def test_a_corrupt_tile_of_a_real_file(make: Any, window: str, tmp_path: Path) -> None:
    path, bad = make(tmp_path)
    source = open_source(path)
    region = bad.pad(64)
    cut = {"tile": 64, "overlap": 24, "block": 100, "window_shape": window}
    job = job_for(source, random_unet(depth=1), tmp_path / "run", region=region, **cut)
    queue = open_queue(job)
    serial.run(job, queue)
    labels = queue.store.labels.read(region)
    assert (labels[bad.slices_in(region)] == 255).all()
    failed = [problem for record in queue.ledger.done.values() for problem in record.failed]
    assert 4 <= len(failed) < job.plan.tile_count
    assert path.name in failed[0]
    near = np.zeros(region.shape, bool)
    near[bad.pad(63).slices_in(region)] = True
    assert (labels[~near] != 255).all()
