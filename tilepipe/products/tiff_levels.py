"""The levels of a label map as tiled TIFF files, of which a pyramid in one file is made.

GDAL and tifffile could make the levels by themselves, but then they need memory for the width of the map.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError
from tilepipe.products.cog_tags import Counts, mark
from tilepipe.products.label_map import LabelMap
from tilepipe.products.pyramid import halved, halvings
from tilepipe.products.staging import reason
from tilepipe.sources.base import Georeference
from tilepipe.text import JSON

try:  # GDAL's own errors, if rasterio does not translate them
    from rasterio._err import CPLE_BaseError
except ImportError:  # pragma: no cover
    CPLE_BaseError = RasterioError

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""Errors that rasterio raises for GDAL."""
TAG = "TILEPIPE"
"""Tag that holds the facts of the labels."""
TIFF_BLOCK = 512
"""Side of a TIFF tile, in pixels."""
CACHE = 64 * 2**20
"""Size of GDAL's block cache while a COG is written, in bytes; the default, 5 % of RAM, grows with the machine."""
THREADS = 2
"""Number of threads that compress."""


@dataclass(frozen=True)
class Levels:
    """The levels of a label map as files."""

    paths: list[Path]
    """GeoTIFF of each level, full resolution first."""
    sums: list[int]
    """Checksum of the pixels of each box of `boxes_of`, and there of each band."""
    counts: tuple[Counts, ...]
    """How many pixels of each band have each value."""


@contextmanager
def gdal_for_products() -> Iterator[None]:
    """Bound GDAL's memory while products are written and read, whatever the machine has."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # slides have no position on the earth
        yield


def write_levels(maps: Sequence[LabelMap], folder: Path, facts: JSON) -> Levels:
    """Write maps on one grid and their halved levels as GeoTIFFs 0.tif, 1.tif, ... into the new folder `folder`.

    Each map is a band, and `facts` go into the tag `TAG`.
    """
    folder.mkdir()
    paths, first = [folder / "0.tif"], maps[0]
    sums, counts = _write_flat(maps, paths[0], facts)
    # The overviews of a map one pixel wide would be as wide as itself, which validators refuse.
    shapes = halvings(first.shape, TIFF_BLOCK) if first.shape[1] > 1 else [first.shape]
    plain = replace(first, georeference=None)
    for level, shape in enumerate(shapes[1:], start=1):
        paths.append(folder / f"{level}.tif")
        _write_halved(paths[-2], paths[-1], replace(plain, shape=shape), len(maps))
    return Levels(paths, sums, counts)


def read_box(path: str, box: Box, band: int = 1, **of: int) -> Labels:
    """Read a box with a handle of its own: GDAL handles must not be shared between threads. `of` picks an overview."""
    try:
        with gdal_for_products(), rasterio.open(path, driver="GTiff", **of) as file:
            labels: Labels = file.read(band, window=as_gdal(box))
            return labels
    except GDAL_ERRORS as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def as_gdal(box: Box) -> Window:
    """Return a box in rasterio's words."""
    return Window(box.x0, box.y0, box.width, box.height)


def boxes_of(labels: LabelMap) -> Iterator[Box]:
    """Yield boxes of whole TIFF blocks, about as large as the blocks of the label map."""
    # The side has a limit, so that the memory does not follow the blocks of the map.
    side = -(-max(labels.block) // TIFF_BLOCK) * TIFF_BLOCK
    yield from labels.boxes(min(side, 8 * TIFF_BLOCK))


def _write_flat(maps: Sequence[LabelMap], path: Path, facts: JSON) -> tuple[list[int], tuple[Counts, ...]]:
    """Write each block of the intermediate GeoTIFF once; return a checksum for each box of `boxes_of`, and counts."""
    first = maps[0]
    counts, sums = tuple(Counts(one.legend.nodata) for one in maps), []
    with rasterio.open(path, "w", **_profile(first, len(maps))) as file:
        place = first.georeference
        if place and place.gcps and place.transform is None:
            file.gcps = [GroundControlPoint(*point) for point in place.gcps], crs_of(place)
        if place and place.rpcs:
            file.update_tags(ns="RPC", **dict(place.rpcs))
        file.update_tags(**{TAG: json.dumps(facts)})
        for box in boxes_of(first):
            for band, (one, count) in enumerate(zip(maps, counts, strict=True), start=1):
                pixels = np.ascontiguousarray(one.read(box))
                # A checksum is enough here: damage is to be found, not forgery.
                sums.append(zlib.crc32(pixels.data))
                count.add(pixels)
                file.write(pixels, band, window=as_gdal(box))
        mark(file, [one.legend for one in maps], counts)
    return sums, counts


def _profile(labels: LabelMap, bands: int) -> JSON:
    """Return a new profile: a source's profile would bring its own photometric, nodata and block sizes."""
    height, width = labels.shape
    place = labels.georeference or Georeference()
    profile = {
        **{"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": labels.dtype.name},
        **{"nodata": labels.legend.nodata, "tiled": True, "blockxsize": TIFF_BLOCK, "blockysize": TIFF_BLOCK},
        # This file is thrown away, so speed counts more than size, and blocks of nodata alone take no room.
        **{"compress": "DEFLATE", "zlevel": 1, "sparse_ok": True, "bigtiff": "IF_SAFER", "num_threads": THREADS},
    }
    if bands > 1:
        # GDAL would take three bands for red, green and blue. Bands are written and read one after the other.
        profile |= {"photometric": "MINISBLACK", "alpha": "NO", "interleave": "band"}
    if place.transform is not None:
        profile["transform"] = Affine(*place.transform)
    # With control points the reference system is theirs and is set together with them.
    if place.crs and (place.transform is not None or not place.gcps):
        profile["crs"] = crs_of(place)
    return profile


def _write_halved(finer: Path, coarser: Path, labels: LabelMap, bands: int) -> None:
    with rasterio.open(finer) as source, rasterio.open(coarser, "w", **_profile(labels, bands)) as file:
        whole = Box.of_shape(source.height, source.width)
        for box in labels.boxes(2 * TIFF_BLOCK):
            covers = Box(2 * box.y0, 2 * box.x0, 2 * box.y1, 2 * box.x1) & whole
            assert covers is not None
            for band in range(1, bands + 1):
                pixels = halved(source.read(band, window=as_gdal(covers)), labels.legend)
                file.write(pixels, band, window=as_gdal(box))


def crs_of(place: Georeference) -> CRS | None:
    """Return the coordinate reference system of a position; None if there is none."""
    return CRS.from_wkt(place.crs) if place.crs else None


def compare(labels: LabelMap, path: Path, sums: list[int]) -> None:
    """Raise `StorageError` unless the file holds the pixels with these checksums: libraries do not always report it."""
    with rasterio.open(path, driver="GTiff") as file:
        places = [(box, band) for box in boxes_of(labels) for band in file.indexes]
        for (box, band), wrote in zip(places, sums, strict=True):
            if zlib.crc32(np.ascontiguousarray(file.read(band, window=as_gdal(box))).data) != wrote:
                raise StorageError(f"{path.name}: the file read back differs in {box}; the disk may be full or broken")
