"""The smaller versions of a label map or a layer that its product holds, for looking at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tilepipe.products.cog import cog_overviews
from tilepipe.products.label_map import LabelMap
from tilepipe.products.ome_zarr import ome_zarr_levels
from tilepipe.products.pyramid import halvings


def smaller_maps(of: LabelMap, path: Path) -> list[LabelMap]:
    """Return `of`, which `open_map` has opened at `path`, and its smaller versions, each half as large.

    Labels are halved by majority, layers by average. Versions of other sizes, which tilepipe has not written, are left
    out. Raises `InputError` if the product cannot be read.
    """
    reads = ome_zarr_levels(path) if path.is_dir() else cog_overviews(path)
    found = [of]
    for shape in halvings(of.shape, 1)[1:]:
        if shape not in reads:
            break
        scale = found[-1].scale[0] * 2, found[-1].scale[1] * 2
        found.append(replace(of, shape=shape, read=reads[shape], scale=scale, georeference=None, resolution=None))
    return found
