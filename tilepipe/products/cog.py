"""A label map is written as a Cloud Optimized GeoTIFF that opens in QGIS with colours, class names and position.

An uncertainty layer is written in the same way, with its scale instead of colours and classes.

Block-aligned tiled GeoTIFFs are written first, one per level, then GDAL's COG driver copies them
(https://gdal.org/drivers/raster/cog.html). We make the overviews because GDAL needs memory for the width of the map.
`cog_tags` writes everything beside the pixels.
"""

from __future__ import annotations

import json
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError
from tilepipe.products.cog_tags import Counts, mark, side_file
from tilepipe.products.label_map import LabelMap
from tilepipe.products.pyramid import halved, halvings
from tilepipe.products.staging import UNREADABLE, facts_of_labels, labels_from, reason, staged
from tilepipe.sources.base import Georeference
from tilepipe.sources.georeference import georeference_of
from tilepipe.sources.lossy import is_lossy
from tilepipe.text import JSON, json_of

try:  # GDAL's own errors, if rasterio does not translate them
    from rasterio._err import CPLE_BaseError
except ImportError:  # pragma: no cover
    CPLE_BaseError = RasterioError

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""Errors that rasterio raises for GDAL."""
TIFF_BLOCK = 512
"""Side of a TIFF tile, in pixels."""
CACHE = 64 * 2**20
"""Size of GDAL's block cache while a COG is written, in bytes; the default, 5 % of RAM, grows with the machine."""
THREADS = 2
"""Number of threads that compress."""
MEMORY = 128 * 2**20
"""Most memory that `write_cog` needs beyond the label map itself, in bytes, `CACHE` included. We measured 87 MB for
uint8 and 106 MB for uint16; the size of the map does not matter."""
TAG = "TILEPIPE"
COG_OPTIONS = {
    # How large a compressed file becomes is not known before, and a TIFF that is no BigTIFF ends at 4 GiB.
    **{"COMPRESS": "DEFLATE", "BLOCKSIZE": TIFF_BLOCK, "BIGTIFF": "IF_SAFER", "NUM_THREADS": THREADS},
    # GDAL must take the overviews that are there and make none of its own.
    **{"OVERVIEWS": "FORCE_USE_EXISTING"},
}


def write_cog(labels: LabelMap, path: Path) -> None:
    """Write `labels` as a COG at the new path `path`, and `<path>.aux.xml` beside it.

    The file has uint8 or uint16 pixels, DEFLATE, 512 x 512 tiles, overviews by majority (of a layer: by average) that
    skip nodata, a palette (of a layer: scale and statistics), nodata, and the CRS, transform or ground control points
    of `labels.georeference`. It is read back and compared. Writing needs disk room for about three times the file, and
    less than `MEMORY` bytes of memory. Raises `StorageError` if the disk is full or the position cannot be kept; `path`
    does not come to exist then. Raises `UsageError` if `path` exists already.
    """
    with staged(path, *GDAL_ERRORS) as part, _gdal():
        scratch = part.with_name("levels")
        scratch.mkdir()
        sums = _write_flat(labels, scratch / "0.tif")
        pyramid = _with_overviews(scratch / "0.tif", labels)
        rasterio.shutil.copy(pyramid, part, driver="COG", strict=True, **COG_OPTIONS)
        # `staged` moves everything that lies in its folder beside the product, so nothing else may be left there.
        shutil.rmtree(scratch)
        if text := side_file(labels, _unkept(labels, part)):
            part.with_name(f"{part.name}.aux.xml").write_text(text, encoding="utf-8")
        _compare(labels, part, sums)


def read_cog(path: Path) -> LabelMap:
    """Open a COG written by `write_cog` as a LabelMap. Raises `InputError` if the file is no such COG."""
    try:
        with _gdal(), rasterio.open(path, driver="GTiff") as file:
            said = json_of(file.tags().get(TAG, "null"))
            if said is None:
                raise InputError(f"{path} is a TIFF but not a label map of tilepipe: it has no {TAG} tag")
            if is_lossy(file, str(path)):
                raise InputError(
                    f"{path} was compressed with loss after tilepipe wrote it, so its values are no longer the labels; "
                    "give the labels as they were before"
                )
            shape, place, block = (file.height, file.width), georeference_of(file), (TIFF_BLOCK * 2, TIFF_BLOCK * 2)
            return labels_from(said, shape, file.dtypes[0], partial(_read, str(path)), block, place)
    except (*GDAL_ERRORS, *UNREADABLE) as error:
        raise InputError(
            f"{path} cannot be opened as a label map: {reason(error)}; give the GeoTIFF or OME-Zarr of a run, "
            "or its work directory"
        ) from error


def cog_overviews(path: Path) -> dict[tuple[int, int], Callable[[Box], Labels]]:
    """Return a function that reads a box of it for each overview of a COG, by the overview's shape (height, width).

    Raises `InputError` if the file cannot be read.
    """
    found: dict[tuple[int, int], Callable[[Box], Labels]] = {}
    try:
        with _gdal(), rasterio.open(path, driver="GTiff") as file:
            count = len(file.overviews(1))
        for level in range(count):
            with _gdal(), rasterio.open(path, driver="GTiff", overview_level=level) as file:
                found[file.height, file.width] = partial(_read, str(path), overview_level=level)
    except GDAL_ERRORS as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    return found


@contextmanager
def _gdal() -> Iterator[None]:
    with rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # slides have no position on the earth
        yield


def _read(path: str, box: Box, **of: int) -> Labels:
    """Read a box with a handle of its own: GDAL handles must not be shared between threads."""
    try:
        with _gdal(), rasterio.open(path, driver="GTiff", **of) as file:
            labels: Labels = file.read(1, window=_window(box))
            return labels
    except GDAL_ERRORS as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def _window(box: Box) -> Window:
    return Window(box.x0, box.y0, box.width, box.height)


