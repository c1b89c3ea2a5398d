from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer
from rasterio.control import GroundControlPoint
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.sources.borders import Cells
from tilepipe.sources.geo_mask import Area
from tilepipe.sources.georeference import box_of_bounds, ground_resolution
from tilepipe.sources.open import open_source

NORTH_UP = (0.5, 0.0, 400000.0, 0.0, -0.5, 3000000.0)
ROTATED = (0.4, 0.3, 400000.0, 0.3, -0.4, 3000000.0)
SOUTH_UP = (0.5, 0.0, 400000.0, 0.0, 0.5, 2999900.0)


def image(
    transform: tuple[float, ...] | None = NORTH_UP, epsg: int | None = 32645, size: tuple[int, int] = (100, 200)
) -> ArraySource:
    wkt = CRS.from_epsg(epsg).to_wkt() if epsg else None
    return ArraySource(np.zeros((1, *size), np.uint8), georeference=Georeference(wkt, transform))


@pytest.mark.parametrize(
    ("epsg", "transform"),
    [
        (32645, NORTH_UP),
        (32645, ROTATED),
        (32645, SOUTH_UP),
        (3857, (0.1493, 0.0, 9500000.0, 0.0, -0.1493, 3200000.0)),
        (3857, (10.0, 0.0, 1000000.0, 0.0, -10.0, 11000000.0)),  # 70 degrees north
        (4326, (1e-4, 0.0, -60.0, 0.0, -1e-4, -5.0)),
        (4326, (1e-6, 0.0, 179.9999, 0.0, -1e-6, 60.0)),  # across the date line
        (3413, (30.0, 0.0, 500000.0, 0.0, -30.0, -500000.0)),
        (2263, (1.0, 0.0, 980000.0, 0.0, -1.0, 200000.0)),  # feet
    ],
)
def test_resolution_is_true_metres_on_the_ellipsoid(epsg: int, transform: tuple[float, ...]) -> None:
    found = ground_resolution(Georeference(CRS.from_epsg(epsg).to_wkt(), transform), 100, 200)
    a, b, c, d, e, f = transform
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    metres = []
    for (row, column), (row1, column1) in [((49.5, 100), (50.5, 100)), ((50, 99.5), (50, 100.5))]:
        lon, lat = to_lonlat.transform(a * column + b * row + c, d * column + e * row + f)
        lon1, lat1 = to_lonlat.transform(a * column1 + b * row1 + c, d * column1 + e * row1 + f)
        metres.append(Geod(ellps="WGS84").inv(lon, lat, lon1, lat1)[2])
    assert found is not None
    assert (found.y, found.x) == pytest.approx(metres, rel=1e-5)


def test_resolution_is_none_where_the_earth_is_not_known() -> None:
    assert ground_resolution(None, 10, 10) is None
    assert ground_resolution(Georeference(None, NORTH_UP), 10, 10) is None
    assert ground_resolution(Georeference(CRS.from_epsg(32645).to_wkt()), 10, 10) is None
    unit = 'UNIT["degree",0.0174532925199433]'
    moon = (
        'GEOGCRS["Moon",DATUM["Moon",ELLIPSOID["Moon",1737400,0]],'
        f'CS[ellipsoidal,2],AXIS["lat",north],AXIS["lon",east],{unit}]'
    )
    assert ground_resolution(Georeference(moon, (1e-4, 0, 0, 0, -1e-4, 0)), 10, 10) is None


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED, SOUTH_UP])
@pytest.mark.parametrize("box", [Box(0, 0, 100, 200), Box(10, 20, 11, 21), Box(30, 50, 90, 199)])
def test_the_box_of_its_own_pixels_comes_back(transform: tuple[float, ...], box: Box) -> None:
    source = image(transform)
    a, b, c, d, e, f = transform
    corners = [(a * x + b * y + c, d * x + e * y + f) for y in (box.y0, box.y1) for x in (box.x0, box.x1)]
    xs, ys = zip(*corners, strict=True)
    found = box_of_bounds(source, (min(xs), min(ys), max(xs), max(ys)))
    if transform == ROTATED:  # the bounds of a turned box cover more than the box
        assert found.contains(box)
        assert box_of_bounds(source, (xs[0] - 0.01, ys[0] - 0.01, xs[0] + 0.01, ys[0] + 0.01)).area <= 4
    else:
        assert found == box


