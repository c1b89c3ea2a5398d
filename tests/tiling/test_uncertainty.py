"""Uncertainty layers: against float64 brute force, and as parts of a run with its promises."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import job_for, open_queue, run_labels
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.executors import blocks, serial
from tilepipe.execution.job import Job
from tilepipe.sources.array import ArraySource
from tilepipe.testing import FakeSource, codes_model, noise, random_unet
from tilepipe.tiling.grid import Index
from tilepipe.tiling.uncertainty import INFORMATION, LAYERS, STEPS, VOID, check_blended, codes, squares
from tilepipe.tiling.weights import weights

HEIGHT, WIDTH = 150, 210
WHOLE = Box.of_shape(HEIGHT, WIDTH)
CROP: dict[str, Any] = {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96, "layers": "margin,entropy"}
HANN: dict[str, Any] = {
    "tile": 64,
    "overlap": 32,
    "window_shape": "hann",
    "block": 96,
    "layers": ("margin", "entropy", "disagreement"),
}
ONE = 1 << 24


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return probabilities (classes first): some even, some nearly sure, some exactly sure."""
    logits = rng.normal(size=shape) * rng.choice([0.0, 1.0, 5.0, 100.0], size=(1, *shape[1:]))
    exp = np.exp(logits - logits.max(axis=0))
    return np.asarray(exp / exp.sum(axis=0))


def true_margin(p: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(np.concatenate([p, np.zeros_like(p[:1])]), axis=0)
    return np.asarray(ordered[-1] - ordered[-2])


def true_entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    bits = -np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0).sum(axis=0)
    return np.asarray(bits / np.log(len(p)) if len(p) > 1 else bits)


def assert_codes(found: NDArray[Any], truth: NDArray[np.float64], slack: float) -> None:
    """Codes are the truth to half a code, and `slack` codes for what fewer bits cost."""
    assert found.dtype == np.uint8
    assert np.abs(found - STEPS * truth).max() <= 0.5 + slack


@given(classes=st.sampled_from([1, 2, 3, 7, 40, 300]), bits=st.sampled_from([24, 48]), seed=st.integers(0, 10**6))
def test_margin_and_entropy_against_float64(classes: int, bits: int, seed: int) -> None:
    p = draw(np.random.default_rng(seed), (classes, 70, 9))
    planes = np.round(p * 2.0**bits).astype(np.int64)
    planes[p.argmax(axis=0), *np.indices(p.shape[1:])] += 1 << (bits - 24)
    assert_codes(codes("margin", planes, bits), true_margin(p), 1e-4)
    assert_codes(codes("entropy", planes, bits), true_entropy(p), 0.05)


