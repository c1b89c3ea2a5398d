"""Places the polygons of a file on an image: finds their CRS, and carries them to the image's own grid."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform_geom

from tilepipe.errors import InputError
from tilepipe.sources.base import Georeference
from tilepipe.sources.geojson import LON_LAT, Feature, Features, Geometry
from tilepipe.sources.wrapped import frame_of
from tilepipe.text import JSON


def frame(features: Features, known: Georeference | None, image: str) -> str | None:
    """Return the CRS that polygons are in; None if the image has no CRS, and so the polygons are in its own numbers.

    Raises `InputError` if the file names a CRS and the image has none. Raises `InputError` too if numbers are no
    longitude and latitude, though the file says that they are; a file that names no CRS says so.
    """
    own = known.crs if known else None
    if features.pixels:
        return None
    if own is None:
        if features.crs is None:
            return None
        remedy = "delete the crs member of the file" if features.geojson else "write the file without a CRS"
        raise InputError(
            f"{features.path} is in {features.crs[:60]}, and {image} has no CRS, so its polygons cannot be placed. "
            f"Give the image one: gdal_edit.py -a_srs EPSG:CODE image.tif; or {remedy}, if its numbers are the image's "
            "own"
        )
    if features.crs is None and not features.geojson:
        ending = Path(features.path).suffix
        hint = " (a Shapefile names it in the .prj file beside it)" if ending.lower() == ".shp" else ""
        raise InputError(
            f"{features.path} names no CRS{hint}, so its polygons cannot be placed on {image}. "
            f"{_with_crs(features, own)}"
        )
    stated = features.crs or LON_LAT
    if CRS.from_user_input(stated).is_geographic:
        for feature in features.polygons:
            _check_degrees(features, feature, own)
    return stated


class Placed(Protocol):
    """An image, or the grid of a label map, on which polygons are placed."""

    @property
    def name(self) -> str:
        """Name in messages."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (bands, height, width) in pixels."""

    @property
    def georeference(self) -> Georeference | None:
        """Position on the earth."""


def placed(features: Features, image: Placed) -> list[Geometry]:
    """Return the polygons in the coordinates of an image's transform, or in its pixels if it has no position.

    Polygons on a slide are in QuPath's frame, which begins at the corner of the slide's bounds. Raises `InputError`
    if the polygons cannot be carried to the image.
    """
    known = image.georeference
    stated = frame(features, known, image.name)
    if stated is None or known is None or known.crs is None:
        return on_canvas(features, image)
    return [_carried(features.path, feature, stated, known.crs) for feature in features.polygons]


def on_canvas(features: Features, image: Placed) -> list[Geometry]:
    """Return polygons as they are written; on a slide with bounds, move them from QuPath's frame to its pixels."""
    y, x = frame_of(image) if features.geojson else (0, 0)
    geometries = [feature.geometry for feature in features.polygons]
    return [_moved(geometry, x, y) for geometry in geometries] if x or y else geometries


def _moved(geometry: Geometry, x: int, y: int) -> Geometry:
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    moved = [[[[point[0] + x, point[1] + y] for point in ring] for ring in part] for part in parts]
    return {**geometry, "coordinates": moved[0] if geometry["type"] == "Polygon" else moved}


def points_of(geometry: Geometry) -> NDArray[np.float64]:
    """Return all points (x, y) of a Polygon or MultiPolygon, (n, 2)."""
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return np.array([point[:2] for part in parts for ring in part for point in ring], np.float64).reshape(-1, 2)


def _check_degrees(features: Features, feature: Feature, own: str) -> None:
    points = points_of(feature.geometry)
    # The limit is 360, since longitudes from 0 to 360 are in use too.
    far = (np.abs(points[:, 0]) > 360) | (np.abs(points[:, 1]) > 90)
    if not far.any():
        return
    x, y = points[far][0]
    why = f"the file says {features.crs}" if features.crs else "the file names no crs, which means longitude, latitude"
    swapped = np.abs(points[:, 1]).max() <= 360 and np.abs(points[:, 0]).max() <= 90
    remedy = "They seem to be swapped: GeoJSON has longitude first" if swapped else _with_crs(features, own)
    raise InputError(
        f"{features.path}: feature {feature.number} holds x {x:.9g}, y {y:.9g}, which are no longitude and latitude, "
        f"and {why}. {remedy}"
    )


def _with_crs(features: Features, own: str) -> str:
    code = CRS.from_wkt(own).to_authority()
    name = ":".join(code) if code else "EPSG:CODE"
    made = "with_crs.geojson" if features.geojson else f"with_crs{Path(features.path).suffix}"
    return f"If they are in the image's CRS: ogr2ogr -a_srs {name} {made} {shlex.quote(features.path)}"


def _carried(path: str, feature: Feature, stated: str, own: str) -> Geometry:
    """Return a feature's polygons in the CRS `own`; x is always the first number, as in GDAL.

    Raises `InputError` if a point cannot be carried to `own`.
    """
    try:
        found: JSON = dict(transform_geom(stated, own, feature.geometry))
        if np.isfinite(points_of(found)).all():
            return found
        reason = "a point lies at infinity there"
    except (RasterioError, CPLE_BaseError) as error:
        reason = str(error)
    swapped = " Are longitude and latitude swapped?" if CRS.from_user_input(stated).is_geographic else ""
    raise InputError(
        f"{path}: feature {feature.number} lies off the image: it cannot be carried from {stated[:60]} to the image's "
        f"CRS ({reason}).{swapped}"
    )
