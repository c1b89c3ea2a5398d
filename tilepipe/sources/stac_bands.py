"""STAC bands: reads the STAC item beside an image, and the names of the image's bands in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tilepipe.paths import is_remote
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
    for item in items_beside(path):
        with suppress(KeyError, TypeError, AttributeError):
            for bands in _listed(item, Path(path).name):
                if len(bands) == count:
                    return [_names(band) for band in bands]
    return []


def items_beside(path: str) -> Iterator[JSON]:
    """Yield the STAC items that lie beside an image and have its file as an asset."""
    if is_remote(path):
        return
    stem, name = os.path.splitext(path)[0], Path(path).name
    for file in (Path(stem + end) for end in ENDS):
        # A JSON file beside an image may be anything; what is no item is passed over.
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            if file.is_file() and not file.is_symlink() and file.stat().st_size <= LARGEST:
                item = json_of(file.read_bytes())
                if "stac_version" in item and _assets(item, name):
                    yield item


def _assets(item: JSON, name: str) -> list[JSON]:
    """Return the assets of an item that are the file `name`."""
    # The address of an asset often is that of a server, so only the name of the file is compared.
    return [asset for asset in item.get("assets", {}).values() if urlsplit(asset["href"]).path.split("/")[-1] == name]


def _listed(item: JSON, name: str) -> Iterator[list[JSON]]:
    """Yield the lists of bands of the asset that is the file `name`; the lists of the whole item come last."""
    for fields in (*_assets(item, name), item["properties"]):
        for key in ("bands", "eo:bands"):
            if isinstance(fields.get(key), list):
                yield fields[key]


def _names(band: JSON) -> tuple[str, str]:
    common = band.get("eo:common_name") or band.get("common_name") or ""
    return str(band.get("name") or ""), str(common)
