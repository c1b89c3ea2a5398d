"""Reads polygons from a GeoJSON file, as QGIS, GDAL, QuPath and people write it, for regions, masks and labels.

A file holds a FeatureCollection, a list of features (QuPath), one feature or a bare geometry. Collections of geometries
are opened, rings are closed, and heights are left out. Geometries that are no areas are skipped and named in a
sentence; a file that holds no area is refused.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.errors import InputError
from tilepipe.sources.geo_crs import known_crs
from tilepipe.text import JSON, missing

Geometry = JSON
Ring = list[list[float]]
LON_LAT = "OGC:CRS84"
"""CRS of GeoJSON that names no other (RFC 7946)."""
NO_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
OTHER_FORMATS = (".gpkg", ".shp", ".fgb", ".kml", ".kmz", ".gml", ".gdb", ".topojson", ".parquet", ".zip", ".dxf")
MAGIC = {
    b"SQLite format 3": "a GeoPackage",
    b"\x00\x00\x27\x0a": "a Shapefile",
    b"fgb": "FlatGeobuf",
    b"PK\x03\x04": "a ZIP",
}
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Feature:
    """The polygons of one feature."""

    number: int
    """Number of the feature in the file, from 1."""
    geometry: Geometry
    """Polygon or MultiPolygon of closed rings of finite [x, y], in the file's coordinates."""
    properties: Mapping[str, object]
    """Properties of the feature, as they stand in the file."""


@dataclass(frozen=True, eq=False)
class Features:
    """The polygons of a file."""

    path: str
    """Path of the file."""
    crs: str | None
    """Coordinate reference system that the file names; None if it names none."""
    polygons: tuple[Feature, ...]
    """Features with an area, in the order of the file."""
    skipped: str
    """Sentence about the geometries that were left out; '' if none was."""
    geojson: bool = True
    """Whether the file is GeoJSON: it is in longitude and latitude if it names no CRS, and on a slide in QuPath's
    frame."""
    pixels: bool = False
    """Whether coordinates are pixels of the image, even if the image has a position."""


def read_geojson(path: str | Path) -> Features:
    """Return the polygons of a GeoJSON file. Raises `InputError` that names the wrong feature."""
    name = str(path)
    document = _document(Path(path))
    stated = _stated_crs(name, document) if isinstance(document, dict) else None
    return features_of(name, _features(name, document), stated)


def features_of(
    name: str, items: Iterable[tuple[object, Mapping[str, object]]], crs: str | None, **kind: bool
) -> Features:
    """Return the polygons among pairs (geometry as GeoJSON, properties); `kind` are fields of `Features`.

    Raises `InputError` that names the wrong feature.
    """
    left_out: Counter[str] = Counter()
    polygons = []
    for number, (geometry, properties) in enumerate(items, 1):
        parts = list(_polygons(f"{name}: feature {number}", geometry, left_out))
        if parts:
            whole = {"type": "Polygon", "coordinates": parts[0]}
            if len(parts) > 1:
                whole = {"type": "MultiPolygon", "coordinates": parts}
            polygons.append(Feature(number, whole, properties))
    kinds = " and ".join(f"{count} {kind}" for kind, count in left_out.items())
    if kinds and not polygons:
        raise InputError(f"{name} holds {kinds} and no polygon; what is asked for are areas, so draw polygons")
    said = f"{name}: {kinds} skipped, as only polygons are areas" if kinds else ""
    return Features(name, crs, tuple(polygons), said, **kind)


def _document(path: Path) -> object:
    """Return the JSON of a file. Raises `InputError` that says what the file is if it is no JSON."""
    if not path.exists():
        raise InputError(missing(path))
    if path.suffix.lower() in OTHER_FORMATS:
        raise InputError(f"{path} is not read; {_ogr(path)}")
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file; give a GeoJSON file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(missing(path)) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if found := next((what for magic, what in MAGIC.items() if data.startswith(magic)), None):
        raise InputError(f"{path} is {found} and not GeoJSON; {_ogr(path)}")
    # UTF-16 may lack its mark; its plain letters hold zero bytes, which JSON in UTF-8 never does.
    if data.startswith(UTF16) or b"\x00" in data[:4]:
        raise InputError(
            f"{path} is UTF-16, and GeoJSON is UTF-8: iconv -f UTF-16 -t UTF-8 {shlex.quote(str(path))} > utf8.geojson"
        )
    if data.lstrip()[:1] == b"<":
        raise InputError(f"{path} is XML and not GeoJSON; {_ogr(path)}")
    try:
        # Windows programs begin a file with a byte order mark, which JSON does not allow.
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise InputError(f"{path} is not GeoJSON: it is nested too deeply") from None
    except ValueError as error:  # the text is not UTF-8, is no JSON, or has numbers of thousands of digits
        several = f"; if it holds one feature per line: {_ogr(path, '')}" if "Extra data" in str(error) else ""
        raise InputError(f"{path} is not GeoJSON: {error}{several}") from None


