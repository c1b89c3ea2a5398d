"""Area of pixels on the ground, against PROJ's geodesic areas and the area of the whole ellipsoid."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import CRS, Geod, Transformer

from tilepipe.box import Box
from tilepipe.sources.base import Georeference
from tilepipe.sources.geo_area import GroundArea, ground_area

EARTH = 510_065_621_724_088.44
"""Area of the WGS 84 ellipsoid in square metres."""
Affine = tuple[float, float, float, float, float, float]


def place(crs: str | int, transform: Affine) -> Georeference:
    return Georeference(CRS(crs).to_wkt(), transform)


def total(ground: GroundArea, height: int, width: int, side: int) -> int:
    """Sum of all pixels, box by box."""
    found = 0
    for y in range(0, height, side):
        for x in range(0, width, side):
            box = Box(y, x, min(y + side, height), min(x + side, width))
            begins, areas = ground.cells(box)
            found += int((areas * np.diff(np.append(begins, box.width))).sum())
    return found


def geodesic(known: Georeference, y: int, x: int, size: int) -> float:
    """Area of a square of pixels by PROJ, its sides followed in steps."""
    assert known.transform
    a, b, c, d, e, f = known.transform
    along = np.linspace(0, size, 65)[:-1]
    columns = x + np.concatenate([along, np.full(64, size), size - along, np.zeros(64)])
    rows = y + np.concatenate([np.zeros(64), along, np.full(64, size), size - along])
    carry = Transformer.from_crs(known.crs, 4326, always_xy=True)
    lon, lat = carry.transform(a * columns + b * rows + c, d * columns + e * rows + f)
    return abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (4326, (0.0001, 0.0, 85.5, 0.0, -0.0001, 27.6)),
        (3857, (10.0, 0.0, 9_520_000.0, 0.0, -10.0, 3_203_000.0)),
        (32645, (10.0, 0.0, 300_000.0, 0.0, -10.0, 3_203_000.0)),
        (32645, (7.0, 7.0, 300_000.0, 7.0, -7.0, 3_203_000.0)),
        (3413, (100.0, 0.0, -100_000.0, 0.0, -100.0, 100_000.0)),
        (4326, (0.001, 0.0, 179.5, 0.0, -0.001, 10.0)),
    ],
    ids=["degrees", "mercator", "utm", "rotated", "pole", "across 180"],
)
def test_areas_are_those_of_the_ellipsoid(crs: int, transform: Affine) -> None:
    known = place(crs, transform)
    ground = ground_area(known, 2000, 1500)
    assert ground is not None
    for y, x in ((0, 0), (1000, 700), (1990, 1490)):
        begins, areas = ground.cells(Box(y, x, y + 10, x + 10))
        assert begins.tolist() == [0]
        assert 10 * areas.sum() * ground.unit == pytest.approx(geodesic(known, y, x, 10), rel=1e-4)
    assert total(ground, 2000, 1500, 2000) * ground.unit == pytest.approx(_by_parts(known), rel=2e-5)


def _by_parts(known: Georeference) -> float:
    return sum(geodesic(known, y, x, 500) for y in range(0, 2000, 500) for x in range(0, 1500, 500))


def test_sums_do_not_depend_on_the_boxes() -> None:
    ground = ground_area(place(32645, (10.0, 0.0, 300_000.0, 0.0, -10.0, 3_203_000.0)), 1100, 1400)
    assert ground is not None
    assert total(ground, 1100, 1400, 1400) == total(ground, 1100, 1400, 512) == total(ground, 1100, 1400, 300)


def test_the_earth_in_degrees_is_as_large_as_it_is() -> None:
    ground = ground_area(place(4326, (0.5, 0.0, -180.0, 0.0, -0.5, 90.0)), 360, 720)
    assert ground is not None
    assert total(ground, 360, 720, 720) * ground.unit == pytest.approx(EARTH, rel=2e-5)


@pytest.mark.parametrize(
    "known",
    [
        None,
        Georeference(None, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)),
        Georeference(CRS(32645).to_wkt()),
        place('LOCAL_CS["grid",UNIT["metre",1]]', (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)),
    ],
    ids=["nothing", "no CRS", "no transform", "no way to the earth"],
)
def test_without_a_place_on_the_earth_there_is_no_area(known: Georeference | None) -> None:
    assert ground_area(known, 10, 10) is None


def test_a_row_of_one_pixel_has_an_area() -> None:
    known = place(32645, (10.0, 0.0, 500_000.0, 0.0, -10.0, 3_203_000.0))
    ground = ground_area(known, 1, 1)
    assert ground is not None
    assert float(ground.at(np.zeros(1), np.zeros(1))[0]) == pytest.approx(100 / 0.9996**2, rel=1e-5)