def test_the_smallest_box_that_covers() -> None:
    source = image()
    assert box_of_bounds(source, (400000.6, 2999999.1, 400000.9, 2999999.4)) == Box(1, 1, 2, 2)
    assert box_of_bounds(source, (400000.4, 2999999.1, 400000.9, 2999999.6)) == Box(0, 0, 2, 2)
    assert box_of_bounds(source, (399000, 2999990, 400001, 3000010)) == Box(-20, -2000, 20, 2), "beyond the image"
    assert box_of_bounds(source, (400000.7, 2999999.2, 400000.7001, 2999999.2001)) == Box(1, 1, 2, 2)


def test_bounds_in_another_crs_cover_all_they_enclose() -> None:
    source = image((100.0, 0.0, 200000.0, 0.0, -100.0, 4000000.0), size=(4000, 6000))
    bounds = (84.5, 33.0, 89.5, 34.0)
    found = box_of_bounds(source, bounds, "EPSG:4326")
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(84.5, 89.5, 5000), rng.uniform(33, 34, 5000)
    lat[:2000], lat[2000:4000] = 33.0, 34.0  # the curved lower edge bulges beyond its corners
    x, y = Transformer.from_crs(4326, 32645, always_xy=True).transform(lon, lat)
    rows, columns = (4000000 - y) / 100, (x - 200000) / 100
    assert found.y0 <= rows.min() < found.y0 + 3
    assert found.y1 - 3 < rows.max() <= found.y1
    assert found.x0 <= columns.min()
    assert columns.max() <= found.x1


def test_off_the_image_says_both_extents() -> None:
    with pytest.raises(
        UsageError, match=r"x 1 to 2, y 3 to 4\) lies off array \(x 400000 to 400100, y 2999950 to 3000000"
    ):
        box_of_bounds(image(), (1, 3, 2, 4))
    with pytest.raises(UsageError, match="lies off array"):
        box_of_bounds(image(), (-100, 10, -99, 11), "EPSG:4326")
    with pytest.raises(UsageError, match="left < right"):
        box_of_bounds(image(), (2, 3, 1, 4))
    with pytest.raises(UsageError, match="left < right"):
        box_of_bounds(image(), (float("nan"), 3, 1, 4))
    with pytest.raises(UsageError, match="not a coordinate reference system"):
        box_of_bounds(image(), (1, 3, 2, 4), "EPSG:nonsense")
    with pytest.raises(InputError, match="no position"):
        box_of_bounds(ArraySource(np.zeros((1, 4, 4), np.uint8)), (1, 3, 2, 4))
    gcps = Georeference(CRS.from_epsg(4326).to_wkt(), None, ((0, 0, 1, 1, 0), (0, 4, 2, 1, 0), (4, 0, 1, 0, 0)))
    with pytest.raises(InputError, match=r"control points only.*gdalwarp -tps"):
        box_of_bounds(ArraySource(np.zeros((1, 4, 4), np.uint8), georeference=gcps), (1, 0, 2, 1))


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED, SOUTH_UP])
def test_area_of_interest_is_the_rasterised_polygon(transform: tuple[float, ...]) -> None:
    source = image(transform)
    a, b, c, d, e, f = transform
    ring = [(30.2, 20.3), (150.7, 25.9), (90.1, 80.4), (30.2, 20.3)]  # columns, rows
    hole = [(80.0, 35.0), (100.0, 35.0), (90.0, 50.0), (80.0, 35.0)]
    own = {
        "type": "Polygon",
        "coordinates": [[(a * x + b * y + c, d * x + e * y + f) for x, y in r] for r in (ring, hole)],
    }
    area = Area(source, [transform_geom("EPSG:32645", "EPSG:4326", own)])
    expected = rasterize([(own, 1)], out_shape=(100, 200), transform=rasterio.Affine(*transform)).astype(bool)
    assert area.box == Box(20, 30, 81, 151)
    whole = area(Box(0, 0, 100, 200))
    assert (whole != expected).sum() <= 2, "rounding of longitude and latitude"
    assert not whole[40, 90], "the hole"
    assert whole[30, 60]
    part = Box(-5, 40, 60, 300)
    inside = np.pad(whole, ((5, 0), (0, 100)))[: 60 + 5, 40:300]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(area))(part), inside)


