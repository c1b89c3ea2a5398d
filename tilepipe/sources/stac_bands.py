"""STAC bands: what a STAC item beside an image calls the image's bands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tilepipe.text import JSON, json_of

LARGEST = 1 << 20
"""Bytes of an item that are read."""
ENDS = (".json", ".stac.json")
"""Endings of an item in place of the image's own, as in.json beside in.tif."""


def stac_bands(path: str, count: int) -> list[tuple[str, str]]:
    """Return (name, common name) of each of `count` bands by the STAC item beside an image; [] without one.

    An item is `in.json` or `in.stac.json` beside `in.tif`, of which an asset names this file. The bands are those of
    STAC 1.1 (`bands`) or of the extension `eo` (`eo:bands`). Nothing that the item names is opened.
    """
    stem = os.path.splitext(path)[0]
    for item in (Path(stem + end) for end in ENDS):
        with suppress(OSError, ValueError, TypeError, AttributeError):
            if item.is_file() and not item.is_symlink() and item.stat().st_size <= LARGEST:
                for bands in _listed(json_of(item.read_bytes()), Path(path).name):
                    if len(bands) == count:
                        return [_names(band) for band in bands]
    return []


def _listed(item: JSON, name: str) -> Iterator[list[JSON]]:
    """Yield the lists of bands of the asset that is the file `name`; those of a whole item come last."""
    if "stac_version" not in item:
        return
    assets = [asset for asset in item.get("assets", {}).values() if urlsplit(asset["href"]).path.split("/")[-1] == name]
    for fields in (*assets, *([item["properties"]] if assets else ())):
        for key in ("bands", "eo:bands"):
            if isinstance(fields.get(key), list):
                yield fields[key]


def _names(band: JSON) -> tuple[str, str]:
    common = band.get("eo:common_name") or band.get("common_name") or ""
    return str(band.get("name") or ""), str(common)
