"""Runs in bands of rows give the labels of one pass over the image, whatever bands, columns, blocks and workers are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.banded_runs import banded_job, small_bands
from helpers.fakes import open_queue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, ModelError
from tilepipe.execution.banded_tiles import PIECE
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.executors import blocks, serial
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise, random_unet

SHAPE = 203, 321
UNET = random_unet(depth=2)


def whole(image: ArraySource, model: Model) -> NDArray[np.uint8]:
    """Labels of one pass over the whole image in fp64, by torch alone."""
    stride = model.card.stride
    tall, wide = (-(-size // stride) * stride for size in image.shape[1:])
    x = model.normalise(torch.from_numpy(image.read(Box(0, 0, tall, wide))[None]), torch.float64)
    with torch.no_grad():
        logits = model.module.double()(x)
    model.module.float()
    return logits.argmax(1)[0, : image.shape[1], : image.shape[2]].numpy().astype(np.uint8)


def labels(job: Any, engine: Any = serial.run) -> NDArray[np.uint8]:
    queue = open_queue(job)
    engine(job, queue)
    return np.asarray(queue.store.labels.read(Box.of_shape(*job.plan.predicted)))


@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 220), st.integers(1, 330)),
    height=st.sampled_from([4, 12, 32, 64]),
    kept=st.integers(52, 300),
    rows=st.integers(1, 200),
)
def test_labels_are_those_of_one_pass(
    shape: tuple[int, int], height: int, kept: int, rows: int, tmp_path_factory: Any
) -> None:
    image = noise(*shape)
    with pytest.MonkeyPatch.context() as patch:
        small_bands(patch, height=height, kept=kept, rows=rows)
        if max(shape) <= 512:
            patch.setattr("tilepipe.planning.band_tiling._in_tiles", lambda *_: math.inf)
        job = banded_job(image, UNET, tmp_path_factory.mktemp("run"), precision="fp64")
        assert job.plan.exact
        assert (labels(job) == whole(image, UNET)).all()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_bands(monkeypatch)
    monkeypatch.setattr("tilepipe.planning.band_tiling._in_tiles", lambda *_: math.inf)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_any_engine_and_region_gives_the_same_bits(workers: int, tmp_path: Path) -> None:
    image = noise(*SHAPE)
    job = banded_job(image, UNET, tmp_path / "serial")
    assert (job.plan.grid.y.blocks, job.plan.grid.x.blocks) > (2, 2)
    truth = labels(job)
    assert 0.02 < (truth == 0).mean() < 0.98
    assert (labels(banded_job(image, UNET, tmp_path / "blocks", workers=workers), blocks.run) == truth).all()
    for region in (Box(0, 0, 1, 1), Box(57, 90, 131, 260), Box(150, 200, *SHAPE), Box(100, 0, 101, SHAPE[1])):
        part = tp.predict(image, UNET, region, device="cpu")
        assert (part == truth[region.y0 : region.y1, region.x0 : region.x1]).all()


@pytest.mark.usefixtures("small")
def test_a_run_that_stopped_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    image = noise(*SHAPE)
    truth = labels(banded_job(image, UNET, tmp_path / "whole"))
    job = banded_job(image, UNET, tmp_path / "parts")
    for block in (3, 0, 5):  # out of order, each in a process of its own, as after a kill
        queue, worker = open_queue(job), BlockWorker(job)
        queue.commit(worker.run(queue.missing()[block]))
        worker.close()
    assert (labels(job) == truth).all()


@pytest.mark.usefixtures("small")
def test_layers_probabilities_and_logits_come_from_the_same_pass(tmp_path: Path) -> None:
    image = noise(*SHAPE)
    result = tp.segment(image, UNET, tmp_path / "out.tif", layers="margin,entropy", device="cpu")
    plain = tp.predict(image, UNET, device="cpu")
    assert (np.asarray(result.labels) == plain).all()
    scores = tp.predict(image, UNET, returns="logits", device="cpu")
    assert (scores.argmax(0) == plain).all()
    for name in ("margin", "entropy"):
        assert (np.asarray(result.layers[name]) == tp.predict(image, UNET, returns=name, device="cpu")).all()
    softmax = torch.from_numpy(scores).softmax(0).numpy()
    codes = tp.predict(image, UNET, returns="probabilities", device="cpu")
    assert np.abs(codes / 254 - softmax).max() <= 0.5 / 254 + 1e-6


@pytest.mark.usefixtures("small")
def test_the_work_is_one_pass_and_the_edges_of_columns(tmp_path: Path) -> None:
    plan = banded_job(noise(*SHAPE), UNET, tmp_path).plan
    grid = plan.grid
    assert plan.work == pytest.approx(grid.y.padded * grid.x.count * grid.x.tile / math.prod(SHAPE))
    assert plan.work < 1.6 < plan.baseline_work
    assert "in bands of 16 rows" in str(plan)


class Flaky(ArraySource):
    """An image with a box that cannot be read."""

    broken = Box(90, 150, 91, 152)

    def _inside(self, box: Box) -> NDArray[Any]:
        if box & self.broken:
            raise InputError(f"damaged near row {self.broken.y0}")
        return super()._inside(box)


@pytest.mark.usefixtures("small")
def test_an_unreadable_place_costs_the_pixels_that_see_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tilepipe.execution.banded_tiles.PIECE", 32)
    assert PIECE == 512
    good = noise(*SHAPE)
    image = Flaky(good.read(Box.of_shape(*SHAPE)))
    truth = tp.predict(good, UNET, device="cpu")
    job = banded_job(image, UNET, tmp_path)
    found = labels(job)
    lost = found == 255
    assert (found == truth)[~lost].all()
    # The band of 16 rows and the piece of 32 columns around the place are not read, and the network sees 22 px.
    sides = job.plan.reach.sides
    expected = np.zeros(SHAPE, bool)
    expected[80 - sides.bottom : 96 + sides.top, 128 - sides.right : 160 + sides.left] = True
    assert (lost == expected).all()
    region = Box(60, 100, 130, 200)
    part = BlockWorker(banded_job(image, UNET, region=region))
    again, tally = part.region()
    part.close()
    assert (again == found[60:130, 100:200]).all()
    assert tally.failed == ["damaged near row 90"]
    with pytest.raises(InputError, match="damaged near row 90"):
        tp.predict(image, UNET, device="cpu")


class Burnt(nn.Module):
    """A network that gives NaN at pixels of 255."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + 0 * torch.log(254.5 - x)


