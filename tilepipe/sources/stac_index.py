"""Finds the files of a STAC item or item collection, or of a table in GeoParquet, that lie on this machine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from tilepipe.errors import InputError, UsageError
from tilepipe.paths import refuse_remote
from tilepipe.sources.bands import Band
from tilepipe.sources.mosaic_files import ENDINGS, Files, check_links
from tilepipe.text import JSON, json_of, missing

JSON_ENDINGS = (".json", ".geojson")
PARQUET = b"PAR1"
"""Bytes that a Parquet file begins with."""
LARGEST = 512 << 20
"""Largest size of an item collection that is read [bytes]."""
COLUMNS = ("location", "path", "href", "file", "filename", "url")
"""Names of the column that names files in a table, such as gdaltindex writes."""
PICTURES = {"thumbnail", "overview", "visual", "metadata"}
"""Roles of assets that are no data."""


class Asset(NamedTuple):
    """A raster that an item names."""

    key: str
    """Name of the asset in its item."""
    path: str
    """Path of the file."""
    bands: tuple[Band, ...]
    """Bands, as far as the item names them."""


def is_stac(path: Path) -> bool:
    """Return whether a file holds a STAC item or item collection that names assets."""
    if path.suffix.lower() not in JSON_ENDINGS or path.stat().st_size > LARGEST:
        return False
    try:
        return any(isinstance(item.get("assets"), dict) for item in _items(json_of(path.read_bytes())))
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def files_of_stac(path: Path, allow: Sequence[str | Path] = ()) -> Files:
    """Return the GeoTIFFs of the items of a file. Raises `InputError` if there are none, or if they lie elsewhere."""
    try:
        items = [list(_assets(path, item)) for item in _items(json_of(path.read_bytes()))]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}") from None
    return _of_items(path, items, allow)


def images_of_stac(path: Path) -> list[str]:
    """Return the path of the one raster that each item of a file names; it need not exist.

    Raises `InputError` if the file is damaged, or if an item names no raster that holds data, or several.
    """
    try:
        items = [(str(item.get("id", "")), list(_assets(path, item))) for item in _items(json_of(path.read_bytes()))]
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path} is no list of STAC items: {type(error).__name__} {error}") from None
    if wrong := next(((name, assets) for name, assets in items if len(assets) != 1), None):
        name, assets = wrong
        raise InputError(
            f"{path}: the item {name[:80]} names {len(assets)} GeoTIFFs that hold data "
            f"({', '.join(asset.key for asset in assets)[:100]}), and one of each item is read; list the files in a "
            "CSV file instead"
        )
    return [assets[0].path for _, assets in items]


def files_of_table(path: Path, allow: Sequence[str | Path] = ()) -> Files:
    """Return the files of a table in GeoParquet: of a column of paths, or of a column `assets` as STAC has.

    Raises `UsageError` if pyarrow is not installed, and `InputError` if there is no such column.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            f"{path} is read with pyarrow, which is not installed; run: pip install 'tilepipe[vectors]'"
        ) from None
    try:
        names = parquet.read_schema(path).names
        column = next((name for name in ("assets", *COLUMNS) if name in names), None)
        if column is None:
            raise InputError(
                f"{path} has no column that names files ({', '.join(COLUMNS)}, or assets as STAC has); "
                f"its columns are {', '.join(names)[:200]}"
            )
        rows = parquet.read_table(path, columns=[column])[column].to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    if column == "assets":
        assets = ({key: value for key, value in row.items() if value} for row in rows)
        return _of_items(path, [list(_assets(path, {"assets": each})) for each in assets], allow)
    return _of_items(path, [[Asset("", _local(path, str(row)), ())] for row in rows if row], allow)


def _items(content: JSON) -> list[JSON]:
    """Return the items of an item collection, or the one item."""
    if content.get("type") == "FeatureCollection":
        return [item for item in content["features"] if isinstance(item, dict)]
    return [content] if content.get("type") == "Feature" else []


def _assets(path: Path, item: Mapping[str, JSON]) -> Iterator[Asset]:
    """Yield the GeoTIFFs of an item that hold data."""
    for key, asset in item["assets"].items():
        roles, media = set(asset.get("roles") or ()), str(asset.get("type") or "")
        ending = os.path.splitext(urlsplit(asset["href"]).path)[1].lower()
        if roles & PICTURES or not (ending in ENDINGS or media.startswith("image/tiff")):
            continue
        listed = asset.get("bands") or asset.get("eo:bands") or ()
        bands = (
            Band(str(band.get("name") or ""), str(band.get("eo:common_name") or band.get("common_name") or ""))
            for band in listed
        )
        yield Asset(key, _local(path, asset["href"]), tuple(bands))


def _local(index: Path, href: str) -> str:
    """Return the path that a link names. Raises `InputError` if it leads to another machine."""
    parts = urlsplit(href)
    if parts.scheme == "file":
        return unquote(parts.path)
    if len(parts.scheme) > 1 or href.startswith("/vsi"):  # one letter is a drive of Windows
        refuse_remote(index, href)
        raise InputError(f"{index} names {href[:120]}, which is no path of a file on this machine")
    return os.path.join(index.parent, href)


def _of_items(index: Path, items: Sequence[Sequence[Asset]], allow: Sequence[str | Path]) -> Files:
    """Return the files of items. If items have several assets of one band each, each of these is a band."""
    counts = Counter(asset.key for item in items for asset in item)
    single = {asset.key for item in items for asset in item if len(asset.bands) <= 1}
    keys = [key for key in counts if key in single] if len(counts) > 1 else list(counts)
    notes: tuple[str, ...] = ()
    if left := [key for key in counts if key not in keys]:
        notes = (
            f"{index}: the assets {', '.join(left)} have several bands and are left out, beside others of one band",
        )
    if incomplete := [key for key in keys if counts[key] != len(items)]:
        raise InputError(
            f"{index} has {len(items)} items, and {counts[incomplete[0]]} have the asset {incomplete[0]}; all need it"
        )
    chosen = [asset for item in items for asset in item if asset.key in keys]
    if not chosen:
        raise InputError(f"{index} names no GeoTIFF that holds data (an asset of type image/tiff, or ending in .tif)")
    paths = tuple(asset.path for asset in chosen)
    _refuse_missing(index, paths)
    check_links(index, paths, allow)
    named = tuple(_band(asset) for asset in chosen) if len(keys) > 1 else ()
    return Files(str(index), paths, index, "the items", notes, named)


def _band(asset: Asset) -> Band:
    """Return the band of an asset: its name in the item, else the name of the asset."""
    known = asset.bands[0] if asset.bands else Band()
    return Band(known.name or asset.key, known.colour)


def _refuse_missing(index: Path, paths: Iterable[str]) -> None:
    for path in paths:
        if not os.path.lexists(path):
            raise InputError(f"{index} names {missing(path)}")
