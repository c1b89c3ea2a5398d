"""Uncertainty layers: tell how sure the model is of each label, from the probabilities that decided the label.

Codes are uint8: `code / 254` is the value, from 0 to 1; 255 is nodata. The codes are made by arithmetic on whole
numbers and one square root, which IEEE 754 rounds correctly. So they do not depend on blocks, workers or the order of
tiles.

    margin        p1 - p2: the largest probability minus the second largest; 0 is a toss-up
    entropy       -sum_k p_k log p_k / log K; 1 is a toss-up between all K classes
    disagreement  sqrt(sum_k sum_i w_i (p_ik - p_k)^2), p_k = sum_i w_i p_ik: the spread of the blended tiles i, by
                  their weights w_i, about their blend; 0 if they agree or only one covers a pixel, always below 1
    mutual-information
                  (H(p) - mean_m H(p_m)) / log K, p = mean_m p_m, H(p) = -sum_k p_k log p_k: how far the answers m that
                  are averaged (of several models, in several positions) are apart; 0 if they agree

Disagreement needs one plane of sums beside the sums of the classes: sum_i w_i sum_k p_ik^2. The squares of the blend
are subtracted from it. Two tiles of the same weight that differ by d in the probability of one of two classes have a
disagreement of d / sqrt(2). Mutual information is computed with the probabilities of a tile (Houlsby et al. 2011,
arXiv:1112.5745, where it is called BALD) and comes as one plane more; where tiles blend, their weights blend it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import UsageError
from tilepipe.text import did_you_mean, setting

Planes = NDArray[np.integer]
"""Planes (classes, height, width), int32 or int64."""

INFORMATION = "mutual-information"
"""Name of the layer that tells how far the answers of several models, or in several positions, are apart."""
LAYERS = {
    "margin": "largest probability minus the second largest; 0 is a toss-up",
    "entropy": "entropy of the class probabilities over that of an even choice; 1 is a toss-up",
    "disagreement": "standard deviation of the blended tiles' probabilities about their blend; 0 where tiles agree",
    INFORMATION: "mutual information of the averaged answers, over the entropy of an even choice; 0 where they agree",
}
"""Meaning of each layer, in the order in which layers are kept."""
PROBABILITIES = "probabilities"
"""Name of the probabilities of all classes; `probability_names` are the names of their planes."""
STEPS = 254
"""Code of the value 1."""
VOID = 255
"""Code of pixels that are not computed or hold no image data."""

PROBABILITY = 24
"""Bits of a tile's probability; the blend's weights have as many."""
SQUARES = 36
"""Bits that are kept of a tile's sum of squared probabilities; the weighted sum fits int64."""
_TABLE = 16
"""Bits of the index of the table in which entropy is interpolated."""
_LOG = 32
"""Bits after the point of the table's values."""
ROWS = 64
"""Rows that are coded at once, so that intermediate planes stay small."""


