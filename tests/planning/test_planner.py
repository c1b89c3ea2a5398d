"""Every choice that a user leaves open, and every sentence for a choice that cannot be."""

from __future__ import annotations

import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from helpers.fakes import plan_of
from helpers.planned import card, file_image, plan_for
from hypothesis import given
from hypothesis import strategies as st

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import TilepipeError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.planning.settings import Request
from tilepipe.planning.tile_size import check_tiling, usual_tiling
from tilepipe.sources.array import ArraySource
from tilepipe.testing import constant_model, noise
from tilepipe.tiling.tiling import Tiling


def tiling_of(card: ModelCard, **chosen: Any) -> Tiling:
    tiling = usual_tiling(card, Request.of(chosen))
    check_tiling(tiling)
    return tiling


def test_tiles_come_from_the_card() -> None:
    assert tiling_of(card()) == tiling_of(card(), tile="auto", overlap="auto", window_shape="auto")
    chosen = tiling_of(card())
    assert (chosen.tile, chosen.overlap, chosen.window) == (512, 48, "crop")
    assert tiling_of(card(tile=256)).tile == 256
    assert tiling_of(card(halo=160)).tile == 640, "four halos, so that work stays below four passes"
    assert tiling_of(card(stride=48, halo=48)).tile % 48 == 0


def test_a_model_without_a_reach_is_blended() -> None:
    chosen = tiling_of(card(halo=None))
    assert chosen.window == "gaussian"
    assert 0 < chosen.overlap < chosen.tile
    assert tiling_of(card(), overlap=40).window == "gaussian", "less than two halos"
    assert tiling_of(card(), overlap=48).window == "crop"


@given(
    stride=st.integers(1, 40),
    steps=st.integers(2, 40),
    halos=st.none() | st.integers(0, 6),
    window=st.sampled_from(["auto", "crop", "gaussian", "hann", "linear"]),
)
def test_what_is_left_open_is_never_refused(stride: int, steps: int, halos: int | None, window: str) -> None:
    halo = None if halos is None else halos * stride
    chosen = tiling_of(card(stride=stride, halo=halo, tile=steps * stride), window_shape=window)
    assert chosen.tile % stride == 0
    assert chosen.overlap % (2 * stride if chosen.window == "crop" else stride) == 0
    assert chosen.overlap < chosen.tile


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"tile": 500}, "tile 500 is not a multiple of 8 (the model's total stride); use 496 or 504"),
        ({"tile": 3}, "tile 3 is not a multiple of 8 (the model's total stride); use 8"),
        (
            {"overlap": 20, "window_shape": "hann"},
            "overlap 20 is not a multiple of 8 (1 x the model's total stride); use 16 or 24",
        ),
        (
            {"overlap": 56, "window_shape": "crop"},
            "overlap 56 is not a multiple of 16 (2 x the model's total stride); use 48 or 64",
        ),
        (
            {"tile": 64, "overlap": 64},
            "overlap 64 leaves too little of tile 64; use an overlap of at most 48 or",
        ),
        (
            {"window_shape": "round"},
            "`window_shape` 'round' cannot be used; give auto, crop, constant, gaussian, hann or linear",
        ),
    ],
)
def test_tiles_that_cannot_be(chosen: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        tiling_of(card(), **chosen)


@given(stride=st.integers(1, 16), tiles=st.integers(1, 40), overlaps=st.integers(1, 80), crop=st.booleans())
def test_what_a_refusal_proposes_works(stride: int, tiles: int, overlaps: int, crop: bool) -> None:
    """Both neighbours, the largest overlap and the smallest tile that are named are accepted; one less is not."""
    unit = 2 * stride if crop else stride
    chosen = {"tile": tiles * stride, "overlap": overlaps * unit, "window_shape": "crop" if crop else "hann"}
    try:
        tiling_of(card(stride=stride, halo=None), **chosen)
    except UsageError as error:
        most, least = (int(n) for n in re.findall(r"at most (\d+) or a tile of at least (\d+)", str(error))[0])
        for better in ({"overlap": most}, {"tile": least}):
            tiling_of(card(stride=stride, halo=None), **{**chosen, **better})
        for worse in ({"overlap": most + unit}, {"tile": least - stride}):
            with pytest.raises(UsageError):
                tiling_of(card(stride=stride, halo=None), **{**chosen, **worse})


@pytest.mark.parametrize("name", ["tile", "overlap", "batch", "block", "workers", "pixel_size"])
@pytest.mark.parametrize("value", [-1, "many", float("nan"), float("inf")])
def test_numbers_that_cannot_be_meant(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"`{name}` .* (cannot be used; give|is no number)"):
        plan_for(file_image(50, 50, 1.0), **{name: value})


@pytest.mark.parametrize("name", ["tile", "batch", "block", "pixel_size"])
def test_zero_is_not_taken_for_a_default(name: str) -> None:
    with pytest.raises(UsageError, match=f"`{name}` 0 cannot be used; give"):
        plan_for(file_image(50, 50, 1.0), **{name: 0})


def test_batches_and_workers() -> None:
    plan = plan_of(noise(60, 60), constant_model(0.5, 0.5, bands=3))
    assert (plan.compute.batch, plan.compute.workers, plan.compute.device) == (1, 0, "cpu")
    assert plan_of(noise(60, 60), constant_model(0.5, 0.5, bands=3), batch=4, workers=2).compute.batch == 4


def test_memory_makes_blocks_smaller_but_changes_no_tile() -> None:
    image, cut = noise(3000, 3000), {"tile": 128, "overlap": 32, "window_shape": "hann"}
    model = constant_model(*[1 / 20] * 20, bands=3)
    wide = plan_of(image, model, **cut)
    narrow = plan_of(image, model, memory=wide.memory.total - 1, **cut)
    assert narrow.tiling.block < wide.tiling.block
    assert narrow.memory.total < wide.memory.total
    assert list(narrow.tiles()) == list(wide.tiles())


def test_every_refusal_is_one_of_ours() -> None:
    with pytest.raises(TilepipeError, match="is not inside"):
        plan_for(file_image(50, 50), region=Box(0, 0, 51, 50))


def test_a_million_blocks_are_planned_in_the_memory_of_a_few() -> None:
    """The plan holds a rule, and no list of tiles or blocks."""
    model, peaks = constant_model(0.5, 0.5, bands=3, halo=2), []
    tp.plan(noise(100, 100), model)  # imports what plans need
    for side in (1 << 12, 1 << 20):
        image = ArraySource(np.broadcast_to(np.zeros((3, 1, 1), np.uint8), (3, side, side)))
        tracemalloc.start()
        plan = tp.plan(image, model, runtime="torch", tile=512, block=1024)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert plan.grid.y.blocks * plan.grid.x.blocks == 1 << 20
    assert peaks[1] < peaks[0] + (1 << 20)
