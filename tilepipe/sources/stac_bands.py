"""STAC bands: reads the names of an image's bands from a STAC item beside the image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tilepipe.text import JSON, json_of

LARGEST = 1 << 20
"""Largest size of an item that is read [bytes]."""
ENDS = (".json", ".stac.json")
"""Endings of an item in place of the image's own ending, such as in.json beside in.tif."""


def stac_bands(path: str, count: int) -> list[tuple[str, str]]:
    """Return (name, common name) of each of `count` bands by the STAC item beside an image; [] if there is no item.

    An item is `in.json` or `in.stac.json` beside `in.tif`, and one of its assets names this file. The bands stand in
    `bands` (STAC 1.1) or `eo:bands` (the extension `eo`). No file that the item names is opened.
    """
    stem = os.path.splitext(path)[0]
    for item in (Path(stem + end) for end in ENDS):
        # A JSON file beside an image may be anything; what is no item is passed over.
        with suppress(OSError, ValueError, TypeError, AttributeError):
            if item.is_file() and not item.is_symlink() and item.stat().st_size <= LARGEST:
                for bands in _listed(json_of(item.read_bytes()), Path(path).name):
                    if len(bands) == count:
                        return [_names(band) for band in bands]
    return []


def _listed(item: JSON, name: str) -> Iterator[list[JSON]]:
    """Yield the lists of bands of the asset that is the file `name`; the lists of the whole item come last."""
    if "stac_version" not in item:
        return
    # The address of an asset often is that of a server, so only the name of the file is compared.
    assets = [asset for asset in item.get("assets", {}).values() if urlsplit(asset["href"]).path.split("/")[-1] == name]
    for fields in (*assets, *([item["properties"]] if assets else ())):
        for key in ("bands", "eo:bands"):
            if isinstance(fields.get(key), list):
                yield fields[key]


def _names(band: JSON) -> tuple[str, str]:
    common = band.get("eo:common_name") or band.get("common_name") or ""
    return str(band.get("name") or ""), str(common)
