"""Areas and lengths on the ellipsoid against pyproj's geodesics."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import Geod

from tilepipe.products.ellipsoid import areas_and_lengths

GEOD = Geod(ellps="WGS84")


def box(lon: float, lat: float, width: float, height: float, points: int = 200) -> NDArray[np.float64]:
    """Return a closed ring with `points` on each side: straight edges and geodesics are the same then."""
    t = np.linspace(0, 1, points, endpoint=False)
    n = np.zeros(points)
    sides = [(t, n), (n + 1, t), (1 - t, n + 1), (n, 1 - t)]
    ring = np.concatenate([np.column_stack((lon + width * x, lat + height * y)) for x, y in sides])
    return np.concatenate([ring, ring[:1]])


def around(lat: float) -> NDArray[np.float64]:
    lon = np.linspace(0, 360, 4000)
    return np.column_stack(((lon + 180) % 360 - 180, np.full(len(lon), lat)))


RINGS = {
    "a block": box(85, 27, 1e-3, 1e-3),
    "a house": box(-70, -33, 1e-5, 1e-5, 2),
    "over the 180th meridian": (box(179.9, 60, 0.3, 0.1) + 180) % (360, 1e9) - 180,
    "a country": box(0, 0, 5, 5, 500),
    "far north": box(10, 80, 1, 1),
    "around the pole": around(85),
    "around the other pole, the other way": around(-75)[::-1],
}


@pytest.mark.parametrize("name", RINGS)
def test_rings_against_geodesics(name: str) -> None:
    ring = RINGS[name]
    area, length = GEOD.polygon_area_perimeter(*ring.T)
    found = areas_and_lengths(ring, np.array([len(ring)]))
    tolerance = 2e-6 if "pole" in name else 1e-8  # a parallel is no geodesic
    np.testing.assert_allclose(found, ([abs(area)], [length]), rtol=tolerance)


def test_many_rings_at_once_are_as_each_alone() -> None:
    rings = list(RINGS.values())
    together = areas_and_lengths(np.concatenate(rings), np.array([len(ring) for ring in rings]))
    alone = [areas_and_lengths(ring, np.array([len(ring)])) for ring in rings]
    np.testing.assert_allclose(together, np.array(alone)[:, :, 0].T, rtol=1e-12)
