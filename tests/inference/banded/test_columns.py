"""A pass that begins anywhere, goes on, or is begun again gives the bits of one pass from the top of the column."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from helpers.drawn_nets import networks
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.inference.banded.columns import Columns
from tilepipe.inference.device import Compute
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.planning.receptive_field import measure_receptive_field
from tilepipe.testing import random_unet
from tilepipe.tiling.tiling import Bands

HEIGHT, BAND, HALO = 200, 16, 24
IMAGE = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, 96), dtype=np.uint8)
BANDS = Bands(BAND, (-(-HALO // BAND) + 1) * BAND, 64)


def ready(box: Box) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(IMAGE[:, box.y0 : box.y1, box.x0 : box.x1])
    return future


def rows(columns: Columns, y0: int, y1: int, x0: int = 0) -> Tensor:
    found: list[Tensor] = []
    columns.run(Box(y0, x0, y1, x0 + 48), HEIGHT, ready, lambda _, logits: found.append(logits.clone()))
    return torch.cat(found, 2)


def columns(precision: str = "fp32") -> Columns:
    return Columns(random_unet(depth=2), BANDS, 4, Compute(precision=precision))


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(st.integers(0, HEIGHT - 1), st.integers(1, HEIGHT), st.sampled_from([0, 48])), max_size=6)
)
def test_any_order_of_rows_and_columns(precision: str, asked: list[tuple[int, int, int]]) -> None:
    truth = {x0: rows(columns(precision), 0, HEIGHT, x0) for x0 in (0, 48)}
    walk = columns(precision)
    for y0, count, x0 in asked:
        y1 = min(y0 + count, HEIGHT)
        assert torch.equal(rows(walk, y0, y1, x0), truth[x0][:, :, y0:y1])


@pytest.mark.long
@settings(max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(0, HEIGHT - 1), st.integers(1, 40))
def test_drawn_networks_in_fp64(net: Any, y0: int, count: int) -> None:
    card, reach = measure_receptive_field(Model.from_torch(net, ModelCard(bands=2, classes=["a", "b", "c"])))
    assert reach.measured
    band, height = -(-BAND // card.stride) * card.stride, HEIGHT // card.stride * card.stride
    bands = Bands(band, (-(-card.halo // band) + 1) * band, 0)
    assume("bicubic" not in repr(net))  # it has no rule
    walk = Columns(Model.from_torch(net, card), bands, card.stride, Compute(precision="fp64"))
    found: list[Tensor] = []

    def read(box: Box) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(IMAGE[:2, box.y0 : box.y1, box.x0 : box.x1].astype("float32"))
        return future

    def asked(y0: int, y1: int) -> Tensor:
        found.clear()
        walk.run(Box(y0, 0, y1, 48), height, read, lambda _, logits: found.append(logits.clone()))
        return torch.cat(found, 2)

    whole, y0 = asked(0, height), min(y0, height - 1)
    y1 = min(y0 + count, height)
    assert torch.allclose(asked(y0, y1), whole[:, :, y0:y1], rtol=1e-13, atol=1e-13 * float(whole.abs().max()))


def test_a_pass_goes_on_and_reads_each_row_once() -> None:
    read: list[Box] = []

    def noted(box: Box) -> Future[Any]:
        read.append(box)
        return ready(box)

    walk = columns()
    for y0 in range(0, HEIGHT, 50):
        walk.run(Box(y0, 0, y0 + 50, 48), HEIGHT, noted, lambda *_: None)
    assert [(box.y0, box.y1) for box in read] == [(y, min(y + BAND, HEIGHT)) for y in range(0, HEIGHT, BAND)]


def test_an_error_leaves_no_half_pass() -> None:
    def broken(box: Box) -> Future[Any]:
        if box.y0 >= 96:
            raise InputError("damaged")
        return ready(box)

    walk = columns()
    with pytest.raises(InputError, match="damaged"):
        walk.run(Box(0, 0, HEIGHT, 48), HEIGHT, broken, lambda *_: None)
    assert torch.equal(rows(walk, 90, 110), rows(columns(), 0, HEIGHT)[:, :, 90:110])


def test_each_band_is_one_watched_call() -> None:
    calls = 0

    @contextmanager
    def watch() -> Any:
        nonlocal calls
        calls += 1
        yield

    columns().run(Box(0, 0, 64, 48), HEIGHT, ready, lambda *_: None, watch)
    assert calls > 64 // BAND