def _ogr(path: Path, how: str = "-t_srs OGC:CRS84 ") -> str:
    made = path.with_suffix(".geojson")
    made = made.with_stem(made.stem + "_lonlat") if made == path else made
    return f"make GeoJSON of it: ogr2ogr {how}{shlex.quote(str(made))} {shlex.quote(str(path))}"


def _features(name: str, document: object) -> list[tuple[object, Mapping[str, object]]]:
    """Return (geometry, properties) of each feature. Raises `InputError` if the document is no GeoJSON."""
    if isinstance(document, dict) and "features" not in document:
        if document.get("type") in ("Topology", None) and not {"geometry", "coordinates"} & set(document):
            kind = f"its type is {document.get('type')!r}" if "type" in document else "it has no type"
            raise InputError(f"{name} is not GeoJSON ({kind}); {_ogr(Path(name))}")
        document = [document]
    features = document["features"] if isinstance(document, dict) else document
    if isinstance(document, dict) and ("geometryType" in document or "spatialReference" in document):
        raise InputError(f"{name} is Esri's JSON and not GeoJSON; {_ogr(Path(name))}")
    if not isinstance(features, list):
        raise InputError(f"{name} is not GeoJSON; it should hold a FeatureCollection, a feature or a geometry")
    found: list[tuple[object, Mapping[str, object]]] = []
    for number, feature in enumerate(features, 1):
        if not isinstance(feature, dict) or not {"geometry", "coordinates", "geometries"} & set(feature):
            raise InputError(f"{name} is not GeoJSON: feature {number} has no geometry")
        properties = feature.get("properties") or {}
        if not isinstance(properties, dict):
            raise InputError(f"{name} is not GeoJSON: the properties of feature {number} are no object")
        found.append((feature["geometry"], properties) if "geometry" in feature else (feature, {}))
    return found


def _polygons(where: str, geometry: object, left_out: Counter[str]) -> Iterator[list[Ring]]:
    """Yield the polygons of a geometry as lists of rings, and count other geometries in `left_out`.

    Raises `InputError` for a geometry of an unknown type.
    """
    waiting = [geometry]
    while waiting:
        found = waiting.pop()
        if found is None:
            left_out["without geometry"] += 1
            continue
        fields = found if isinstance(found, dict) else {}
        kind = fields.get("type")
        if kind == "GeometryCollection":
            # The last one waiting is taken first, so the order is turned round.
            waiting += reversed(_list(where, fields.get("geometries")))
        elif kind in NO_AREA:
            left_out[kind] += 1
        elif kind in ("Polygon", "MultiPolygon"):
            parts = _list(where, fields.get("coordinates"))
            areas = [_rings(where, part) for part in (parts if kind == "MultiPolygon" else [parts])]
            yield from (rings for rings in areas if rings)
            left_out["empty polygon"] += sum(not rings for rings in areas) or not areas
        else:
            raise InputError(f"{where} has a geometry of type {kind!r}; Polygon and MultiPolygon are read")
    left_out += Counter()  # this removes kinds that were counted 0 times


def _rings(where: str, part: object) -> list[Ring]:
    """Return the closed rings of a polygon; [] if the outer ring has no area."""
    rings = [_ring(where, ring) for ring in _list(where, part)]
    return [ring for ring in rings if ring] if rings and rings[0] else []


def _ring(where: str, ring: Any) -> Ring:
    try:
        points = np.array([point[:2] for point in ring], np.float64)
        if len(points) and points.shape[1:] != (2,):
            raise TypeError
    except (IndexError, OverflowError, TypeError, ValueError):
        raise InputError(f"{where} holds a polygon that is none; coordinates are rings of [x, y] points") from None
    if not np.isfinite(points).all():
        raise InputError(f"{where} holds a coordinate that is no finite number")
    # Rings that people type, and rings of some programs, are left open.
    if len(points) and (points[0] != points[-1]).any():
        points = np.concatenate([points, points[:1]])
    # A closed ring of three points encloses nothing.
    closed: Ring = points.tolist() if len(points) > 3 else []
    return closed


def _list(where: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise InputError(f"{where} holds a polygon that is none; coordinates are rings of [x, y] points")
    return value


def _stated_crs(name: str, document: Mapping[str, object]) -> str | None:
    """Return the CRS that a file names; None if it names none. Raises `InputError` if the CRS is unknown."""
    member = document.get("crs")
    stated = member
    if isinstance(member, dict):
        properties = member.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        stated = properties.get("name") if member.get("type") == "name" else member
        if member.get("type") == "EPSG" and "code" in properties:
            stated = f"EPSG:{properties['code']}"
    if stated is None or stated == "":
        return None
    if isinstance(stated, str) and (known := known_crs(stated)):
        return known
    raise InputError(
        f"{name}: its crs {json.dumps(stated)[:80]} is not known; write it like "
        '{"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}'
    )