@pytest.mark.usefixtures("small")
def test_pixels_without_a_number_are_nodata_and_listed(tmp_path: Path) -> None:
    pixels = noise(*SHAPE, bands=1).read(Box.of_shape(*SHAPE)) % 250
    pixels[0, 40, 50] = pixels[0, 120, 300] = 255
    model = Model.from_torch(Burnt(), ModelCard(bands=1, classes=["a", "b"]))
    result = tp.segment(ArraySource(pixels), model, tmp_path / "out.tif", device="cpu")
    found = np.asarray(result.labels)
    assert [tuple(place) for place in np.argwhere(found == 255)] == [(40, 50), (120, 300)]
    assert len(result.failed) == 2
    assert all("NaN" in reason for reason in result.failed)
    with pytest.raises(ModelError, match="NaN"):
        tp.segment(ArraySource(pixels), model, tmp_path / "two.tif", device="cpu", on_tile_error="fail")


@pytest.mark.usefixtures("small")
def test_empty_parts_are_not_computed(tmp_path: Path) -> None:
    pixels = noise(*SHAPE).read(Box.of_shape(*SHAPE))
    valid = np.zeros(SHAPE, bool)
    valid[70:90, 10:40] = valid[180:, 250:] = True
    image = ArraySource(pixels, valid=valid)
    job = banded_job(image, UNET, tmp_path)
    queue = open_queue(job)
    serial.run(job, queue)
    found = queue.store.labels.read(Box.of_shape(*SHAPE))
    assert ((found == 255) == ~valid).all()
    assert sum(record.tiles for record in queue.ledger.done.values()) < job.plan.tile_count
    filled = np.where(valid, pixels, np.round(127).astype(np.uint8))
    assert (found == np.where(valid, tp.predict(ArraySource(filled), UNET, device="cpu"), 255)).all()


@pytest.mark.long
@pytest.mark.usefixtures("small")
def test_held_statistics_are_put_in_row_by_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build({"name": "unet", "width": 4, "depth": 2, "norm": "instance"}, 3, 3)
    model = Model(ModelCard(bands=3, classes=["a", "b", "c"], stride=4, mean=[127.0] * 3, std=[60.0] * 3), net)
    image, how = noise(*SHAPE), {"precision": "fp64", "device": "cpu", "statistics": "field"}
    result = tp.segment(image, model, tmp_path / "out.tif", **how)
    assert result.plan.tiling.bands is not None
    assert result.certificate.mode == "FIELD"
    assert "computed in bands" in result.certificate.sentences[0]
    found = np.asarray(result.labels)
    assert len(np.unique(found)) == 3
    tiled = tp.predict(image, model, tile=128, **how)
    assert tp.plan(image, model, tile=128, **how).tiling.bands is None
    assert (found == np.asarray(tiled)).all()
    region = (70, 60, 100, 80)
    assert (found[60:140, 70:170] == np.asarray(tp.predict(image, model, window=region, **how))).all()
    assert tp.verify(result, image, model, windows=2, whole=True).holds


@pytest.mark.long
def test_a_model_that_sees_too_far_for_tiles_holds_statistics_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    small_bands(monkeypatch)
    net = build({"name": "unet", "width": 4, "depth": 3, "norm": "instance"}, 3, 2)
    card = ModelCard(bands=3, classes=["a", "b"], stride=8, tile=96, mean=[127.0] * 3, std=[60.0] * 3)
    model = Model(card, net)
    plan = tp.plan(noise(100, 700), model, device="cpu")
    assert plan.tiling.bands
    assert plan.statistics
    in_tiles = tp.plan(noise(100, 700), model, device="cpu", tile=96)
    assert in_tiles.statistics is None
    assert "holding that fixed would" in in_tiles.reach.known


@pytest.mark.parametrize("chosen", [{"tile": 64}, {"overlap": 48}, {"tta": "d4"}])
def test_who_chooses_tiles_gets_tiles(chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    small_bands(monkeypatch)
    assert tp.plan(noise(100, 700), UNET, **chosen).tiling.bands is None


@pytest.mark.usefixtures("small")
def test_the_certificate_says_bands_and_verify_holds(tmp_path: Path) -> None:
    tp.segment(noise(*SHAPE), UNET, tmp_path / "out.tif", device="cpu")
    found = tp.verify(tmp_path / "out.tif", image=noise(*SHAPE), model=UNET)
    assert found.holds
    assert "computed in bands of 16 rows" in found.certificate.sentences[0]
    assert found.certificate.mode == "EXACT"