def _boxes(labels: LabelMap) -> Iterator[Box]:
    """Yield boxes of whole TIFF blocks, about as large as the blocks of the label map."""
    # The side has a limit, so that the memory does not follow the blocks of the map.
    side = -(-max(labels.block) // TIFF_BLOCK) * TIFF_BLOCK
    yield from labels.boxes(min(side, 8 * TIFF_BLOCK))


def _write_flat(labels: LabelMap, path: Path) -> list[int]:
    """Write each block of the intermediate GeoTIFF once; return a checksum for each box of `_boxes`."""
    counts, sums = Counts(), []
    with rasterio.open(path, "w", **_profile(labels)) as file:
        place = labels.georeference
        if place and place.gcps and place.transform is None:
            file.gcps = [GroundControlPoint(*point) for point in place.gcps], _crs(place)
        if place and place.rpcs:
            file.update_tags(ns="RPC", **dict(place.rpcs))
        file.update_tags(**{TAG: json.dumps(facts_of_labels(labels))})
        for box in _boxes(labels):
            pixels = np.ascontiguousarray(labels.read(box))
            # A checksum is enough here: damage is to be found, not forgery.
            sums.append(zlib.crc32(pixels.data))
            counts.add(pixels)
            file.write(pixels, 1, window=_window(box))
        mark(file, labels.legend, counts)
    return sums


def _profile(labels: LabelMap) -> JSON:
    """Return a new profile: a source's profile would bring its own photometric, nodata and block sizes."""
    height, width = labels.shape
    place = labels.georeference or Georeference()
    profile = {
        **{"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": labels.dtype.name},
        **{"nodata": labels.legend.nodata, "tiled": True, "blockxsize": TIFF_BLOCK, "blockysize": TIFF_BLOCK},
        # This file is thrown away, so speed counts more than size, and blocks of nodata alone take no room.
        **{"compress": "DEFLATE", "zlevel": 1, "sparse_ok": True, "bigtiff": "IF_SAFER", "num_threads": THREADS},
    }
    if place.transform is not None:
        profile["transform"] = Affine(*place.transform)
    # With control points the reference system is theirs and is set together with them.
    if place.crs and (place.transform is not None or not place.gcps):
        profile["crs"] = _crs(place)
    return profile


def _with_overviews(flat: Path, labels: LabelMap) -> Path:
    """Write the overviews as files beside `flat`; return a VRT that names them all."""
    # The overviews of a map one pixel wide would be as wide as itself, which validators refuse.
    shapes = halvings(labels.shape, TIFF_BLOCK) if labels.shape[1] > 1 else [labels.shape]
    plain = replace(labels, georeference=None)
    finer, overviews = flat, ""
    for level, shape in enumerate(shapes[1:], start=1):
        coarser = flat.with_name(f"{level}.tif")
        _write_halved(finer, coarser, replace(plain, shape=shape))
        overviews += f"<Overview><SourceFilename relativeToVRT='1'>{coarser.name}</SourceFilename></Overview>"
        finer = coarser
    pyramid = flat.with_name("pyramid.vrt")
    rasterio.shutil.copy(flat, pyramid, driver="VRT")
    # rasterio cannot name the overviews of a VRT, so they are put into its text.
    text = pyramid.read_text(encoding="utf-8").replace("</VRTRasterBand>", f"{overviews}</VRTRasterBand>")
    pyramid.write_text(text, encoding="utf-8")
    return pyramid


def _write_halved(finer: Path, coarser: Path, labels: LabelMap) -> None:
    with rasterio.open(finer) as source, rasterio.open(coarser, "w", **_profile(labels)) as file:
        whole = Box.of_shape(source.height, source.width)
        for box in labels.boxes(2 * TIFF_BLOCK):
            covers = Box(2 * box.y0, 2 * box.x0, 2 * box.y1, 2 * box.x1) & whole
            assert covers is not None
            file.write(halved(source.read(1, window=_window(covers)), labels.legend), 1, window=_window(box))


def _crs(place: Georeference) -> CRS | None:
    return CRS.from_wkt(place.crs) if place.crs else None


def _found(path: Path) -> Georeference:
    with rasterio.open(path, driver="GTiff") as file:
        return georeference_of(file) or Georeference()


def _unkept(labels: LabelMap, path: Path) -> str:
    """Return the WKT of the coordinate reference system if the TIFF does not keep it (engineering grids), else ''."""
    wanted = labels.georeference or Georeference()
    return wanted.crs if wanted.crs and _crs(_found(path)) != _crs(wanted) else ""


def _compare(labels: LabelMap, path: Path, sums: list[int]) -> None:
    """Raise `StorageError` unless the file holds the pixels and the position: GDAL reports neither loss by itself."""
    wanted, found = labels.georeference or Georeference(), _found(path)
    identity = tuple(Affine.identity()[:6])
    if (found.transform or identity) != (wanted.transform or identity):
        raise StorageError(f"{path.name}: the transform {wanted.transform} is not kept, {found.transform} is")
    if wanted.transform is None and found.gcps != wanted.gcps:
        raise StorageError(f"{path.name}: {len(wanted.gcps)} ground control points are not kept as they are")
    if found.crs != wanted.crs and _crs(found) != _crs(wanted):
        raise StorageError(f"{path.name}: a GeoTIFF does not keep the coordinate reference system {wanted.crs}")
    with rasterio.open(path, driver="GTiff") as file:
        for box, wrote in zip(_boxes(labels), sums, strict=True):
            if zlib.crc32(np.ascontiguousarray(file.read(1, window=_window(box))).data) != wrote:
                raise StorageError(f"{path.name}: the file read back differs in {box}; the disk may be full or broken")
