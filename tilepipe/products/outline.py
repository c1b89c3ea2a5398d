"""Outline: one region of a label map by its rings, and what a layer of uncertainty says of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Certainty:
    """What a layer of uncertainty says of one region, in the codes of the layer."""

    total: int
    """Sum over its pixels that have a code."""
    count: int
    """How many have one."""
    least: int
    """Smallest code; `VOID` if no pixel has one."""

    def __add__(self, other: Certainty) -> Certainty:
        """Return what the layer says of both parts of a region."""
        return Certainty(self.total + other.total, self.count + other.count, min(self.least, other.least))


@dataclass(frozen=True)
class Outline:
    """One region: its class and rings of pixel corners (N, 2) as (x, y), closed, the outer ring first."""

    label: int
    rings: list[Floats]
    certainty: Certainty | None = None
    """Of its pixels, if a layer was read with the labels."""
    marks: Ints | None = None
    """What a watcher kept with it, sorted."""

    @property
    def pixels(self) -> float:
        """Number of pixels."""
        return abs(signed_area(self.rings[0])) - sum(abs(signed_area(ring)) for ring in self.rings[1:])


def signed_area(ring: Floats) -> float:
    """Return the area of a closed ring (N, 2): positive when it turns from x to y."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
