"""The tissue that a run has found on its slide: a picture of it over the slide, and its outlines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.products.formats import TISSUE
from tilepipe.products.label_map import LabelMap, Legend, label_map_of
from tilepipe.products.material import Material
from tilepipe.products.picture_page import ScaleBar, page_of
from tilepipe.products.polygons import write_geojson
from tilepipe.products.quicklook import LEAST, MOST, edges, over, save_page
from tilepipe.products.shrink import picture_shape, shrunk_colours, shrunk_image
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.tissue import Tissue
from tilepipe.sources.wrapped import frame_of
from tilepipe.text import setting

FOUND = 1
"""Value of tissue."""
LEGEND = Legend(
    "tissue",
    ("background", "tissue", "margin with labels", "marker ink"),
    ((255, 255, 255), (0, 114, 78), (86, 180, 233), (213, 94, 0)),
    255,
)
ALONE = Legend("tissue", LEGEND.classes[: FOUND + 1], LEGEND.palette[: FOUND + 1], LEGEND.nodata)
"""Legend of the outlines: who labels inside of them again wants neither the margin nor the ink."""


def refuse_no_tissue(image: Source, mask: str | Path) -> None:
    """Raise `UsageError` if a run with this mask finds no tissue, or finds it on an image of the ground."""
    if mask != "tissue":
        raise UsageError(
            f"{TISSUE} shows where {setting(mask='tissue')} has found tissue, and this run does not look for it; add "
            f"that setting, or leave {TISSUE} out of `of`"
        )
    known = image.georeference
    if known is not None and known.on_earth:
        raise UsageError(f"{TISSUE} shows the tissue of a slide, and {image.name} lies on the ground; leave it out")


def tissue_map(area: Tissue, region: Box, image: Source, size: Resolution | None) -> LabelMap:
    """Return the tissue of a region as a map of the classes of `LEGEND`, on the grid on which it was found.

    `region` counts full-resolution pixels of the image, and `size` is the size of one. A pixel of the map that lies in
    the region in part is whole.
    """
    found, scale = area.found, [full / small for full, small in zip(area.shape, area.small.shape, strict=True)]
    rows, columns = (
        slice(start * small // full, -(-stop * small // full))
        for start, stop, small, full in zip(
            (region.y0, region.x0), (region.y1, region.x1), area.small.shape, area.shape, strict=True
        )
    )
    codes = np.where(area.small, 2, 0).astype(np.uint8)
    codes[found.tissue] = FOUND
    codes[found.ink] = 3
    fields = {"origin": (round(rows.start * scale[0]), round(columns.start * scale[1])), "scale": tuple(scale)}
    known = replace(size, y=size.y * scale[0], x=size.x * scale[1]) if size else None
    return label_map_of(codes[rows, columns], LEGEND, resolution=known, frame=frame_of(image), **fields)


def write_tissue(material: Material, path: Path) -> None:
    """Write the slide with its tissue over it as a PNG at the new path `path`, at most `MOST` pixels per side.

    Raises `UsageError` if the run has not looked for tissue, or if `path` exists; `StorageError` if the disk is full.
    """
    labels, image = _known(material, path)
    shape = picture_shape(labels, MOST, LEAST)
    colours = shrunk_colours(labels, shape, frozenset({0}))
    picture = over(shrunk_image(image, labels, shape), colours, edges(colours))
    codes = labels.read(Box.of_shape(*labels.shape))
    shares = 100 * np.bincount(codes.ravel(), minlength=len(LEGEND.classes)) / codes.size
    named = [
        (f"{name} {share:.1f} %", colour)
        for name, colour, share in list(zip(LEGEND.classes, LEGEND.palette, shares, strict=True))[FOUND:]
        if share
    ]
    save_page(page_of(picture, named, ScaleBar.of(labels, shape[1])), path)


def write_tissue_geojson(material: Material, path: Path) -> None:
    """Write the outlines of the tissue, without its margin, at the new path `path`, in QuPath's frame.

    Raises `UsageError` if the run has not looked for tissue, or if `path` exists; `StorageError` if the disk is full.
    """
    labels, _ = _known(material, path)
    alone = np.where(labels.read(Box.of_shape(*labels.shape)) == FOUND, FOUND, 0).astype(np.uint8)
    fields = {name: getattr(labels, name) for name in ("origin", "scale", "frame", "resolution")}
    write_geojson(label_map_of(alone, ALONE, **fields), path)


def _known(material: Material, path: Path) -> tuple[LabelMap, Source]:
    if material.tissue is None or material.image is None:
        raise UsageError(
            f"{path.name} shows the tissue that a run has found, which no file of labels holds; write it with the "
            f"run: give {setting(mask='tissue')}, and {TISSUE} among `of`"
        )
    return material.tissue, material.image
