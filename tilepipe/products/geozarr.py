"""GeoZarr attributes: the position of label levels on the earth, in words that GDAL, rioxarray and xarray read.

They follow the conventions `spatial`, `proj` and `multiscales` of GeoZarr, version 0.1 (June 2026,
https://github.com/zarr-conventions). Groups have the position of the whole pyramid and a list of its levels; each level
has its own position, so that a reader which opens one array needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilepipe.products.label_map import LabelMap
from tilepipe.products.placing import crs_fields
from tilepipe.text import JSON

DECLARED = {
    "proj": ("f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data"),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    "multiscales": ("d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"),
}
"""Number and description of each convention."""
DRAFTS = {"proj": ("geo-proj", "proj:"), "spatial": ("spatial", "spatial:")}
"""Repository and name that a convention had in its draft (v1): rioxarray looks for these names."""
URL = "https://raw.githubusercontent.com/zarr-conventions/{}/refs/tags/{}/schema.json"
PAGE = "https://github.com/zarr-conventions/{}/blob/{}/README.md"


def group_attributes(labels: LabelMap, shapes: Sequence[tuple[int, int]], folder: str = "") -> JSON:
    """Return the attributes of a group whose levels of `shapes` are the arrays <folder>0, <folder>1, ...

    They are empty if the map has no affine transform.
    """
    if not _is_affine(labels):
        return {}
    layout = [
        {
            "asset": f"{folder}{level}",
            # A level is made of blocks of 2 x 2 pixels, which begin where the finer level begins.
            "transform": {"scale": [2.0, 2.0] if level else [1.0, 1.0], "translation": [0.0, 0.0]},
            **({"derived_from": f"{folder}{level - 1}"} if level else {}),
            **_spatial(labels, level, shape),
        }
        for level, shape in enumerate(shapes)
    ]
    how = "average" if labels.legend.measure else "mode"
    return {
        **_conventions(labels, "multiscales"),
        "multiscales": {"layout": layout, "resampling_method": how},
        **_place(labels),
    }


def array_attributes(labels: LabelMap, level: int, shape: tuple[int, int]) -> JSON:
    """Return the attributes of the array of a level; empty if the map has no affine transform."""
    if not _is_affine(labels):
        return {}
    return {**_conventions(labels), **_place(labels), **_spatial(labels, level, shape)}


def _is_affine(labels: LabelMap) -> bool:
    return labels.georeference is not None and labels.georeference.transform is not None


def _conventions(labels: LabelMap, *more: str) -> JSON:
    known = labels.georeference
    names = [*(["proj"] if known and known.crs else []), "spatial"]
    declared = [_declaration(name, name, name, "v0.1") for name in (*names, *more)]
    drafts = [_declaration(name, *DRAFTS[name], "v1") for name in names]
    return {"zarr_conventions": [*declared, *drafts]}


def _declaration(convention: str, repository: str, name: str, version: str) -> JSON:
    uuid, description = DECLARED[convention]
    return {
        "uuid": uuid,
        "name": name,
        "schema_url": URL.format(repository, version),
        "spec_url": PAGE.format(repository, version),
        "description": description,
    }


def _place(labels: LabelMap) -> JSON:
    """Return what is the same for all levels: the reference system and the axes."""
    known = labels.georeference
    return {**(crs_fields(known.crs) if known and known.crs else {}), "spatial:dimensions": ["y", "x"]}


def _spatial(labels: LabelMap, level: int, shape: tuple[int, int]) -> JSON:
    known = labels.georeference
    assert known is not None
    assert known.transform is not None
    a, b, c, d, e, f = known.transform
    size = 2.0**level
    return {
        "spatial:transform": [a * size, b * size, c, d * size, e * size, f],
        "spatial:shape": list(shape),
        "spatial:registration": "pixel",
    }
