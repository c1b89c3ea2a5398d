"""All exporters share this: staging beside the target, and the facts with which a product can be opened again."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rasterio.crs import CRS

from tilepipe.arrays import DType, Labels
from tilepipe.box import Box
from tilepipe.errors import FREE_SPACE, KEPT, StorageError, UsageError
from tilepipe.products.label_map import LabelMap, Legend, Measure
from tilepipe.products.qgis_style import refuse_style_of_others, style_path
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.storage import cannot_write, free_space
from tilepipe.text import JSON

NEARLY_FULL = 1 << 20
"""Free disk space in bytes below which a library's failure to write means a full disk, whatever its message says."""

UNREADABLE = (
    OSError, LookupError, ValueError, TypeError, AttributeError, AssertionError, OverflowError, RecursionError,
)  # fmt: skip
"""Errors that are raised if a product is opened that tilepipe did not write, or that was damaged since."""


@contextmanager
def staged(path: Path, *errors: type[Exception]) -> Iterator[Path]:
    """Yield a new path in a private folder beside `path`; at the end, the file written there is moved to `path`.

    Files that the writer leaves beside the yielded path (side files) are moved first. If anything fails, the folder is
    removed and `path` does not come to exist. Raises `UsageError` if `path` exists or has a style that somebody made,
    and `StorageError` for an `OSError` and for `errors`, the errors of the library that writes.
    """
    if path.exists():
        raise UsageError(f"{path} exists; choose another name or remove it first")
    try:
        # Only a rename inside one file system is done at once, so the folder lies beside the product.
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            try:
                yield Path(folder) / path.name
            except errors as error:  # the folder is still there, so the free space shows a full disk
                raise not_written(path, error) from error
            refuse_style_of_others(Path(folder) / style_path(path).name, style_path(path))
            # False sorts before True, so the product itself comes last and never stands without its side files.
            for side in sorted(Path(folder).iterdir(), key=lambda made: made.name == path.name):
                _flush(side)
                os.replace(side, path.with_name(side.name))
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: Exception) -> StorageError:
    """Return the error of a product that could not be written; if the disk is full, GDAL may complain about XML."""
    if isinstance(error, OSError) and error.errno:
        return cannot_write(path, error)
    free = free_space(path)
    if free is not None and free < NEARLY_FULL:
        return StorageError(f"cannot write: the disk is full at {path}; {FREE_SPACE}")
    return StorageError(f"cannot write {path} ({reason(error)}); check the disk and its limits; {KEPT}")


def reason(error: Exception) -> str:
    """Return the message of an error, without its number and path."""
    said = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return said.rstrip(".")


def _flush(path: Path) -> None:
    """Flush one file to the disk; the many files of a folder are left to the system."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def facts_of_labels(labels: LabelMap) -> JSON:
    """Return the facts that pixels and georeference do not say, for `labels_from`; they have JSON types only."""
    legend, resolution = labels.legend, labels.resolution
    return {
        "name": legend.name,
        "classes": list(legend.classes),
        "palette": [list(color) for color in legend.palette],
        "nodata": legend.nodata,
        "measure": [legend.measure.step, legend.measure.meaning] if legend.measure else None,
        "origin": list(labels.origin),
        "scale": list(labels.scale),
        "frame": list(labels.frame),
        "resolution": [resolution.y, resolution.x, resolution.unit] if resolution else None,
    }


def labels_from(
    said: JSON,
    shape: tuple[int, int],
    dtype: str | DType,
    read: Callable[[Box], Labels],
    block: tuple[int, int],
    georeference: Georeference | None,
) -> LabelMap:
    """Return the LabelMap of a product from its `facts_of_labels`."""
    if not all(isinstance(name, str) for name in said["classes"]):
        raise ValueError("its classes are no names")
    return LabelMap(
        shape=shape,
        dtype=np.dtype(dtype),
        legend=Legend(
            name=str(said["name"]),
            classes=tuple(said["classes"]),
            palette=tuple((int(r), int(g), int(b)) for r, g, b in said["palette"]),
            nodata=int(said["nodata"]),
            # Products of earlier versions do not have this field.
            measure=Measure(*said["measure"]) if said.get("measure") else None,
        ),
        read=read,
        block=block,
        georeference=georeference,
        resolution=Resolution(*said["resolution"]) if said["resolution"] else None,
        origin=(int(said["origin"][0]), int(said["origin"][1])),
        scale=(float(said["scale"][0]), float(said["scale"][1])),
        frame=(int(said.get("frame", (0, 0))[0]), int(said.get("frame", (0, 0))[1])),
    )


def placed_facts(labels: LabelMap) -> JSON:
    """Return `facts_of_labels` together with the position on the earth, for which OME has no words."""
    return {**facts_of_labels(labels), "georeference": asdict(labels.georeference) if labels.georeference else None}


def place_from(said: JSON | None) -> Georeference | None:
    """Return the position that `placed_facts` has written; None if there is none, as in older products."""
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
