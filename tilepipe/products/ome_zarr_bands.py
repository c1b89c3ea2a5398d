"""Several maps of measures on one grid, such as the probability of each class, become one OME-Zarr image.

<path>/0, 1, 2 ...      channels (c, y, x), level k halved from level k - 1 by averages that skip nodata
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.products.geozarr import group_attributes
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.ome_zarr import create_level, image_of_levels, of_bands
from tilepipe.products.ome_zarr_image import CHUNK, channel
from tilepipe.products.pyramid import halved, halvings
from tilepipe.products.staging import UNREADABLE, labels_from, place_from, placed_facts, staged
from tilepipe.text import JSON, clean_line

if TYPE_CHECKING:
    from zarr.types import AnyArray


def write_ome_zarr_bands(
    maps: Sequence[LabelMap], path: Path, facts: JSON, colors: Sequence[tuple[int, int, int]]
) -> None:
    """Write maps of measures on one grid as the channels of an OME-Zarr image (c, y, x), as `write_ome_zarr` does.

    `facts` go into the attributes beside the position; each map is shown in one of the `colors`.
    """
    import zarr

    first = maps[0]
    with staged(path) as part:
        shapes = halvings(first.shape, CHUNK)
        shown = of_bands(image_of_levels(first, len(shapes)), facts["name"])
        last = float(first.legend.nodata - 1)
        channels = [
            channel(clean_line(one.legend.name), "{:02X}{:02X}{:02X}".format(*color), 0.0, last)
            for one, color in zip(maps, colors, strict=True)
        ]
        shown["omero"] = {"channels": channels}
        said = {"ome": shown, "tilepipe": {**placed_facts(first), **facts}, **group_attributes(first, shapes)}
        group = zarr.create_group(part, attributes=said)
        levels = [create_level(group, level, (len(maps), *shape), first) for level, shape in enumerate(shapes)]
        for k, one in enumerate(maps):
            for box in one.boxes(CHUNK):
                levels[0][k, box.y0 : box.y1, box.x0 : box.x1] = one.read(box)
        for finer, coarser in pairwise(levels):
            _halve_bands(finer, coarser, first.legend)


def read_ome_zarr_bands(path: Path) -> tuple[LabelMap, JSON, list[Callable[[Box], Labels]]]:
    """Open what `write_ome_zarr_bands` wrote: a map on its grid, the facts, and a function that reads each channel.

    Raises `InputError` if the folder holds something else.
    """
    import zarr

    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        said: Any = group.attrs["tilepipe"]
        array = group["0"]
        assert isinstance(array, zarr.Array)
        count, height, width = (int(side) for side in array.shape)
        readers = [partial(_read_band, array, k) for k in range(count)]
        place = place_from(said.get("georeference"))
        return labels_from(said, (height, width), array.dtype, readers[0], (CHUNK, CHUNK), place), said, [*readers]
    except UNREADABLE as error:
        raise InputError(f"{path} holds no channels that tilepipe wrote ({' '.join(str(error).split())})") from error


def _halve_bands(finer: AnyArray, coarser: AnyArray, legend: Legend) -> None:
    bands, height, width = coarser.shape
    for band, y, x in product(range(bands), range(0, height, CHUNK), range(0, width, CHUNK)):
        pixels = np.asarray(finer[band, 2 * y : 2 * (y + CHUNK), 2 * x : 2 * (x + CHUNK)])
        coarser[band, y : y + CHUNK, x : x + CHUNK] = halved(pixels, legend)


def _read_band(array: AnyArray, band: int, box: Box) -> Labels:
    try:
        return np.asarray(array[band, box.y0 : box.y1, box.x0 : box.x1])
    except (OSError, RuntimeError, ValueError) as error:  # the store or the codec raises these
        raise InputError(f"{array.store_path} cannot be read: {error}; it may be damaged") from None
