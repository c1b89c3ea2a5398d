"""Files over the maps of many images: a VRT that shows them as one raster, and an index of their outlines.

The VRT copies nothing: it names the label rasters by paths relative to itself, and GDAL and QGIS read pixels from
there. Rasters must be GeoTIFFs with a reference system and a transform along its axes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tilepipe.products.footprint import footprint_of
from tilepipe.products.label_map import LabelMap
from tilepipe.products.placing import crs_fields
from tilepipe.storage import write_durably
from tilepipe.text import JSON

MARK = "TILEPIPE_BATCH"
"""Name of the metadata of a VRT that was written here."""
INDEX = "tilepipe batch"
"""Value of `generator` of an index that was written here."""
TYPES = {"uint8": "Byte", "uint16": "UInt16"}
TOLERANCE = 1e-6
"""Largest difference between pixel sizes of one VRT, as a fraction."""
GRID = 1e-3
"""Largest distance from a whole pixel that counts as rounding of coordinates (pixels)."""


def why_not_merged(labels: LabelMap) -> str:
    """Return why a map cannot be part of a VRT, in words; '' if it can."""
    known = labels.georeference
    if known is None or known.crs is None or known.transform is None:
        return "it has no reference system or no transform"
    _, b, _, d, _, _ = known.transform
    return "it is rotated" if b or d else ""


def groups_of(maps: Sequence[tuple[Path, LabelMap]]) -> dict[str, list[tuple[Path, LabelMap]]]:
    """Return the maps that one VRT can hold, by a name that is part of a file's name: '' if there is one group only.

    Maps of a group have one reference system, pixel size, type, direction of rows and classes. Other maps are left out.
    """
    found: dict[tuple[object, ...], list[tuple[Path, LabelMap]]] = {}
    for path, labels in maps:
        if not why_not_merged(labels):
            found.setdefault(_kind(labels), []).append((path, labels))
    if len(found) < 2:
        return dict.fromkeys([""], next(iter(found.values()))) if found else {}
    # Largest groups first, so that the names stay the same as long as a group stays the largest.
    ordered = sorted(found.values(), key=len, reverse=True)
    return {f"{_system(group[0][1])}-{k}": group for k, group in enumerate(ordered, 1)}


def write_vrt(path: Path, maps: Sequence[tuple[Path, LabelMap]]) -> None:
    """Write a VRT of maps of one group; where they overlap, a later one lies on top. Raises `StorageError`."""
    first = maps[0][1]
    left, top, columns, rows = _frame([labels for _, labels in maps])
    a, e = _sizes(first)
    root = ElementTree.Element("VRTDataset", rasterXSize=str(columns), rasterYSize=str(rows))
    assert first.georeference is not None
    ElementTree.SubElement(root, "SRS").text = first.georeference.crs
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, (left, a, 0.0, top, 0.0, e)))
    metadata = ElementTree.SubElement(root, "Metadata")
    ElementTree.SubElement(metadata, "MDI", key=MARK).text = "1"
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType=TYPES[first.dtype.name], band="1")
    nodata = str(first.legend.nodata)
    ElementTree.SubElement(band, "NoDataValue").text = nodata
    ElementTree.SubElement(band, "ColorInterp").text = "Palette"
    table = ElementTree.SubElement(band, "ColorTable")
    for colour in first.legend.palette:
        c1, c2, c3 = map(str, colour)
        ElementTree.SubElement(table, "Entry", c1=c1, c2=c2, c3=c3, c4="255")
    names = ElementTree.SubElement(band, "CategoryNames")
    for label in first.legend.classes:
        ElementTree.SubElement(names, "Category").text = label
    for file, labels in maps:
        source = ElementTree.SubElement(band, "ComplexSource")
        name = ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1")
        name.text = os.path.relpath(file, path.absolute().parent)
        ElementTree.SubElement(source, "SourceBand").text = "1"
        (y, x), (height, width) = _place(labels, left, top), labels.shape
        for tag, column, row in (("SrcRect", 0, 0), ("DstRect", x, y)):
            place = {"xOff": column, "yOff": row, "xSize": width, "ySize": height}
            ElementTree.SubElement(source, tag, {key: str(value) for key, value in place.items()})
        ElementTree.SubElement(source, "NODATA").text = nodata
    ElementTree.indent(root, " ")
    write_durably(path, ElementTree.tostring(root, encoding="unicode") + "\n")


def write_index(path: Path, maps: Sequence[tuple[JSON, LabelMap | None]]) -> None:
    """Write the outlines of maps with their properties as GeoJSON (RFC 7946); a map without place has no geometry."""
    features = [
        {"type": "Feature", "geometry": footprint_of(labels) if labels else None, "properties": properties}
        for properties, labels in maps
    ]
    content = {"type": "FeatureCollection", "generator": INDEX, "features": features}
    write_durably(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def _kind(labels: LabelMap) -> tuple[object, ...]:
    assert labels.georeference is not None
    a, e = _sizes(labels)
    size = tuple(round(math.log(abs(value)) / TOLERANCE) for value in (a, e))
    legend = labels.legend
    return labels.georeference.crs, size, math.copysign(1, e), labels.dtype.name, legend.classes, legend.nodata


def _sizes(labels: LabelMap) -> tuple[float, float]:
    """Return the width and the signed height of a pixel."""
    assert labels.georeference is not None
    assert labels.georeference.transform is not None
    a, _, _, _, e, _ = labels.georeference.transform
    return a, e


def _system(labels: LabelMap) -> str:
    """Return the code of a map's reference system, such as EPSG_32645; 'local' if it has none."""
    assert labels.georeference is not None
    assert labels.georeference.crs is not None
    return str(crs_fields(labels.georeference.crs).get("proj:code", "local")).replace(":", "_")


def _frame(maps: Sequence[LabelMap]) -> tuple[float, float, int, int]:
    """Return left, top, width and height (pixels) of the smallest grid that holds all maps."""
    a, e = _sizes(maps[0])
    corners = [(known.georeference.transform[2], known.georeference.transform[5]) for known in maps]  # type: ignore[union-attr,index]
    left = min((x for x, _ in corners), key=lambda x: x / a)
    top = min((y for _, y in corners), key=lambda y: y / e)
    placed = [(_place(labels, left, top), labels.shape) for labels in maps]
    rows = max(math.ceil(y + height) for (y, _), (height, _) in placed)
    columns = max(math.ceil(x + width) for (_, x), (_, width) in placed)
    return left, top, columns, rows


def _place(labels: LabelMap, left: float, top: float) -> tuple[float, float]:
    """Return the row and the column of the VRT at which a map begins; whole numbers if it lies on the VRT's grid."""
    a, e = _sizes(labels)
    assert labels.georeference is not None
    assert labels.georeference.transform is not None
    _, _, x, _, _, y = labels.georeference.transform
    row, column = (y - top) / e, (x - left) / a
    near = round(row), round(column)
    return near if abs(row - near[0]) < GRID and abs(column - near[1]) < GRID else (row, column)
