"""A label map becomes an OME-Zarr 0.5 label pyramid (https://ngff.openmicroscopy.org/0.5/, Zarr v3), chunk by chunk.

    <path>/zarr.json                    an image whose levels are the label levels below: viewers open the folder itself
    <path>/labels/zarr.json             the list of label images
    <path>/labels/<name>/zarr.json      levels, colours, class names
    <path>/labels/<name>/0, 1, 2 ...    full resolution, then halved until a level fits one chunk

The position on the earth (CRS, transform, control points) lies beside the names of classes in the attributes' key
`tilepipe`: OME-Zarr has no words for it. If the transform is affine, groups and levels also have the attributes of
GeoZarr (see `geozarr`).

An uncertainty layer is an image of its own: its levels lie at <path>/0, 1, 2 ... and are averages.

A label image must lie under `labels/` of an image with as many levels. If the image is written too, that is the image
(see `ome_zarr_image`). If it is not, the root image points at the arrays of the labels, in shades of grey: both kinds
of readers take this, and no pixel is stored twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.products.geozarr import array_attributes, group_attributes
from tilepipe.products.label_map import LABELS, LabelMap, Legend
from tilepipe.products.material import Material
from tilepipe.products.ome_zarr_image import CHUNK, channel, write_image_levels
from tilepipe.products.pyramid import halved, halvings
from tilepipe.products.staging import UNREADABLE, labels_from, place_from, placed_facts, staged
from tilepipe.sources.base import Source
from tilepipe.text import JSON

if TYPE_CHECKING:
    import zarr
    from zarr.types import AnyArray

MEMORY = 96 * 2**20
"""Most memory in bytes that `write_ome_zarr` needs beyond the label map itself."""
Shapes = Sequence[tuple[int, int]]
"""Shapes (height, width) of the levels."""
UNITS = {"um": "micrometer", "m": "meter"}


def write_ome_zarr_of(material: Material, path: Path) -> None:
    """Write the labels or a layer, and the image beside the labels if the options ask for it; see `write_ome_zarr`."""
    beside = material.options.with_image and material.content == LABELS
    if beside and material.image is None:
        raise UsageError(f"{path.name} holds the image beside its labels, and no image is given; name it with `image`")
    write_ome_zarr(material.map, path, material.image if beside else None)


def write_ome_zarr(labels: LabelMap, path: Path, image: Source | None = None) -> None:
    """Write `labels` as an OME-Zarr 0.5 folder at the new path `path`, with their `image` beside them if it is given.

    Level k is made from level k - 1 by `halved`. The scale is `labels.resolution` in micrometres (metres for rasters).
    The translation puts the centre of each level's first pixel where it lies in the source image, so that a region or a
    coarser map overlays the slide. Raises `UsageError` if `path` exists, and `StorageError` if the disk is full; `path`
    does not come to exist then.
    """
    import zarr

    with staged(path) as part:
        shapes = halvings(labels.shape, CHUNK)
        if labels.legend.measure:
            group = _layer_group(labels, part, shapes)
        else:
            group = _label_group(labels, part, shapes, with_image=image is not None)
        if image is not None:
            root = zarr.open_group(part, mode="r+", zarr_format=3)
            known: Any = root.attrs["ome"]
            shown = {**known, "omero": write_image_levels(labels, image, root, shapes)}
            root.attrs["ome"] = shown
        finer = _write_full(labels, create_level(group, 0, shapes[0], labels))
        for level, shape in enumerate(shapes[1:], start=1):
            finer = _write_halved(finer, create_level(group, level, shape, labels), labels.legend)


def _label_group(labels: LabelMap, path: Path, shapes: Shapes, *, with_image: bool) -> zarr.Group:
    """Return the group of the label levels, which lies below an image of as many levels."""
    import zarr

    # The name becomes a folder; Zarr recommends these characters for the names of nodes.
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", labels.legend.name).strip("._") or "labels"
    folder, levels = "" if with_image else f"labels/{name}/", len(shapes)
    shown = image_of_levels(labels, levels, folder)
    shown = of_bands(shown) if with_image else {**shown, "omero": {"channels": [_shades(labels)]}}
    root = zarr.create_group(path, attributes={"ome": shown, **group_attributes(labels, shapes, folder)})
    listing = root.create_group("labels", attributes={"ome": {"version": "0.5", "labels": [name]}})
    place = group_attributes(labels, shapes)
    said = {"ome": _label_image(labels, levels), "tilepipe": placed_facts(labels), **place}
    return listing.create_group(name, attributes=said)


def of_bands(image: JSON, name: str = "image") -> JSON:
    """Return the attributes of an image (y, x) as those of an image with bands (c, y, x), made by averages."""
    (pyramid,) = image["multiscales"]
    for level in pyramid["datasets"]:
        scale, moved = level["coordinateTransformations"]
        scale["scale"], moved["translation"] = [1.0, *scale["scale"]], [0.0, *moved["translation"]]
    axes = [{"name": "c", "type": "channel"}, *pyramid["axes"]]
    return {**image, "multiscales": [{**pyramid, "name": name, "axes": axes, "type": "average"}]}


def _shades(labels: LabelMap) -> JSON:
    """Return how a viewer shows labels or a layer as an image: from black for 0 to white for the last value."""
    last = labels.legend.nodata - 1 if labels.legend.measure else len(labels.legend.classes) - 1
    return channel(labels.legend.name, "FFFFFF", 0.0, float(max(last, 1)))


def _layer_group(layer: LabelMap, path: Path, shapes: Shapes) -> zarr.Group:
    import zarr

    shown = {**image_of_levels(layer, len(shapes)), "omero": {"channels": [_shades(layer)]}}
    place = group_attributes(layer, shapes)
    return zarr.create_group(path, attributes={"ome": shown, "tilepipe": placed_facts(layer), **place})


def read_ome_zarr(path: Path) -> LabelMap:
    """Open a folder written by `write_ome_zarr` as a LabelMap. Raises `InputError` if it is no such folder."""
    import zarr

    try:
        group = _group(path)
        said: Any = group.attrs["tilepipe"]
        array = group["0"]
        assert isinstance(array, zarr.Array)
        chunk = (int(array.chunks[0]), int(array.chunks[1]))
        shape, place = (int(array.shape[0]), int(array.shape[1])), place_from(said.get("georeference"))
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


def create_level(group: zarr.Group, level: int, shape: tuple[int, ...], labels: LabelMap) -> AnyArray:
    """Make the array of a level, of shape (height, width) or (bands, height, width), with the type of the labels."""
    # Bands come first if there are any; each has chunks of its own.
    return group.create_array(
        str(level),
        shape=shape,
        dtype=labels.dtype,
        chunks=(1, CHUNK, CHUNK)[-len(shape) :],
        compressors=[{"name": "zstd", "configuration": {"level": 3}}],
        fill_value=labels.legend.nodata,
        dimension_names=("c", "y", "x")[-len(shape) :],
        attributes=array_attributes(labels, level, (shape[-2], shape[-1])),
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


def image_of_levels(labels: LabelMap, levels: int, folder: str = "") -> JSON:
    """Return the `ome` attributes of an image (y, x) with its levels at `<folder>0`, `<folder>1` ..."""
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
    colors = [
        {"label-value": value, "rgba": [*color, 0 if value == legend.clear else 255]}
        for value, color in enumerate(legend.palette)
    ]
    names = [{"label-value": value, "class": name} for value, name in enumerate(legend.classes)]
    said = {
        "colors": [*colors, {"label-value": legend.nodata, "rgba": [0, 0, 0, 0]}],
        "properties": [*names, {"label-value": legend.nodata, "class": "nodata"}],
        # This is the root of the folder, whose levels are those of the labels.
        "source": {"image": "../../"},
    }
    return {**image_of_levels(labels, levels), "image-label": said}


def _read(array: AnyArray, box: Box) -> Labels:
    try:
        return np.asarray(array[box.y0 : box.y1, box.x0 : box.x1])
    except (OSError, RuntimeError, ValueError) as error:  # the store or the codec raises these
        raise InputError(f"{array.store_path} cannot be read: {error}; it may be damaged") from None
