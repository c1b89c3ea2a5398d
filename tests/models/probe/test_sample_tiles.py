"""Tiles made up for a model look like its images."""

from __future__ import annotations

import pytest

from tilepipe.models.card import ModelCard
from tilepipe.models.probe.sample_tiles import made_up_tiles


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_tiles_look_like_the_models_images(dtype: str) -> None:
    card = ModelCard(bands=2, classes=["a", "b"], mean=[90, 120], std=[20, 30])
    tiles = made_up_tiles(card, 1, (256, 200), dtype)
    assert (tiles.shape, tiles.dtype) == ((1, 2, 256, 200), dtype)
    assert tiles.mean((0, 2, 3)) == pytest.approx([90, 120], abs=6)
    assert tiles.std((0, 2, 3)) == pytest.approx([20, 30], rel=0.1)
    assert len(set(tiles[0, 0, 0, :16].tolist())) > 5
