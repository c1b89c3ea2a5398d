"""This module writes files that show all labels of a batch on one map: VRTs of the rasters and an index."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tilepipe.errors import TilepipeError, UsageError
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.record import Entry
from tilepipe.products.formats import LOSSLESS, product_of
from tilepipe.products.label_map import LabelMap
from tilepipe.text import JSON

VRT, GEOJSON = ".vrt", ".index.geojson"
"""Ends of the names of the files; before them stands the name of the jobs file."""
START = 4096
"""Size of the start of a file in which its mark stands (bytes)."""


def refuse_other_maps(batch: Batch) -> None:
    """Raise `UsageError` if a file exists where the index or the VRT would be written, and no batch has written it."""
    from tilepipe.products.merged import INDEX, MARK

    for end, mark in ((VRT, MARK), (GEOJSON, INDEX)):
        _refuse_other(batch.folder / f"{batch.path.stem}{end}", mark)


def write_maps(batch: Batch, entries: Sequence[Entry]) -> list[Path]:
    """Write the index, and a VRT for each group of rasters that fit each other; return their paths.

    Without a GeoTIFF that has a place no VRT is written. Raises `UsageError` if a VRT of another name is in the way.
    """
    from tilepipe.products.labels import open_map
    from tilepipe.products.merged import MARK, groups_of, write_index, write_vrt

    rows: list[tuple[JSON, LabelMap | None]] = []
    rasters: list[tuple[Path, LabelMap]] = []
    for entry in entries:
        labels: LabelMap | None = None
        for name in entry.files:
            path = batch.folder / name
            if product_of(path) in LOSSLESS and labels is None:
                with suppress(TilepipeError):  # the next batch makes it again
                    labels = open_map(path)
                    if product_of(path) == "cog":
                        rasters.append((path, labels))
        said = {"image": entry.image, "labels": entry.output, "status": entry.status, "message": entry.message}
        rows.append(({**said, "time": entry.time, **_areas(entry)}, labels))
    written = [batch.folder / f"{batch.path.stem}{GEOJSON}"]
    write_index(written[0], rows)
    for name, group in groups_of(rasters).items():
        path = batch.folder / f"{batch.path.stem}{f'.{name}' if name else ''}{VRT}"
        _refuse_other(path, MARK)
        write_vrt(path, group)
        written.append(path)
    return written


def _areas(entry: Entry) -> JSON:
    """Return the share of each class, by the class's name."""
    return {f"share {row['name']}": row["share"] for row in entry.numbers.get("classes", ())}


def _refuse_other(path: Path, mark: str) -> None:
    if path.exists() and (path.is_dir() or mark.encode() not in path.read_bytes()[:START]):
        raise UsageError(f"{path} was not written by a batch, which would write its index there; move it away")
