"""Georeference: finds the place of pixels on the earth, their size in metres, and the boxes that bounds cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio import DatasetReader
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import GCPTransformer
from rasterio.warp import transform as transform_points

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.base import Georeference, Resolution, Source
from tilepipe.text import setting

WGS84 = "EPSG:4326"
EQUATOR = 6378137.0
"""Equatorial radius of the WGS 84 ellipsoid [metres]."""
ECCENTRICITY2 = 0.0066943799901413165
"""Square of the first eccentricity of the WGS 84 ellipsoid."""
Transform = tuple[float, float, float, float, float, float]
"""Affine (a, b, c, d, e, f), as in `Georeference.transform`."""
Place = TypeVar("Place", float, NDArray[np.float64])
"""Coordinate of one position, or of many positions."""
EDGE_POINTS = 33
"""Number of points per edge when bounds are carried over from another CRS: straight edges become curves."""


def georeference_of(dataset: DatasetReader) -> Georeference | None:
    """Return the position of an open rasterio dataset as its file says it; None if it says nothing.

    Raises `InputError` if a number of the position is not finite.
    """
    gcps, gcp_crs = dataset.gcps
    stated = [*tuple(dataset.transform)[:6], *(value for p in gcps for value in (p.row, p.col, p.x, p.y, p.z or 0.0))]
    if not all(map(math.isfinite, stated)):
        raise InputError(
            f"the position of {dataset.name} holds {next(value for value in stated if not math.isfinite(value))}, "
            "which is no coordinate; it stands in the file, or in a world file or .aux.xml beside it. Correct it "
            f"there, or take it out (of a TIFF: gdal_edit.py -unsetgt {dataset.name})"
        )
    crs = dataset.crs or (gcp_crs if gcps else None)
    wkt = crs.to_wkt() if crs else None
    rpcs = tuple(sorted(dataset.tags(ns="RPC").items()))
    if not dataset.transform.is_identity:  # identity is what GDAL reports for "none"
        return Georeference(wkt, tuple(dataset.transform)[:6], rpcs=rpcs)
    if gcps:
        return Georeference(wkt, None, tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in gcps), rpcs)
    return Georeference(wkt, rpcs=rpcs) if wkt or rpcs else None


def ground_resolution(known: Georeference | None, height: int, width: int) -> Resolution | None:
    """Return the size of the middle pixel on the ground [metres]; None if there is no CRS or no position.

    Points one pixel apart are carried to longitude and latitude, and their distance is measured on the WGS 84
    ellipsoid. So degrees, Web Mercator and rotated grids all give true metres along the image's own axes.
    """
    # Fewer than three control points place no plane.
    if known is None or known.crs is None or (known.transform is None and len(known.gcps) < 3):
        return None
    y, x = height / 2, width / 2
    try:
        xs, ys = to_crs(known, [y, y, y - 0.5, y + 0.5], [x - 0.5, x + 0.5, x, x])
        lon, lat = transform_points(CRS.from_wkt(known.crs), WGS84, xs, ys)
    except (CRSError, RasterioError, CPLE_BaseError):
        return None  # a local or planetary CRS cannot be carried to the earth
    across, down = _metres(lon[:2], lat[:2]), _metres(lon[2:], lat[2:])
    if not (0 < across < math.inf and 0 < down < math.inf):
        return None
    return Resolution(down, across, "m")


def to_crs(known: Georeference, rows: Sequence[float], columns: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return (x, y) in the image's CRS for pixel positions, whose whole numbers are pixel corners."""
    if known.transform is None:
        points = [GroundControlPoint(row=r, col=c, x=x, y=y, z=z) for r, c, x, y, z in known.gcps]
        # Positions here are corners of pixels; rasterio takes them for centres unless `offset` says otherwise.
        with GCPTransformer(points) as to_crs:
            xs, ys = to_crs.xy(list(rows), list(columns), offset="ul")
        return list(xs), list(ys)
    xs, ys = placed(known.transform, np.asarray(columns), np.asarray(rows))
    return list(xs), list(ys)


def to_lonlat(known: Georeference, row: float, column: float) -> tuple[float, float] | None:
    """Return (longitude, latitude) of a pixel position on WGS 84; None if there is no CRS, or no such place."""
    if known.crs is None:
        return None
    try:
        xs, ys = to_crs(known, [row], [column])
        lon, lat = transform_points(CRS.from_wkt(known.crs), WGS84, xs, ys)
    except (CRSError, RasterioError, CPLE_BaseError):
        return None  # a local or planetary CRS cannot be carried to the earth
    if not (math.isfinite(lon[0]) and math.isfinite(lat[0])):
        return None
    # A grid may go on beyond the 180th meridian.
    return (float(lon[0]) + 180) % 360 - 180, float(lat[0])