@given(data=st.data())
def test_an_area_is_the_same_in_every_box_and_knows_whether_it_meets_it(data: st.DataObject) -> None:
    """Borders run through no pixel's centre: there GDAL's rounding decides."""
    half = st.integers(-20, 200).map(lambda k: k / 2 + 0.0137)
    ring = data.draw(st.lists(st.tuples(half, half), min_size=3, max_size=6, unique=True))
    x0, y0 = data.draw(st.sampled_from([(0.0, 0.0), (335000.1, 3058000.7)]))
    size = data.draw(st.sampled_from([1.0, 0.3]))
    place = Georeference(CRS.from_epsg(32645).to_wkt(), (size, 0.0, x0, 0.0, -size, y0))
    source = ArraySource(np.zeros((1, 90, 95), np.uint8), georeference=place)
    shape = {"type": "Polygon", "coordinates": [[(x0 + size * x, y0 - size * y) for x, y in (*ring, ring[0])]]}
    try:
        area = Area(source, [shape], "EPSG:32645")
    except UsageError:
        return
    whole = area(Box(0, 0, 90, 95))
    for _ in range(10):
        top, left = data.draw(st.integers(0, 89)), data.draw(st.integers(0, 94))
        box = Box(top, left, data.draw(st.integers(top + 1, 90)), data.draw(st.integers(left + 1, 95)))
        part = whole[box.y0 : box.y1, box.x0 : box.x1]
        assert (area(box) == part).all()
        rows, columns = np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)
        assert area.meet(Cells(rows, columns, np.array([0]), np.array([box.width]))).tolist() == [part.any()]


def test_areas_on_slides_and_arrays_are_in_pixels() -> None:
    source = ArraySource(np.zeros((1, 50, 60), np.uint8))
    area = Area(source, [{"type": "Polygon", "coordinates": [[(10, 20), (30, 20), (30, 25), (10, 25), (10, 20)]]}])
    assert area.box == Box(20, 10, 25, 30)
    assert area(Box(20, 10, 25, 30)).all()
    assert area(Box(0, 0, 50, 60)).sum() == 100


def test_areas_that_cannot_be_placed() -> None:
    far = {"type": "Polygon", "coordinates": [[(0, 0), (1, 0), (1, 1), (0, 0)]]}
    with pytest.raises(UsageError, match=r"lies off array.*cannot be carried"):
        Area(image(), [far])
    with pytest.raises(UsageError, match="at least one Polygon"):
        Area(image(), [{"type": "Point", "coordinates": (0, 0)}])
    with pytest.raises(InputError, match="no CRS"):
        Area(image(epsg=None), [far])
    assert Resolution(1, 2).unit == "m"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("kind", ["world file", "aux.xml", "tag", "control points"])
def test_a_position_that_is_no_number_is_refused_before_anything_is_computed(
    kind: str, bad: str, tmp_path: Path
) -> None:
    path, value = tmp_path / "in.tif", float(bad)
    profile = {"driver": "GTiff", "width": 64, "height": 48, "count": 1, "dtype": "uint8"}
    placed = {"transform": Affine(1, 0, value, 0, -1, 5)} if kind == "tag" else {}
    with rasterio.open(path, "w", crs="EPSG:32645", **placed, **profile) as file:
        file.write(np.ones((1, 48, 64), np.uint8))
        if kind == "control points":
            corners = [(0, 0, value, 27), (0, 60, 85.1, 27), (40, 0, 85, 26.9)]
            file.gcps = ([GroundControlPoint(*corner) for corner in corners], rasterio.crs.CRS.from_epsg(4326))
    if kind == "world file":
        path.with_suffix(".tfw").write_text(f"1\n0\n0\n-1\n{bad}\n5\n")
    if kind == "aux.xml":
        Path(f"{path}.aux.xml").write_text(
            f"<PAMDataset><GeoTransform>{bad}, 1, 0, 5, 0, -1</GeoTransform></PAMDataset>"
        )
    with pytest.raises(InputError, match=rf"in\.tif holds {bad}, .*gdal_edit\.py -unsetgt"):
        open_source(path).georeference  # noqa: B018
