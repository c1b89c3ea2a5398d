"""A label map becomes a pyramidal OME-TIFF (https://ome-model.readthedocs.io), tile by tile, through tifffile.

The levels after the first are SubIFDs, where Bio-Formats, QuPath and OMERO look for them. uint8 labels have a palette,
so programs that know nothing of classes show their colours. Class names, and the facts with which the file is opened as
a label map again, are in a map annotation of the OME-XML.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import UUID, uuid5
from xml.etree import ElementTree

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.staging import (
    UNREADABLE,
    facts_of_labels,
    labels_from,
    place_from,
    placed_facts,
    reason,
    staged,
)
from tilepipe.products.tiff_levels import (
    GDAL_ERRORS,
    THREADS,
    TIFF_BLOCK,
    Levels,
    as_gdal,
    compare,
    gdal_for_products,
    read_box,
    write_levels,
)
from tilepipe.sources.lossy import bytes_of, is_lossy
from tilepipe.text import JSON, clean_line, json_of

MEMORY = 160 * 2**20
"""Most memory in bytes that `write_ome_tiff` needs beyond the label map itself; the size of the map does not matter."""
BUFFER = 8 * 2**20
"""Size of the tiles that are compressed together, in bytes."""
LARGEST = 2**32 - 2**26
"""Size of uncompressed levels in bytes above which the file is a BigTIFF, whose offsets have 64 bits."""
KEY = "tilepipe"
"""Key of the map annotation with the facts of the labels."""
NAMESPACE = UUID("b6a0b3f4-0c2a-5c0e-9d0e-5a0f3a1f2c77")
"""Namespace of the files' UUIDs (RFC 9562, version 5): the same labels give the same bytes."""
UNITS = {"um": "µm", "m": "m"}


def write_ome_tiff(labels: LabelMap, path: Path) -> None:
    """Write `labels` as a pyramidal OME-TIFF at the new path `path`.

    The file has uint8 or uint16 pixels, DEFLATE, 512 x 512 tiles, levels by majority (of a layer: by average) and the
    size of a pixel, if it is known. It is read back and compared. Raises `UsageError` if `path` exists, and
    `StorageError` if the disk is full; `path` does not come to exist then.
    """
    with staged(path, *GDAL_ERRORS, tifffile.TiffFileError) as part, gdal_for_products():
        levels = write_levels((labels,), part.with_name("levels"), facts_of_labels(labels))
        _write(labels, levels, part)
        shutil.rmtree(part.with_name("levels"))
        compare(labels, part, levels.sums)
        if _facts_in(part) is None:
            raise StorageError(f"{path.name}: the OME-XML read back differs; the disk may be full or broken")


def read_ome_tiff(path: Path) -> LabelMap:
    """Open a file written by `write_ome_tiff` as a LabelMap. Raises `InputError` if it is no such file."""
    try:
        said = _facts_in(path)
        if said is None:
            raise InputError(f"{path} is an OME-TIFF but not a label map of tilepipe: it has no annotation {KEY}")
        with gdal_for_products(), rasterio.open(path, driver="GTiff") as file:
            if is_lossy(file, partial(bytes_of, str(path))):
                raise InputError(
                    f"{path} was compressed with loss after tilepipe wrote it, so its values are no longer the labels; "
                    "give the labels as they were before"
                )
            shape, dtype = (file.height, file.width), file.dtypes[0]
        block = (TIFF_BLOCK * 2, TIFF_BLOCK * 2)
        place = place_from(said.get("georeference"))
        return labels_from(said, shape, dtype, partial(read_box, str(path)), block, place)
    except (*GDAL_ERRORS, *UNREADABLE, tifffile.TiffFileError, ElementTree.ParseError) as error:
        raise InputError(
            f"{path} cannot be opened as a label map: {reason(error)}; give the file of a run, or its work directory"
        ) from error