def moved_rpcs(
    rpcs: tuple[tuple[str, str], ...], origin: tuple[float, float], scale: tuple[float, float]
) -> tuple[tuple[str, str], ...]:
    """Return RPCs of a grid whose pixel (0, 0) begins at `origin` (y, x) and whose pixels are `scale` (y, x) old ones.

    The offsets in RPCs are positions of pixel centres. The result is () if an offset or a scale is missing.
    """
    if not rpcs:
        return ()
    found = dict(rpcs)
    for k, axis in enumerate(("LINE", "SAMP")):
        try:
            offset, size = float(found[f"{axis}_OFF"].split()[0]), float(found[f"{axis}_SCALE"].split()[0])
        except (KeyError, ValueError, IndexError):
            return ()
        found[f"{axis}_OFF"] = repr((offset + 0.5 - origin[k]) / scale[k] - 0.5)
        found[f"{axis}_SCALE"] = repr(size / scale[k])
    return tuple(sorted(found.items()))


def is_in_degrees(wkt: str) -> bool:
    """Return whether positions in a reference system are degrees."""
    return bool(CRS.from_wkt(wkt).is_geographic)


def placed(grid: Transform, columns: Place, rows: Place) -> tuple[Place, Place]:
    """Return positions (x, y) for pixel positions (columns, rows)."""
    a, b, c, d, e, f = grid
    return a * columns + b * rows + c, d * columns + e * rows + f


def pixels_at(grid: Transform, xs: Place, ys: Place) -> tuple[Place, Place]:
    """Return pixel positions (columns, rows) for positions (x, y)."""
    a, b, c, d, e, f = grid
    area = a * e - b * d
    return (e * (xs - c) - b * (ys - f)) / area, (a * (ys - f) - d * (xs - c)) / area


def _metres(lon: Sequence[float], lat: Sequence[float]) -> float:
    """Return the distance of two neighbouring points [metres], by the ellipsoid's radii of curvature between them."""
    phi = math.radians((lat[0] + lat[1]) / 2)
    bend = 1 - ECCENTRICITY2 * math.sin(phi) ** 2
    north = math.radians(lat[1] - lat[0]) * EQUATOR * (1 - ECCENTRICITY2) / bend**1.5
    # Across the 180th meridian longitude jumps by 360 degrees.
    turn = (lon[1] - lon[0] + 180) % 360 - 180
    east = math.radians(turn) * EQUATOR / math.sqrt(bend) * math.cos(phi)
    return math.hypot(north, east)


def grid_of(source: Source) -> tuple[Transform, CRS | None]:
    """Return the affine and the CRS of a source. Raises `InputError` if it has no affine."""
    known = source.georeference
    if known is None or known.transform is None:
        reason = "is placed by ground control points only" if known and known.gcps else "has no position on the earth"
        raise InputError(
            f"{source.name} {reason}; name the part in pixels (window), "
            "or give the image a grid first: gdalwarp -tps in.tif out.tif"
        )
    return known.transform, CRS.from_wkt(known.crs) if known.crs else None


def box_of_bounds(source: Source, bounds: Sequence[float], crs: str | None = None) -> Box:
    """Return the smallest box of whole pixels that covers `bounds` (left, bottom, right, top).

    The box may reach beyond the image. `crs` is the CRS of the bounds, by default the image's own. Raises `UsageError`
    if the bounds do not meet the image or are no bounds, and `InputError` if the image has no affine position.
    """
    grid, own = grid_of(source)
    left, bottom, right, top = (float(value) for value in bounds)
    if not (left < right and bottom < top):
        raise UsageError(f"bounds are left bottom right top with left < right and bottom < top; got {tuple(bounds)}")
    along = np.linspace(0.0, 1.0, EDGE_POINTS)
    xs = np.concatenate([left + along * (right - left)] * 2 + [np.full(EDGE_POINTS, left), np.full(EDGE_POINTS, right)])
    side = bottom + along * (top - bottom)
    ys = np.concatenate([np.full(EDGE_POINTS, bottom), np.full(EDGE_POINTS, top), side, side])
    if crs is not None:
        if own is None:
            raise InputError(f"{source.name} has no CRS, so bounds in {crs} cannot be placed on it")
        xs, ys = _carried(xs, ys, crs_of(crs), own)
    advice = f"check the order left bottom right top; for longitude and latitude add {setting(bounds_crs='EPSG:4326')}"
    return cover(source, grid, xs, ys, advice)


def crs_of(name: str) -> CRS:
    """Return the CRS of a name such as EPSG:4326. Raises `UsageError` for another text."""
    try:
        return CRS.from_user_input(name)
    except (CRSError, ValueError) as error:
        raise UsageError(f"{name} is not a coordinate reference system; give it like EPSG:4326") from error


