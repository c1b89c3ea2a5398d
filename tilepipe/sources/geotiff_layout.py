"""This module looks at how the pixels of a raster are stored: its pages, and its tiles or strips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rasterio import DatasetReader

from tilepipe.arrays import DType
from tilepipe.sources.beside import check_links
from tilepipe.sources.checks import LARGE_PIECE_BYTES, check_size, decoding_bytes
from tilepipe.sources.geotiff_gdal import GDAL_CACHE_BYTES, gdal
from tilepipe.sources.strip_cache import ROW_CACHE_BYTES, band_rows

MAX_PAGES = 4096
"""Largest number of pages of a file whose sizes are looked at."""


@dataclass(frozen=True)
class Layout:
    """How pixels are stored, and so how they are read."""

    striped: bool
    """Whether a stored piece is as wide as the image; pixels are then read in bands of rows."""
    band_rows: int
    """Rows of such a band; 0 if the image is tiled."""
    large: bool
    """Whether pieces are so large that one thread at a time decodes them."""
    cache_bytes: int
    """Memory that the reader keeps in a process, over all threads, beyond the pixels it returns [bytes]."""


def layout_of(
    name: str,
    dataset: DatasetReader,
    shape: tuple[int, int, int],
    dtype: DType,
    piece: Callable[[DatasetReader, int], tuple[int, int]],
) -> Layout:
    """Return how the bands that are read are stored. Raises `InputError` if they take more memory than is bounded.

    `shape` is (bands, height, width) of what is read. `piece` returns the size of a stored piece, decoded and as it is
    stored [bytes], from the size of a block.
    """
    bands, whole_height, whole_width = shape
    height, width = dataset.block_shapes[0]
    # Interleaved pixels hold all bands, so one block decodes them all.
    together = dataset.count if dataset.profile.get("interleave") == "pixel" else 1
    blocks = -(-whole_height // height) * -(-whole_width // width) * (dataset.count // together)
    block_bytes, stored = piece(dataset, height * width * together * dtype.itemsize)
    largest = max(stored, block_bytes)
    check_size(name, (int(dataset.count), whole_height, whole_width), largest, blocks)
    striped, rows = width >= whole_width, 0
    cache_bytes = GDAL_CACHE_BYTES + decoding_bytes(largest, stored)
    if striped:
        row_bytes = bands * whole_width * dtype.itemsize
        rows = band_rows(whole_height, row_bytes, height)
        cache_bytes += max(ROW_CACHE_BYTES, min(2, -(-whole_height // rows)) * rows * row_bytes)
    return Layout(striped, rows, largest > LARGE_PIECE_BYTES, cache_bytes)


def pages_of(
    name: str, target: str, opened: Callable[[str], DatasetReader]
) -> tuple[list[str], list[tuple[str, int, int]]]:
    """Return GDAL's names of the images of a file that are no overviews, and (title, height, width) of each.

    `opened` opens the image of a name; `target` is that of the file.
    """
    with gdal(name, "opened"), opened(target) as dataset:
        check_links(name, dataset)
        pages = [page for page in dataset.subdatasets if page.startswith("GTIFF_DIR:")] or [target]
        sizes = [("", int(dataset.height), int(dataset.width))]
    if len(pages) > 1:
        sizes = []
        for page in pages[:MAX_PAGES]:
            with gdal(name, "opened"), opened(page) as dataset:
                sizes.append(("page", int(dataset.height), int(dataset.width)))
    return pages, sizes
