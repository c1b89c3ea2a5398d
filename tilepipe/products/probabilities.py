"""The probability of each class is written as one band of uint8: a COG, or an OME-Zarr for slides.

The codes are those of uncertainty layers: code / 254 is the probability, from 0 to 1, and 255 is nodata. So a pixel
without image data is no pixel of probability 0, in every band and in every program that knows nodata, and no format
needs a mask. If the format has words for scale and nodata, they are stored as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tilepipe.errors import InputError, UsageError
from tilepipe.products.cog import open_cog, write_bands
from tilepipe.products.label_map import LABELS, LabelMap, probability_legend
from tilepipe.products.material import Material
from tilepipe.products.ome_zarr_bands import read_ome_zarr_bands, write_ome_zarr_bands
from tilepipe.products.staging import UNREADABLE, facts_of_labels
from tilepipe.products.tiff_levels import read_box
from tilepipe.text import JSON, setting
from tilepipe.tiling.uncertainty import PROBABILITIES

BANDS = "probabilities"
"""Key of the names of the bands among the facts of a product."""


def write_probabilities(material: Material, path: Path) -> None:
    """Write the probabilities as a COG with a band for each class; see `write_cog`.

    Bands have the names of the classes as description, and scale and offset, so that QGIS and rasterio show 0 to 1.
    Raises `UsageError` if the material has no probabilities.
    """
    planes = _planes(material, path)
    write_bands(planes, path, _facts(planes))


def write_probabilities_zarr(material: Material, path: Path) -> None:
    """Write the probabilities as an OME-Zarr image (c, y, x) with a channel for each class; see `write_ome_zarr`."""
    planes = _planes(material, path)
    write_ome_zarr_bands(planes, path, _facts(planes), material.maps[LABELS].legend.palette)


def read_probabilities(path: Path) -> tuple[LabelMap, ...]:
    """Open what `write_probabilities` or `write_probabilities_zarr` wrote, one map for each class.

    Raises `InputError` if the path holds something else.
    """
    if path.is_dir():
        first, said, readers = read_ome_zarr_bands(path)
    else:
        first, said = open_cog(path)
        readers = [partial(read_box, str(path), band=k) for k in range(1, len(said.get(BANDS, ())) + 1)]
    try:
        names = [str(name) for name in said[BANDS]]
        return tuple(
            replace(first, legend=probability_legend(name), read=read)
            for name, read in zip(names, readers, strict=True)
        )
    except UNREADABLE:
        raise InputError(f"{path} holds no probabilities that tilepipe wrote") from None


def parse_probabilities(path: Path) -> None:
    """Read every pixel of a product of probabilities. Raises an error if the product is damaged."""
    for plane in read_probabilities(path):
        for box in plane.boxes(2048):
            plane.read(box)


def _planes(material: Material, path: Path) -> tuple[LabelMap, ...]:
    if not material.probabilities:
        raise UsageError(
            f"{path.name} cannot be made of labels alone, and no probabilities were kept beside them; run the image "
            f"again with {setting(of='cog,probabilities')}"
        )
    return material.probabilities


def _facts(planes: Sequence[LabelMap]) -> JSON:
    return {**facts_of_labels(planes[0]), "name": PROBABILITIES, BANDS: [plane.legend.name for plane in planes]}
