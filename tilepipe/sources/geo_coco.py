"""Reads the objects of an image from COCO JSON: polygons, and masks as run lengths (RLE).

A mask is read as polygons along its pixels, so burning them gives the mask again, pixel for pixel. Coordinates are
pixels of the image, also if the image has a position.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import Affine

from tilepipe.errors import InputError
from tilepipe.sources.geojson import Features, features_of
from tilepipe.sources.geojson_place import Placed
from tilepipe.text import JSON, json_of

MOST_PIXELS = 1 << 28
"""Largest mask that is unpacked (pixels)."""
LONGEST = 60
"""Largest number of bits of a run that is packed into text."""


def coco_of(path: Path) -> JSON | None:
    """Return the content of COCO JSON; None if the file is another one."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        document = json_of(path.read_bytes())
    except (OSError, ValueError):
        return None
    keys = ("images", "annotations", "categories")
    is_coco = isinstance(document, dict) and all(isinstance(document.get(key), list) for key in keys)
    return document if is_coco else None


def read_coco(path: Path, document: JSON, image: Placed) -> Features:
    """Return the objects of one image; the property `class_name` is their category.

    Raises `InputError` if the file does not name the image or gives it another size, or if an object has no outline.
    """
    try:
        number = _entry(path, document["images"], image)
        names = {category["id"]: str(category["name"]) for category in document["categories"]}
        items = [
            (outline, {"class_name": names[one["category_id"]]})
            for one in document["annotations"]
            if one["image_id"] == number
            for outline in _outlines(path, one, image.shape[1:])
        ]
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        raise InputError(f"{path} is damaged COCO JSON: {type(error).__name__} {error}") from None
    return features_of(str(path), items, None, geojson=False, pixels=True)


def _entry(path: Path, images: list[JSON], image: Placed) -> object:
    """Return the id of the image whose file name is that of `image`."""
    name = Path(image.name).name
    names = [PurePosixPath(str(one["file_name"]).replace("\\", "/")) for one in images]
    found = [one for one, known in zip(images, names, strict=True) if known.name == name]
    if not found:  # a label map is called after its image: a.png gives a.labels.tif
        stem = Path(name).stem.removesuffix(".labels")
        found = [one for one, known in zip(images, names, strict=True) if known.stem == stem]
    if len(found) != 1:
        listed = ", ".join(str(one["file_name"]) for one in images[:5])
        raise InputError(
            f"{path} names {len(found)} images {name} among its {len(images)} (such as {listed}); COCO finds an image "
            "by its file name, so name the image as in the file"
        )
    _, height, width = image.shape
    said = found[0]["height"], found[0]["width"]
    if said != (height, width):
        raise InputError(f"{path} says that {name} has {said[0]} x {said[1]} pixels, and it has {height} x {width}")
    return found[0]["id"]


def _outlines(path: Path, one: JSON, shape: tuple[int, int]) -> Iterator[JSON]:
    """Yield the polygons of an annotation as GeoJSON geometries."""
    found = one.get("segmentation")
    if not found:
        raise InputError(
            f"{path}: annotation {one.get('id')} has a box and no outline (segmentation); pixels need outlines"
        )
    if isinstance(found, list):
        if wrong := [part for part in found if not isinstance(part, list) or len(part) < 6 or len(part) % 2]:
            raise InputError(
                f"{path}: annotation {one.get('id')} has a polygon of {len(wrong[0])} numbers; it needs x, y"
            )
        rings = [[list(point) for point in zip(part[::2], part[1::2], strict=True)] for part in found]
        # Parts of an object lie beside each other; COCO has no holes.
        yield from ({"type": "Polygon", "coordinates": [ring]} for ring in rings)
        return
    if tuple(found["size"]) != tuple(shape):
        raise InputError(f"{path}: annotation {one.get('id')} is a mask of {found['size']} pixels on {list(shape)}")
    mask, y, x = unpacked(path, found["counts"], shape)
    corner = Affine.translation(x, y)
    for geometry, _ in shapes(mask.astype(np.uint8), mask=mask, connectivity=4, transform=corner):
        rings = [[list(point) for point in ring] for ring in geometry["coordinates"]]
        yield {"type": "Polygon", "coordinates": rings}


def unpacked(path: Path, counts: str | list[int], shape: tuple[int, int]) -> tuple[NDArray[np.bool_], int, int]:
    """Return the part of a mask that holds its object, and the row and column of the part's corner.

    `counts` are lengths of runs down the columns, the first one of background, as numbers or as COCO packs them into
    text. Raises `InputError` if they do not fill `shape` (height, width).
    """
    height, width = shape
    if height * width > MOST_PIXELS:
        raise InputError(
            f"{path}: a mask of {height} x {width} pixels is not unpacked, as it has more than {MOST_PIXELS:,}; write "
            "its outlines as polygons"
        )
    runs = _numbers(path, counts) if isinstance(counts, str) else counts
    if wrong := [run for run in runs if not isinstance(run, int) or isinstance(run, bool) or run < 0]:
        raise InputError(f"{path}: a mask has a run of {str(wrong[0])[:40]} pixels; runs are whole numbers from 0")
    # Python's numbers do not overflow, so a sum that is right belongs to runs that fit.
    if (total := sum(runs)) != height * width:
        raise InputError(f"{path}: a mask of {height} x {width} pixels has runs of {total:,} pixels in sum")
    lengths = np.array(runs, np.int64)
    columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height)
    x, y = np.flatnonzero(columns.any(1)), np.flatnonzero(columns.any(0))
    if not len(x):
        return np.zeros((1, 1), bool), 0, 0
    return columns[x[0] : x[-1] + 1, y[0] : y[-1] + 1].T.copy(), int(y[0]), int(x[0])


def _numbers(path: Path, text: str) -> list[int]:
    """Return the run lengths that COCO packs into text: 5 bits a character, and differences from the third on."""
    found: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise InputError(f"{path}: the mask {text[:20]!r} holds {character!r}, which no packed mask has")
        value |= (bits & 31) << shift
        shift += 5
        if shift > LONGEST:
            raise InputError(f"{path}: the mask {text[:20]!r} has a run of more than {LONGEST} bits")
        if bits & 32:
            continue
        if bits & 16:  # the sign
            value -= 1 << shift
        found.append(value + found[-2] if len(found) > 2 else value)
        value = shift = 0
    return found