def _carried(
    xs: NDArray[np.float64], ys: NDArray[np.float64], crs: CRS, own: CRS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if crs == own:
        return xs, ys
    try:
        found = transform_points(crs, own, list(xs), list(ys))
    except (RasterioError, CPLE_BaseError) as error:
        raise UsageError(f"bounds cannot be carried from {crs} to {own}: {error}") from error
    return np.asarray(found[0]), np.asarray(found[1])


def cover(source: Source, grid: Transform, xs: NDArray[np.float64], ys: NDArray[np.float64], advice: str) -> Box:
    """Return the box that covers points in the image's CRS and meets the image.

    Raises `UsageError` with `advice` if the points lie off the image.
    """
    columns, rows = pixels_at(grid, np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64))
    _, height, width = source.shape
    off = UsageError(
        f"the region (x {np.min(xs):.9g} to {np.max(xs):.9g}, y {np.min(ys):.9g} to {np.max(ys):.9g}) lies off "
        f"{source.name} ({extent(grid, height, width)}), both in the image's CRS; {advice}"
    )
    if not (np.isfinite(columns).all() and np.isfinite(rows).all()):
        raise off
    # A rounding error of a millionth of a pixel must not add a row or column.
    y0, x0 = math.floor(rows.min() + 1e-6), math.floor(columns.min() + 1e-6)
    y1, x1 = math.ceil(rows.max() - 1e-6), math.ceil(columns.max() - 1e-6)
    # Points within one pixel still cover that pixel.
    found = Box(y0, x0, max(y1, y0 + 1), max(x1, x0 + 1))
    if found & Box.of_shape(height, width) is None:
        raise off
    return found


def extent(grid: Transform, height: int, width: int) -> str:
    """Return the extent of a grid in words."""
    corners = [placed(grid, *corner) for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    xs, ys = [c[0] for c in corners], [c[1] for c in corners]
    return f"x {min(xs):.9g} to {max(xs):.9g}, y {min(ys):.9g} to {max(ys):.9g}"


def disagreement(first: Georeference | None, second: Georeference | None, height: int, width: int) -> str:
    """Return how the positions of two grids of one size differ, in words; '' if they agree or one has none.

    Grids agree if every corner differs by at most a hundredth of a pixel: programs round transforms, and write one CRS
    in many ways.
    """
    if first is None or second is None or apart(second, first, height, width) <= 0.01:
        return ""
    if first.crs and second.crs:
        own, other = CRS.from_wkt(first.crs), CRS.from_wkt(second.crs)
        if own != other:
            return f"one is in {own.to_string()[:60]}, the other in {other.to_string()[:60]}"
    return f"one has the transform {first.transform}, the other {second.transform}"


def apart(first: Georeference | None, second: Georeference | None, height: int, width: int) -> float:
    """Return the largest distance between the corners of two grids of one size [pixels of the second grid].

    The distance is 0 if a grid has no transform, and infinite if the first cannot be carried to the CRS of the second.
    If only one grid has a CRS, the numbers are compared as they are.
    """
    if first is None or second is None or first.transform is None or second.transform is None:
        return 0.0
    columns, rows = np.array([0.0, width, 0, width]), np.array([0.0, 0, height, height])
    xs, ys = placed(first.transform, columns, rows)
    if first.crs and second.crs:
        own, other = CRS.from_wkt(first.crs), CRS.from_wkt(second.crs)
        try:
            xs, ys = _carried(xs, ys, own, other)
        except UsageError:
            return math.inf
    found = np.abs(np.subtract(pixels_at(second.transform, xs, ys), (columns, rows))).max()
    return float(found) if np.isfinite(found) else math.inf


def where(known: Georeference | None, height: int, width: int) -> str:
    """Return the extent of a grid and its CRS in words; '' if it has no transform."""
    if known is None or known.transform is None:
        return ""
    return f"{extent(known.transform, height, width)} ({crs_text(known.crs)})"


def crs_text(wkt: str | None) -> str:
    """Return a CRS in a few words, such as EPSG:32645; 'no CRS' for None."""
    return CRS.from_wkt(wkt).to_string()[:60] if wkt else "no CRS"


def same_crs(one: str | None, two: str | None) -> bool:
    """Return whether two CRS, as WKT, are the same; programs write one CRS in many ways."""
    if one == two or not (one and two):
        return one == two
    return bool(CRS.from_wkt(one) == CRS.from_wkt(two))


def wkt_of(text: str) -> str:
    """Return the WKT of a CRS in any form. Raises `ValueError` for another text."""
    return str(CRS.from_string(text).to_wkt())
