"""The tiles that an area leaves are counted without looking at each pixel: as many as looking at each would give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.fakes import job_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.planning.wanted import Wanted
from tilepipe.sources import borders
from tilepipe.sources.array import ArraySource
from tilepipe.sources.geo_mask import Area
from tilepipe.testing import noise, random_unet

IMAGE = noise(300, 260)
METRES = ArraySource(IMAGE.read(Box(0, 0, 300, 260)), resolution=1.0)


def at(resolution: float) -> tp.Model:
    model = random_unet(depth=1)
    return replace(model, card=model.card.model_copy(update={"resolution": resolution}))


PLANS = {
    "crop": job_for(IMAGE, random_unet(depth=1), tile=48).plan,
    "blended": job_for(IMAGE, random_unet(depth=1), tile=64, overlap=32, window_shape="hann", block=64).plan,
    "region": job_for(IMAGE, random_unet(depth=1), tile=48, window=(31, 17, 150, 203)).plan,
    "coarser": job_for(METRES, at(2.3), tile=48).plan,
    "finer": job_for(METRES, at(0.6), tile=64, overlap=16, block=128).plan,
    "coarser labels": job_for(METRES, at(3.1), tile=32, resolution="model").plan,
    "finer labels": job_for(METRES, at(0.7), tile=64, resolution="model").plan,
}


def polygon(seed: int, vertices: int, inner: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.random(vertices)) * 2 * np.pi
    radius = rng.uniform(10, 150) * (inner + (1 - inner) * rng.random(vertices))
    middle = rng.uniform(0, 280, 2)
    points = [tuple(p) for p in (middle + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)).tolist()]
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}


@pytest.mark.parametrize("crossings", [borders.CROSSINGS, 0], ids=["all rows", "three rows first"])
@pytest.mark.parametrize("name", sorted(PLANS))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
    vertices=st.sampled_from([3, 30, 500]),
    inner=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_the_tiles_left_are_those_of_which_a_pixel_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, crossings: int, name: str, seeds: list[int], vertices: int, inner: float
) -> None:
    monkeypatch.setattr(borders, "CROSSINGS", crossings)
    plan = PLANS[name]
    try:
        area = Area(IMAGE, [polygon(seed, vertices, inner) for seed in seeds])
    except UsageError:  # beside the image
        return
    asked = Wanted(IMAGE, plan, area)
    boxes = {tile: plan.grid.kept_box(tile) & plan.predicted_region for tile in plan.tiles()}
    tiles = [tile for tile, box in boxes.items() if box is not None and asked.asked(box).any()]
    if not tiles:
        with pytest.raises(InputError, match="nothing of array is left to label"):
            asked.left()
        return
    left = asked.left()
    assert left is not None
    assert (left.tiles, left.blocks) == (len(tiles), len({plan.grid.block_of(tile) for tile in tiles}))
