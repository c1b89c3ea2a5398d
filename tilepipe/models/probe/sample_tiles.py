"""Made-up tiles stand in for an image's tiles if no image is at hand."""

from __future__ import annotations

import math

import numpy as np

from tilepipe.arrays import Pixels
from tilepipe.models.card import ModelCard

COARSE = 16
"""Side in pixels of the patches in the tiles; noise lies over the patches."""


def made_up_tiles(card: ModelCard, count: int, tile: tuple[int, int], dtype: str) -> Pixels:
    """Return pixels (count, bands, *tile): patches and noise with the card's mean and spread, in the type's range."""
    kind, random = np.dtype(dtype), np.random.default_rng(0)
    shape = count, card.bands, *tile
    patches = random.standard_normal((*shape[:2], *(math.ceil(side / COARSE) for side in tile)))
    pixels = np.repeat(np.repeat(patches, COARSE, 2), COARSE, 3)[..., : shape[2], : shape[3]]
    pixels = 0.9 * pixels + 0.4 * random.standard_normal(shape)
    whole = kind.kind in "iu"
    middle, spread = card.mean or ((127.0,) if whole else (0.0,)), card.std or ((60.0,) if whole else (1.0,))
    pixels = np.array(middle)[:, None, None] + np.array(spread)[:, None, None] * pixels
    if whole:
        pixels = np.clip(np.round(pixels), np.iinfo(kind).min, np.iinfo(kind).max)
    return pixels.astype(kind)
