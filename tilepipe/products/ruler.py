"""Areas and lengths of polygons are measured in metres on the ellipsoid, in micrometres, or in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilepipe.products.ellipsoid import areas_and_lengths
from tilepipe.products.label_map import LabelMap
from tilepipe.products.outline import Floats
from tilepipe.products.placing import STEP, WGS84, Place, carried, is_placed, native_place, with_corners_every


@dataclass(frozen=True)
class Ruler:
    """Measures rings of pixel corners (N, 2) of one label map."""

    unit: str
    """Unit of length: 'm', 'um' or 'px' (pixels of the source at full resolution)."""
    pixel: tuple[float, float]
    """Size (x, y) of a pixel of the map in `unit`; for a map on the earth, the size of its middle pixel."""
    place: Place | None = None
    """Function from pixel corners to the map's coordinates, if the map lies on the earth."""
    crs: CRS | None = None
    """Reference system of these coordinates."""

    @classmethod
    def of(cls, labels: LabelMap) -> Ruler:
        """Return the ruler of a map: on the ellipsoid if it lies on the earth, else by its pixel size or in pixels."""
        size, place = labels.resolution, labels.georeference
        if size is None:
            return cls("px", (labels.scale[1], labels.scale[0]))
        if size.unit == "m" and place and place.crs and is_placed(labels):
            return cls("m", (size.x, size.y), native_place(labels), CRS.from_wkt(place.crs))
        return cls(size.unit, (size.x, size.y))

    def measure(self, polygons: Sequence[Sequence[Floats]]) -> tuple[Floats, Floats]:
        """Return areas and perimeters of polygons, each a list of closed rings, the outer one first.

        Holes count for the perimeter. Raises `UsageError` for pixels that are not on the earth.
        """
        rings = [ring for polygon in polygons for ring in polygon]
        if not rings:
            return np.zeros(0), np.zeros(0)
        if self.place is None or self.crs is None:
            areas, lengths = _planar(rings, self.pixel)
        else:
            # An edge that is straight on the map is a curve on the earth.
            for k in _with_long_edges(rings):
                rings[k] = with_corners_every(STEP, rings[k])
            lonlat = carried(self.place(np.concatenate(rings)), self.crs, WGS84)
            areas, lengths = areas_and_lengths(lonlat, np.array([len(ring) for ring in rings]))
        first = np.cumsum([0, *(len(polygon) for polygon in polygons[:-1])])
        signs = np.full(len(rings), -1.0)
        signs[first] = 1.0
        return np.add.reduceat(areas * signs, first), np.add.reduceat(lengths, first)


def _with_long_edges(rings: list[Floats]) -> list[int]:
    """Return which rings may get corners from `with_corners_every`: all that do, and few others."""
    corners = np.concatenate(rings)
    low, high = np.minimum(corners[:-1], corners[1:]), np.maximum(corners[:-1], corners[1:])
    # The way from a ring to the next is no edge: it may name a ring that gets no corner, which does no harm.
    passing = (np.ceil(high / STEP) - np.floor(low / STEP) > 1).any(1)
    ring_of = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])[:-1]
    return [int(k) for k in np.unique(ring_of[passing])]


def _planar(rings: list[Floats], pixel: tuple[float, float]) -> tuple[Floats, Floats]:
    sizes = np.array([len(ring) for ring in rings])
    starts = np.cumsum(sizes) - sizes
    # Coordinates of a large map would lose digits in the products, so each ring begins at 0.
    points = np.concatenate([(ring - ring[0]) for ring in rings]) * pixel
    steps = np.diff(points, axis=0, append=0)
    steps[starts + sizes - 1] = 0
    x, y = points.T
    areas: NDArray[np.float64] = np.abs(np.add.reduceat(x * steps[:, 1] - y * steps[:, 0], starts)) / 2
    return areas, np.add.reduceat(np.hypot(*steps.T), starts)
