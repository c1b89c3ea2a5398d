"""A label map becomes an OME-Zarr 0.5 label pyramid (https://ngff.openmicroscopy.org/0.5/, Zarr v3), chunk by chunk.

    <path>/zarr.json                    an image whose levels are the label levels below: viewers open the folder itself
    <path>/labels/zarr.json             the list of label images
    <path>/labels/<name>/zarr.json      levels, colours, class names
    <path>/labels/<name>/0, 1, 2 ...    full resolution, then halved until a level fits one chunk

The position on the earth (CRS, transform, control points) lies beside the names of classes in the attributes' key
`tilepipe`: OME-Zarr has no words for it.

An uncertainty layer is an image of its own: its levels lie at <path>/0, 1, 2 ... and are averages.

There is no copy of the image in this product. A label image must lie under `labels/` of an image with as many levels,
so the root image points at the same arrays. Both kinds of readers take this, and no pixel is stored twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.crs import CRS

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.pyramid import halved, halvings
from tilepipe.products.staging import UNREADABLE, facts_of_labels, labels_from, staged
from tilepipe.sources.base import Georeference
from tilepipe.text import JSON

if TYPE_CHECKING:
    import zarr
    from zarr.types import AnyArray

CHUNK = 1024
"""Side of a chunk of every level, in pixels."""
MEMORY = 96 * 2**20
"""Most memory in bytes that `write_ome_zarr` needs beyond the label map itself."""
UNITS = {"um": "micrometer", "m": "meter"}


def write_ome_zarr(labels: LabelMap, path: Path) -> None:
    """Write `labels` as an OME-Zarr 0.5 folder at the new path `path`.

    Level k is made from level k - 1 by `halved`. The scale is `labels.resolution` in micrometres (metres for rasters).
    The translation puts the centre of each level's first pixel where it lies in the source image, so that a region or a
    coarser map overlays the slide. Raises `UsageError` if `path` exists, and `StorageError` if the disk is full; `path`
    does not come to exist then.
    """
    with staged(path) as part:
        shapes = halvings(labels.shape, CHUNK)
        group = (_layer_group if labels.legend.measure else _label_group)(labels, part, len(shapes))
        finer = _write_full(labels, _create(group, 0, shapes[0], labels))
        for level, shape in enumerate(shapes[1:], start=1):
            finer = _write_halved(finer, _create(group, level, shape, labels), labels.legend)


def _label_group(labels: LabelMap, path: Path, levels: int) -> zarr.Group:
    """Return the group of the label levels, which lies below an image of the same levels."""
    import zarr

    # The name becomes a folder; Zarr recommends these characters for the names of nodes.
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", labels.legend.name).strip("._") or "labels"
    root = zarr.create_group(path, attributes={"ome": _image(labels, levels, f"labels/{name}/")})
    listing = root.create_group("labels", attributes={"ome": {"version": "0.5", "labels": [name]}})
    said = {"ome": _label_image(labels, levels), "tilepipe": _facts(labels)}
    return listing.create_group(name, attributes=said)


def _layer_group(layer: LabelMap, path: Path, levels: int) -> zarr.Group:
    import zarr

    return zarr.create_group(path, attributes={"ome": _image(layer, levels), "tilepipe": _facts(layer)})


def _facts(labels: LabelMap) -> JSON:
    """Return `facts_of_labels` together with the position on the earth, for which OME-Zarr has no words."""
    return {**facts_of_labels(labels), "georeference": asdict(labels.georeference) if labels.georeference else None}


def _place(said: JSON | None) -> Georeference | None:
    """Return the position that `_facts` has written; None if there is none, as in older products."""
    if said is None:
        return None
    transform, crs = said["transform"], said["crs"]
    if transform is not None:
        a, b, c, d, e, f = map(float, transform)
        transform = (a, b, c, d, e, f)
        if not all(map(math.isfinite, transform)):
            raise ValueError(f"its transform {transform} is no position")
    gcps = tuple((float(row), float(column), float(x), float(y), float(z)) for row, column, x, y, z in said["gcps"])
    rpcs = tuple((str(name), str(value)) for name, value in said["rpcs"])
    if crs is not None:
        CRS.from_wkt(str(crs))  # damaged text is found here and not when a product is made later
    return Georeference(None if crs is None else str(crs), transform, gcps, rpcs)


def read_ome_zarr(path: Path) -> LabelMap:
    """Open a folder written by `write_ome_zarr` as a LabelMap. Raises `InputError` if it is no such folder."""
    import zarr

    try:
        group = _group(path)
        said: Any = group.attrs["tilepipe"]
        array = group["0"]
        assert isinstance(array, zarr.Array)
        chunk = (int(array.chunks[0]), int(array.chunks[1]))
        shape, place = (int(array.shape[0]), int(array.shape[1])), _place(said.get("georeference"))
        return labels_from(said, shape, array.dtype, partial(_read, array), chunk, place)
    except UNREADABLE as error:
        raise InputError(
            f"{path} is no label map that tilepipe wrote ({' '.join(str(error).split())}); "
            "name one that it wrote, or the work directory of a run (.OUTPUT.tilepipe)"
        ) from error


def ome_zarr_levels(path: Path) -> dict[tuple[int, int], Callable[[Box], Labels]]:
    """Return a function that reads a box of it for each level of a folder written by `write_ome_zarr`, by its shape.

    Raises `InputError` if it is no such folder.
    """
    try:
        levels = {array.shape: array for _, array in _group(path).arrays()}
        return {(int(height), int(width)): partial(_read, array) for (height, width), array in levels.items()}
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); it may be damaged") from error


def _group(path: Path) -> zarr.Group:
    """Return the group that holds the levels, and the facts in its attributes."""
    import zarr

    group = zarr.open_group(path, mode="r", zarr_format=3)
    if "tilepipe" not in group.attrs:  # the group is an image that points at its labels
        ome: Any = group["labels"].attrs["ome"]
        group = zarr.open_group(path / "labels" / ome["labels"][0], mode="r", zarr_format=3)
    return group


def _create(group: zarr.Group, level: int, shape: tuple[int, int], labels: LabelMap) -> AnyArray:
    return group.create_array(
        str(level),
        shape=shape,
        dtype=labels.dtype,
        chunks=(CHUNK, CHUNK),
        compressors=[{"name": "zstd", "configuration": {"level": 3}}],
        fill_value=labels.legend.nodata,
        dimension_names=("y", "x"),
    )


def _write_full(labels: LabelMap, array: AnyArray) -> AnyArray:
    for box in labels.boxes(CHUNK):
        array[box.slices_in(Box.of_shape(*labels.shape))] = labels.read(box)
    return array


def _write_halved(finer: AnyArray, coarser: AnyArray, legend: Legend) -> AnyArray:
    height, width = coarser.shape
    for y in range(0, height, CHUNK):
        for x in range(0, width, CHUNK):
            pixels = np.asarray(finer[2 * y : 2 * (y + CHUNK), 2 * x : 2 * (x + CHUNK)])
            coarser[y : y + CHUNK, x : x + CHUNK] = halved(pixels, legend)
    return coarser


def _image(labels: LabelMap, levels: int, folder: str = "") -> JSON:
    """Return the `ome` attributes of an image with its levels at `<folder>0`, `<folder>1` ..."""
    unit = {"unit": UNITS[labels.resolution.unit]} if labels.resolution else {}
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    datasets = [
        {"path": f"{folder}{level}", "coordinateTransformations": _placement(labels, level)} for level in range(levels)
    ]
    pyramid = {
        "name": labels.legend.name,
        "axes": axes,
        "datasets": datasets,
        "type": "average" if labels.legend.measure else "majority",
    }
    return {"version": "0.5", "multiscales": [pyramid]}


def _placement(labels: LabelMap, level: int) -> list[JSON]:
    """Return scale and translation (y, x): the size of a pixel, and the centre of the first pixel in the source image.

    The centre of the source's own first pixel is 0: level k of a whole map is moved by 0.5 * (2**k - 1) * scale.
    """
    size = labels.resolution
    pixel = (size.y / labels.scale[0], size.x / labels.scale[1]) if size else (1.0, 1.0)
    factor = [scale * 2.0**level for scale in labels.scale]
    scale = [f * p for f, p in zip(factor, pixel, strict=True)]
    shift = [(o + 0.5 * f - 0.5) * p for o, f, p in zip(labels.origin, factor, pixel, strict=True)]
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]


def _label_image(labels: LabelMap, levels: int) -> JSON:
    legend = labels.legend
    colors = [{"label-value": value, "rgba": [*color, 255]} for value, color in enumerate(legend.palette)]
    names = [{"label-value": value, "class": name} for value, name in enumerate(legend.classes)]
    said = {
        "colors": [*colors, {"label-value": legend.nodata, "rgba": [0, 0, 0, 0]}],
        "properties": [*names, {"label-value": legend.nodata, "class": "nodata"}],
        # This is the root of the folder, whose levels are those of the labels.
        "source": {"image": "../../"},
    }
    return {**_image(labels, levels), "image-label": said}


def _read(array: AnyArray, box: Box) -> Labels:
    try:
        return np.asarray(array[box.y0 : box.y1, box.x0 : box.x1])
    except (OSError, RuntimeError, ValueError) as error:  # the store or the codec raises these
        raise InputError(f"{array.store_path} cannot be read: {error}; it may be damaged") from None