def has_labels(path: Path) -> bool:
    """Return whether a file is an OME-TIFF that `write_ome_tiff` wrote."""
    try:
        return _facts_in(path) is not None
    except (*UNREADABLE, tifffile.TiffFileError, ElementTree.ParseError):
        return False


def _facts_in(path: Path) -> JSON | None:
    """Return the facts in the map annotation of the OME-XML; None if there are none."""
    with tifffile.TiffFile(path, _multifile=False) as file:
        xml = file.ome_metadata
    if not xml:
        return None
    for entry in ElementTree.fromstring(xml).iterfind(".//{*}MapAnnotation/{*}Value/{*}M"):
        if entry.get("K") == KEY:
            said: JSON | None = json_of(entry.text or "null")
            return said
    return None


def _write(labels: LabelMap, levels: Levels, path: Path) -> None:
    facts = json.dumps(placed_facts(labels))
    size = labels.dtype.itemsize * labels.shape[0] * labels.shape[1] * 4 // 3
    with tifffile.TiffWriter(path, bigtiff=size > LARGEST, ome=True) as file:
        for level, flat in enumerate(levels.paths):
            with rasterio.open(flat, driver="GTiff") as source:
                shape = (source.height, source.width)
            first = {"subifds": len(levels.paths) - 1, "metadata": _metadata(labels, facts, levels.sums)}
            file.write(
                _tiles(flat, labels.legend.nodata), shape=shape, dtype=labels.dtype, tile=(TIFF_BLOCK, TIFF_BLOCK),
                compression="zlib", maxworkers=THREADS, buffersize=BUFFER, software=KEY, **_colours(labels),
                **(first if level == 0 else {"subfiletype": 1, "metadata": None}),
            )  # fmt: skip


def _tiles(path: Path, nodata: int) -> Iterator[Labels]:
    """Yield the tiles of a level row by row, each of full size."""
    with rasterio.open(path, driver="GTiff") as file:
        whole = Box.of_shape(file.height, file.width)
        for y in range(0, file.height, TIFF_BLOCK):
            for x in range(0, file.width, TIFF_BLOCK):
                inside = Box(y, x, y + TIFF_BLOCK, x + TIFF_BLOCK) & whole
                assert inside is not None
                tile = np.full((TIFF_BLOCK, TIFF_BLOCK), nodata, file.dtypes[0])
                tile[: inside.height, : inside.width] = file.read(1, window=as_gdal(inside))
                yield tile


def _colours(labels: LabelMap) -> JSON:
    """Return tifffile's arguments for the palette. A palette of uint16 would have 65,536 entries, so it has none."""
    if labels.dtype != np.uint8 or labels.legend.measure:
        return {"photometric": "minisblack"}
    return {"photometric": "palette", "colormap": _palette(labels.legend)}


def _palette(legend: Legend) -> NDArray[np.uint16]:
    """Return red, green and blue (3, 256) from 0 to 65535; TIFF has no transparency for nodata, which is black."""
    colours = np.zeros((3, 256), np.uint16)
    colours[:, : len(legend.palette)] = np.array(legend.palette, np.uint16).T * 257
    return colours


def _metadata(labels: LabelMap, facts: str, sums: list[int]) -> JSON:
    """Return the OME-XML of the image, in tifffile's words."""
    resolution = labels.resolution
    said: JSON = {
        "axes": "YX",
        "Name": clean_line(labels.legend.name),
        "UUID": str(uuid5(NAMESPACE, f"{facts} {sums}")),
        "Creator": KEY,
        "MapAnnotation": {KEY: facts, **_names(labels.legend)},
    }
    if resolution:
        unit = UNITS[resolution.unit]
        said |= {"PhysicalSizeX": resolution.x, "PhysicalSizeXUnit": unit}
        said |= {"PhysicalSizeY": resolution.y, "PhysicalSizeYUnit": unit}
    return said


def _names(legend: Legend) -> dict[str, str]:
    """Return the names of the classes for people who look at the annotation: class 1 = wood."""
    return {f"class {value}": clean_line(name) for value, name in enumerate(legend.classes)}
