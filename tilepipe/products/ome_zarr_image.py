"""The image beside its labels in one OME-Zarr, as viewers want to show them: as many levels, and on the same grid.

    <path>/0, 1, 2 ...      the image (c, y, x), level k halved from level k - 1 by averages

Where labels have larger pixels than the image, the image is sampled at the middle of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tilepipe.arrays import Array
from tilepipe.box import Box
from tilepipe.products.geozarr import array_attributes
from tilepipe.products.label_map import LabelMap
from tilepipe.sources.base import Source
from tilepipe.text import JSON, clean_line

if TYPE_CHECKING:
    import zarr
    from zarr.types import AnyArray

CHUNK = 1024
"""Side of a chunk of every level, in pixels."""
RGB = ("FF0000", "00FF00", "0000FF")
"""Colours of the bands of an image with three bands; other bands are white."""


def write_image_levels(labels: LabelMap, image: Source, root: zarr.Group, shapes: Sequence[tuple[int, int]]) -> JSON:
    """Write the levels of the image on the grid of the labels into `root`; return the `omero` attributes.

    `shapes` are the (height, width) of the levels. One chunk of the image is in memory at a time.
    """
    arrays = [_create(root, level, image, shape) for level, shape in enumerate(shapes)]
    for level, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        array.update_attributes(array_attributes(labels, level, shape))
    for box in labels.boxes(CHUNK):
        arrays[0][:, box.y0 : box.y1, box.x0 : box.x1] = on_grid(image, labels, box)
    for finer, coarser in pairwise(arrays):
        _halve(finer, coarser)
    return _omero(image, np.asarray(arrays[-1][:]))


def _create(root: zarr.Group, level: int, image: Source, shape: tuple[int, int]) -> AnyArray:
    return root.create_array(
        str(level),
        shape=(image.shape[0], *shape),
        dtype=image.dtype,
        chunks=(1, CHUNK, CHUNK),
        compressors=[{"name": "zstd", "configuration": {"level": 3}}],
        dimension_names=("c", "y", "x"),
    )


def on_grid(image: Source, labels: LabelMap, box: Box) -> Array:
    """Return the pixels (C, H, W) of an image under a box of its labels."""
    rows, columns = (
        np.floor(start + (np.arange(first, last) + 0.5) * scale).astype(int)
        for start, scale, first, last in zip(
            labels.origin, labels.scale, (box.y0, box.x0), (box.y1, box.x1), strict=True
        )
    )
    # The far edge of a coarser grid is rounded to whole pixels, so its last pixel may begin beyond the image.
    rows, columns = np.minimum(rows, image.shape[1] - 1), np.minimum(columns, image.shape[2] - 1)
    covers = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    pixels: Array = image.read(covers)[:, rows - covers.y0][:, :, columns - covers.x0]
    return pixels


def _halve(finer: AnyArray, coarser: AnyArray) -> None:
    bands, height, width = coarser.shape
    for band in range(bands):
        for y in range(0, height, CHUNK):
            for x in range(0, width, CHUNK):
                pixels = np.asarray(finer[band, 2 * y : 2 * (y + CHUNK), 2 * x : 2 * (x + CHUNK)])
                coarser[band, y : y + CHUNK, x : x + CHUNK] = halved_image(pixels)


def halved_image(pixels: Array) -> Array:
    """Return a band (H, W) halved to (ceil(H / 2), ceil(W / 2)): the mean of each 2 x 2 pixels, rounded half up."""
    height, width = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    wide = even.astype(np.float64 if even.dtype.kind == "f" or even.dtype.itemsize > 2 else np.int64)
    total = wide[::2, ::2] + wide[::2, 1::2] + wide[1::2, ::2] + wide[1::2, 1::2]
    mean: Array = (total / 4 if pixels.dtype.kind == "f" else np.floor((total + 2) / 4)).astype(pixels.dtype)
    return mean


def _omero(image: Source, smallest: Array) -> JSON:
    """Return how a viewer shows the bands: uint8 from 0 to 255, others from their least to their largest value."""
    names = tuple(getattr(image, "band_names", ()) or ())
    channels = []
    for band in range(image.shape[0]):
        values = smallest[band][np.isfinite(smallest[band])]
        low, high = (0.0, 255.0) if image.dtype == np.uint8 or not values.size else (values.min(), values.max())
        name = names[band] if band < len(names) and names[band] else f"band {band + 1}"
        color = RGB[band] if image.shape[0] == len(RGB) else "FFFFFF"
        channels.append(channel(clean_line(name), color, float(low), float(high)))
    return {"channels": channels}


def channel(name: str, color: str, low: float, high: float) -> JSON:
    """Return how a viewer shows one band: `low` is black and `high` has the colour RRGGBB."""
    limits = {"min": low, "max": high, "start": low, "end": high if high > low else low + 1}
    return {"label": name, "color": color, "active": True, "window": limits}