def layer_names(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Return the layers asked for, in the order of `LAYERS`; a text names them with commas between.

    Raises `UsageError` for a layer that is not known.
    """
    names = [name.strip() for name in wanted.split(",")] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in LAYERS:
            raise UsageError(f"layer {did_you_mean(name, LAYERS)}")
    return tuple(name for name in LAYERS if name in names)


def probability_names(classes: int) -> tuple[str, ...]:
    """Return the names of the planes that hold the probability of each class."""
    return tuple(f"{PROBABILITIES}/{k}" for k in range(classes))


def further_planes(layers: Sequence[str]) -> int:
    """Return how many planes of sums these layers need beside those of the classes, where tiles blend."""
    return sum(name in layers for name in ("disagreement", INFORMATION))


def check_blended(names: tuple[str, ...], window: str, overlap: int) -> tuple[str, ...]:
    """Return the names. Raises `UsageError` for the layer 'disagreement' if tiles are not blended."""
    if "disagreement" in names and (window == "crop" or not overlap):
        raise UsageError(
            "layer disagreement compares tiles where they are blended, and here each pixel is decided by one tile; "
            f"blend them with {setting(window_shape='gaussian')} and an `overlap` above 0, or leave the layer out; "
            f"how far several models, or the positions of {setting(tta='d4')}, are apart is the layer {INFORMATION}"
        )
    return names


def squares(probabilities: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the sum of squares over the classes (the first axis), in units of 2**-36; probabilities have 2**-24."""
    total = np.zeros(probabilities.shape[1:], np.int64)
    for plane in probabilities:
        total += plane.astype(np.int64) ** 2
    return _rounded(total, 2 * PROBABILITY - SQUARES)


def codes(name: str, planes: Planes, bits: int, spread: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
    """Return the codes of layer `name`, or of one of `probability_names`, (height, width) uint8.

    `planes` is (classes, height, width), with one plane more for 'mutual-information': probabilities in units of
    2**-bits, 24 for one tile and 48 for weighted sums.
    `spread`, (height, width), is the weighted sum of `squares`, which 'disagreement' needs; None for one tile.
    """
    found = np.zeros(planes.shape[1:], np.uint8)
    for y in range(0, planes.shape[1], ROWS):
        rows = slice(y, y + ROWS)
        if name == "margin":
            found[rows] = _margin(planes[:, rows], bits)
        elif name == "entropy":
            found[rows] = _entropy(planes[:, rows], bits)
        elif name.startswith(PROBABILITIES):
            found[rows] = _coded(planes[int(name.rpartition("/")[2]), rows], bits)
        elif name == INFORMATION:
            found[rows] = _coded(planes[-1, rows], bits)
        elif spread is not None:
            found[rows] = _disagreement(planes[:, rows], spread[rows])
    return found


def _coded(values: Planes, bits: int) -> NDArray[np.int64]:
    """Return values / 2**bits in steps of 1 / 254, rounded to nearest."""
    # The sums of failed tiles are far below 0; their pixels become nodata.
    return np.clip(_rounded(values.astype(np.int64) * STEPS, bits), 0, STEPS)


def _margin(planes: Planes, bits: int) -> NDArray[np.int64]:
    first = np.zeros(planes.shape[1:], np.int64)
    second = np.zeros_like(first)
    for plane in planes:
        # The second largest comes first, since it needs the largest value before this plane.
        np.maximum(second, np.minimum(first, plane), out=second)
        np.maximum(first, plane, out=first)
    return _rounded((first - second) * STEPS, bits)


def _entropy(planes: Planes, bits: int) -> NDArray[np.int64]:
    table, fine = _entropy_table(), PROBABILITY - _TABLE
    total = np.zeros(planes.shape[1:], np.int64)
    for plane in planes:
        # The sums of failed tiles are far below 0, which is no index of the table.
        probability = np.clip(plane >> (bits - PROBABILITY), 0, 1 << PROBABILITY)
        cell, rest = probability >> fine, probability & ((1 << fine) - 1)
        low = table[cell]
        total += (low << fine) + rest * (table[cell + 1] - low)
    # With one class the logarithm is 0, and nothing can be divided by it.
    one = max(1, round(math.log2(len(planes)) * (1 << (_LOG + fine))))
    return np.minimum((total * STEPS + one // 2) // one, STEPS)


@lru_cache(maxsize=1)
def _entropy_table() -> NDArray[np.int64]:
    """Return -p log2 p at the multiples of 2**-16, in units of 2**-32, and a 0 behind the value at 1."""
    cells = 1 << _TABLE
    # Logarithms are rounded once, into the table. numpy's own logarithm of each pixel differs in the last bit between
    # processors with AVX-512 and others (numpy issue 23523).
    values = [round(-n / cells * math.log2(n / cells) * (1 << _LOG)) for n in range(1, cells + 1)]
    return np.array([0, *values, 0], np.int64)


def _disagreement(planes: Planes, spread: NDArray[np.int64]) -> NDArray[np.float64]:
    half = (SQUARES + PROBABILITY) // 2  # bits of a probability whose square has the bits of `spread`
    blend = np.zeros(planes.shape[1:], np.int64)
    for plane in planes:
        blend += _rounded(plane, 2 * PROBABILITY - half) ** 2
    # Squares are rounded before they are added, so tiles that agree may come out a little below 0.
    variance = np.maximum(spread - blend, 0) / float(1 << 2 * half)
    return np.asarray(np.minimum(np.floor(np.sqrt(variance) * STEPS + 0.5), STEPS))


def _rounded(values: Planes, bits: int) -> NDArray[np.int64]:
    """Return values / 2**bits, rounded to nearest."""
    return np.asarray((values + (1 << (bits - 1))) >> bits, dtype=np.int64)
