"""Objects of a label map are measured: the components of each class, or their parts if they are split at necks.

A component is split whole, in its own bounding box, so that an object is the same however the map is stored. A
component larger than `LARGEST` stays one object, which is marked. Objects stream: memory grows with the largest one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from rasterio.features import shapes

from tilepipe.products.holes import without_specks
from tilepipe.products.label_map import LABELS
from tilepipe.products.material import Material
from tilepipe.products.object_pixels import image_means, layer_means
from tilepipe.products.object_shape import Shape, bounds, mask_of, shape_of
from tilepipe.products.object_split import split
from tilepipe.products.outline import Outline
from tilepipe.products.outlines import outlines
from tilepipe.products.ruler import Ruler
from tilepipe.products.vector_options import NECK

LARGEST = 4096
"""Longer side in pixels of a component that can be split."""
BATCH = 1024
"""Number of objects that are measured together; carrying few points to the ellipsoid at a time takes long."""
MARGIN = "margin"
"""Name of the layer whose mean is computed for each object, if the layer is there."""
LISTED = 5
"""Largest number of components that a message lists."""


@dataclass(frozen=True)
class MapObject:
    """One object of a label map, in pixels of the map."""

    number: int
    """Number of the object, 1, 2, ... in the order of the components, and from the top within a component."""
    component: int
    """Number of its component: the `id` that the component has among polygons."""
    outline: Outline
    """Class of the object, and the rings of pixel corners around it."""
    shape: Shape
    """Centroid, moments, convex hull and bounding box."""
    area: float
    """Area in the squared unit of `Ruler.of`."""
    perimeter: float
    """Length of the object's border, borders of holes included, in the unit of `Ruler.of`."""
    means: tuple[float | None, ...]
    """Mean of each band of the image; () without an image."""
    margin: float | None
    """Mean of the margin, from 0 to 1; None without a margin layer."""
    unsplit: bool = False
    """Whether the object's component should have been split but is too large."""


def objects(material: Material) -> Iterator[MapObject]:
    """Yield the objects of the labels, measured; components smaller than the option `min_area` are left out.

    Components that are too large to be split are noted in the material.
    """
    labels, image = material.maps[LABELS], material.image
    ruler = Ruler.of(labels)
    bands = image_means(image, labels) if image is not None else None
    margin = layer_means(material.maps[MARGIN]) if MARGIN in material.maps else None
    unsplit: list[str] = []
    found, number = _pieces(material, ruler), 0
    while some := list(islice(found, BATCH)):
        areas, perimeters = ruler.measure([piece.outline.rings for piece in some])
        for piece, area, perimeter in zip(some, areas.tolist(), perimeters.tolist(), strict=True):
            number += 1
            rings, shape = piece.outline.rings, shape_of(piece.outline.rings)
            if piece.unsplit:
                box = shape.box
                unsplit.append(f"{number} (rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1})")
            yield MapObject(
                number,
                piece.component,
                piece.outline,
                shape,
                area,
                perimeter,
                tuple(bands.of(rings, shape.box)) if bands else (),
                margin.of(rings, shape.box)[0] if margin else None,
                piece.unsplit,
            )
    if unsplit:
        more = f" and {len(unsplit) - LISTED} more" if len(unsplit) > LISTED else ""
        material.notes.append(
            f"{len(unsplit)} components of more than {LARGEST} pixels a side were not split: objects "
            f"{', '.join(unsplit[:LISTED])}{more}"
        )


@dataclass(frozen=True)
class _Piece:
    """An object before it is measured."""

    component: int
    outline: Outline
    unsplit: bool = False


def _pieces(material: Material, ruler: Ruler) -> Iterator[_Piece]:
    options = material.options
    for component, outline in _components(material, ruler):
        unsplit = options.split and max(bounds(outline.rings).shape) > LARGEST
        if options.split and not unsplit:
            yield from (_Piece(component, part) for part in parts_of(outline, options.neck or NECK))
        else:
            yield _Piece(component, outline, unsplit)


def _components(material: Material, ruler: Ruler) -> Iterator[tuple[int, Outline]]:
    """Yield the components that are not too small, with their numbers."""
    found, least = outlines(material.maps[LABELS]), material.options.min_area
    # Small components are left out before any is split, so the parts of a larger one all stay. Polygons have their
    # numbers after small ones are left out, so components have them then too.
    yield from enumerate(without_specks(found, ruler, least) if least else found, 1)


def parts_of(outline: Outline, neck: float) -> list[Outline]:
    """Return the objects of a component, from its top; the component itself if it has no neck."""
    rings, box = outline.rings, bounds(outline.rings)
    mask = mask_of(rings, box)
    numbers = split(mask, neck, mask_of(rings[:1], box) if len(rings) > 1 else None)
    if numbers.max() < 2:
        return [outline]
    # `shapes` yields the parts in an order of its own; the numbers go from the top.
    traced = sorted(shapes(numbers, mask=mask, connectivity=4), key=lambda found: found[1])
    return [replace(outline, rings=[np.add(r, (box.x0, box.y0)) for r in shape["coordinates"]]) for shape, _ in traced]
