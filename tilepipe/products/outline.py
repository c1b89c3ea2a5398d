"""Outline: one region of a label map by its rings, with its values in a layer of uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Certainty:
    """Values of a layer of uncertainty over one region, in the codes of the layer."""

    total: int
    """Sum of the codes over the region's pixels that have a code."""
    count: int
    """Number of the region's pixels that have a code."""
    least: int
    """Smallest code; `VOID` if no pixel has one."""

    def __add__(self, other: Certainty) -> Certainty:
        """Return the values of the layer over both parts of a region."""
        return Certainty(self.total + other.total, self.count + other.count, min(self.least, other.least))


@dataclass(frozen=True)
class Outline:
    """One region: its class and closed rings of pixel corners (N, 2) as (x, y); the outer ring is the first."""

    label: int
    rings: list[Floats]
    certainty: Certainty | None = None
    """Values of the layer over the region's pixels, if a layer was read with the labels."""
    marks: Ints | None = None
    """Marks that a watcher keeps with the region, sorted."""

    @property
    def pixels(self) -> float:
        """Number of pixels."""
        return abs(signed_area(self.rings[0])) - sum(abs(signed_area(ring)) for ring in self.rings[1:])


def signed_area(ring: Floats) -> float:
    """Return the area of a closed ring (N, 2); the area is positive if the ring turns from x to y."""
    # Coordinates of a large map would lose digits in the products, so the ring begins at 0.
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
