"""Per file: labels cut into one GeoTIFF for each file of the image, each on the pixels of that file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.products.cog import read_cog, write_cog
from tilepipe.products.formats import INDEX
from tilepipe.products.label_map import LabelMap
from tilepipe.products.material import Material
from tilepipe.sources.base import Georeference, Source
from tilepipe.sources.georeference import placed
from tilepipe.sources.mosaic import Mosaic
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import json_of, setting


class Piece(NamedTuple):
    """One file of the image."""

    path: str
    """Path of the file."""
    box: Box
    """Pixels of the image that the file covers."""


def write_files(material: Material, path: Path) -> None:
    """Write a folder with one label file for each file of the image that the labels touch, and an index of them.

    Pixels of a file that the labels do not hold are nodata. Raises `UsageError` if labels and image have pixels of
    different sizes, or if `path` exists; `StorageError` if the disk is full.
    """
    labels, image = material.map, material.image
    assert image is not None, "the product is refused without an image"
    if labels.scale != (1.0, 1.0):
        raise UsageError(
            f"labels of other pixels than those of {image.name} cannot be cut by its files, whose edges lie between "
            f"pixels; use {setting(resolution='full')}"
        )
    if path.exists():
        raise UsageError(f"{path} exists; choose another name or remove it first")
    path.mkdir()
    index = {}
    for piece, own, name in _names(image):
        if piece.box & _box_of(labels) is None:
            continue
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        write_cog(_cut(labels, piece.box), path / name)
        index[name] = own
    (path / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def read_files(path: Path) -> None:
    """Read every label of the folder. Raises `InputError` if a file is damaged or missing."""
    try:
        names = json_of((path / INDEX).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path / INDEX} cannot be read: {error}") from error
    for name in names:
        kept = read_cog(path / name)
        for box in kept.boxes(2048):
            kept.read(box)


def _names(image: Source) -> Iterator[tuple[Piece, str, str]]:
    """Yield the files of an image, their paths below the folder of all files, and the paths of their labels."""
    inside = unwrapped(image)
    pieces = [Piece(image.name, Box.of_shape(*image.shape[1:]))]
    if isinstance(inside, Mosaic):
        pieces = [Piece(part.known.path, part.box) for part in inside.parts]
    top, taken = os.path.dirname(pieces[0].path), set()
    with suppress(ValueError):  # relative and absolute paths have no common folder
        top = os.path.commonpath([os.path.dirname(piece.path) for piece in pieces])
    for piece in pieces:
        own = os.path.relpath(piece.path, top or ".")
        name = f"{os.path.splitext(own)[0]}.labels.tif"
        if name.casefold() in taken:
            raise UsageError(f"two files of {image.name} would share the labels {name}; rename {piece.path}")
        taken.add(name.casefold())
        yield piece, own, name


def _box_of(labels: LabelMap) -> Box:
    """Return the pixels of the image that a label map holds."""
    return Box.of_shape(*labels.shape).shift(*labels.origin)


def _cut(labels: LabelMap, box: Box) -> LabelMap:
    """Return the labels of a box of the image."""
    y, x = box.y0 - labels.origin[0], box.x0 - labels.origin[1]
    where = labels.georeference
    if where is not None and where.transform is not None:
        a, b, _, d, e, _ = where.transform
        left, top = placed(where.transform, float(x), float(y))
        where = Georeference(where.crs, (a, b, left, d, e, top))
    elif where is not None and (y, x) != (0, 0):
        where = None
    return replace(
        labels, shape=box.shape, read=partial(_read, labels, box), georeference=where, origin=(box.y0, box.x0)
    )


def _read(labels: LabelMap, cut: Box, box: Box) -> Labels:
    """Return `box` of the labels of the box `cut` of the image; nodata where the map holds nothing."""
    wanted = box.shift(cut.y0 - labels.origin[0], cut.x0 - labels.origin[1])
    there = wanted & Box.of_shape(*labels.shape)
    if there == wanted:
        return labels.read(wanted)
    result = np.full(box.shape, labels.legend.nodata, labels.dtype)
    if there is not None:
        result[there.slices_in(wanted)] = labels.read(there)
    return result