@given(classes=st.integers(2, 6), tiles=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_disagreement_against_float64(classes: int, tiles: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.stack([draw(rng, (classes, 70, 9)) for _ in range(tiles)])
    p = np.where(rng.random((1, 1, 70, 9)) < 0.2, p[:1], p)  # some pixels where all agree
    weight = rng.dirichlet(np.ones(tiles), (70, 9)).transpose(2, 0, 1)
    whole = np.floor(weight * ONE).astype(np.int64)
    whole[0] += ONE - whole.sum(axis=0)
    exact = np.round(p * ONE).astype(np.int32)
    sums = np.einsum("tkyx,tyx->kyx", exact, whole)
    spread = sum(squares(tile) * w for tile, w in zip(exact, whole, strict=True))
    truth = np.sqrt((whole[:, None] / ONE * (p - (whole[:, None] / ONE * p).sum(axis=0)) ** 2).sum(axis=(0, 1)))
    found = codes("disagreement", sums, 48, spread)
    assert_codes(found, truth, 0.02)
    assert (found[(p == p[:1]).all(axis=(0, 1))] == 0).all()


def test_the_ends_of_the_scale() -> None:
    sure = np.array([ONE + 1, 0, 0], np.int32).reshape(3, 1, 1)
    even = np.array([ONE // 4] * 4, np.int32).reshape(4, 1, 1)
    assert (codes("margin", sure, 24), codes("entropy", sure, 24)) == (STEPS, 0)
    assert (codes("margin", even, 24), codes("entropy", even, 24)) == (0, STEPS)
    opposite = np.array([[ONE + 1, 0], [0, ONE + 1]], np.int32).reshape(2, 2, 1, 1)
    half = ONE // 2
    spread = sum(squares(tile) * half for tile in opposite)
    assert codes("disagreement", opposite.astype(np.int64).sum(axis=0) * half, 48, spread) == round(STEPS / 2**0.5)


@pytest.fixture(scope="module")
def image() -> ArraySource:
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[40:110, 20:90] = False
    return ArraySource(noise(HEIGHT, WIDTH).read(WHOLE), valid=valid)


def layers_of(queue: Any) -> dict[str, NDArray[Any]]:
    return {name: queue.store.array(name).read(WHOLE) for name in queue.plan.layers}


def brute_force(job: Job) -> dict[str, NDArray[np.float64]]:
    """Return the layers of the whole image from all of its tiles, in float64."""
    grid, worker = job.plan.grid, BlockWorker(job)
    shape = (job.plan.classes, grid.y.padded, grid.x.padded)
    blend, squared = np.zeros(shape), np.zeros(shape)
    for tile in grid.tiles_over(WHOLE):
        box = grid.tile_box(tile)
        p = worker.predictor.probabilities(worker.pixels(box)[None])[0] / ONE
        wy, wx = (
            weights(axis, k, job.plan.tiling.window) / 4096 for axis, k in zip((grid.y, grid.x), tile, strict=True)
        )
        at = np.s_[:, box.y0 : box.y1, box.x0 : box.x1]
        blend[at] += p * wy[:, None] * wx
        squared[at] += p**2 * wy[:, None] * wx
    worker.close()
    blend, squared = blend[:, :HEIGHT, :WIDTH], squared[:, :HEIGHT, :WIDTH]
    spread = np.sqrt(np.maximum((squared - blend**2).sum(axis=0), 0))
    return {"margin": true_margin(blend), "entropy": true_entropy(blend), "disagreement": spread}


@pytest.fixture(scope="module", params=[CROP, HANN], ids=["crop", "hann"])
def truth(request: Any, image: ArraySource, tmp_path_factory: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A run by blocks, block after block, and its layers."""
    cut = request.param
    job = job_for(image, random_unet(), tmp_path_factory.mktemp("serial"), **cut)
    queue = open_queue(job)
    serial.run(job, queue)
    return cut, {**layers_of(queue), "labels": queue.store.labels.read(WHOLE)}


def test_layers_of_a_run_are_those_of_all_tiles_in_float64(truth: Any, image: ArraySource) -> None:
    cut, found = truth[0], {name: values for name, values in truth[1].items() if name != "labels"}
    wanted = brute_force(job_for(image, random_unet(), **cut))
    valid = image.valid(WHOLE)
    assert set(found) == set(LAYERS) - ({"disagreement"} if cut is CROP else set()) - {INFORMATION}
    for name, values in found.items():
        assert (values[~valid] == VOID).all()
        assert_codes(values[valid], wanted[name][valid], 0.05)
        assert np.ptp(values[valid]) > 40, name


def test_labels_are_the_same_without_layers(truth: Any, image: ArraySource, tmp_path: Path) -> None:
    cut, found = truth
    assert (found["labels"] == run_labels(image, random_unet(), tmp_path, **{**cut, "layers": ()})).all()
    assert not (tmp_path / "run.zarr" / "layers").exists()


@pytest.mark.parametrize("block", [1, 1000])
def test_any_block_size_in_any_order(truth: Any, image: ArraySource, tmp_path: Path, block: int) -> None:
    cut, expected = truth

    def shuffled(blocks: list[Index]) -> list[Index]:
        return random.Random(block).sample(blocks, len(blocks))

    job = job_for(image, random_unet(), tmp_path, **{**cut, "block": block})
    queue = open_queue(job)
    partial(blocks.run, order=shuffled)(job, queue)
    assert all((values == expected[name]).all() for name, values in layers_of(queue).items())


class _StopError(Exception):
    pass


def test_a_run_that_was_stopped_goes_on_to_the_same_layers(truth: Any, image: ArraySource, tmp_path: Path) -> None:
    cut, expected = truth

    def stop(event: Any) -> None:
        raise _StopError

    job = job_for(image, random_unet(), tmp_path, **cut)
    for _ in range(3):
        with pytest.raises(_StopError):
            serial.run(job, open_queue(job, stop))
    queue = open_queue(job)
    assert len(queue.ledger.done) == 3
    serial.run(job, queue)
    assert all((values == expected[name]).all() for name, values in layers_of(queue).items())


def test_a_changed_layer_is_found_before_a_run_goes_on(image: ArraySource, tmp_path: Path) -> None:
    job = job_for(image, random_unet(), tmp_path, **CROP)
    queue = open_queue(job)
    serial.run(job, queue)
    queue.store.array("entropy").write(np.zeros((1, 1), np.uint8), Box(0, 0, 1, 1))
    assert Index(0, 0) not in open_queue(job).ledger.done  # it is computed again


@pytest.mark.parametrize("cut", [CROP, HANN], ids=["crop", "hann"])
def test_tiles_that_cannot_be_read_are_nodata_in_layers_too(cut: dict[str, Any], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH), dtype=np.uint8)
    job = job_for(FakeSource(pixels, damaged=Box(70, 100, 72, 101)), codes_model(4), tmp_path, **cut)
    queue = open_queue(job)
    serial.run(job, queue)
    failed = queue.store.labels.read(WHOLE) == 255
    assert 0 < failed.sum() < pixels.size / 2
    for values in layers_of(queue).values():
        assert ((values == VOID) == failed).all()


def test_nothing_is_computed_that_was_not_asked_for(image: ArraySource, monkeypatch: Any) -> None:
    worker = BlockWorker(job_for(image, random_unet(), **{**CROP, "layers": ()}))
    monkeypatch.setattr(worker.predictor, "probabilities", None)
    worker.region()
    worker.close()
    plain, coded = (job_for(image, random_unet(), **{**CROP, "layers": names}).plan for names in ((), "margin"))
    assert plain.memory.model < coded.memory.model
    assert plain.memory.blocks < coded.memory.blocks
    assert plain.disk() < coded.disk()


def test_disagreement_where_tiles_are_not_blended(image: ArraySource) -> None:
    for cut in (CROP, {**HANN, "overlap": 0}):
        with pytest.raises(UsageError, match=r"one tile; blend them with `window_shape='gaussian'`"):
            job_for(image, random_unet(), **{**cut, "layers": "disagreement"})
    with pytest.raises(UsageError, match="layer 'margins' is unknown; did you mean 'margin'"):
        job_for(image, random_unet(), layers=["margins"])


def test_one_tile_agrees_with_itself(tmp_path: Path) -> None:
    job = job_for(noise(30, 40), random_unet(), tmp_path, **HANN)
    queue = open_queue(job)
    serial.run(job, queue)
    assert not queue.store.array("disagreement").read(Box(0, 0, 30, 40)).any()
    assert queue.store.array("margin").read(Box(0, 0, 30, 40)).any()


def test_the_layer_that_compares_models_is_named_where_tiles_are_not_blended() -> None:
    with pytest.raises(
        UsageError, match=r"several models, or the positions of .*d4.*, are apart is the layer mutual-information"
    ):
        check_blended(("disagreement",), "crop", 96)
    assert check_blended(("disagreement",), "gaussian", 96) == ("disagreement",)
