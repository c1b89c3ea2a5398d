"""This module reads manifests: tables and STAC items on this machine that name the images of a batch.

A CSV file has a column `image` (or path, file, href, location, url), or paths alone, one a line. Of STAC items, each is
one image. Paths start at the folder of the manifest, and lead out of it only into the folders of `allow`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.paths import refuse_special
from tilepipe.sources.mosaic_files import check_links
from tilepipe.sources.stac_index import COLUMNS, JSON_ENDINGS, images_of_stac

IMAGE = ("image", *COLUMNS)
"""Names of the column of a table that names images."""


def images_of(path: Path, allow: str | Path | Sequence[str | Path] = ()) -> list[Path]:
    """Return the absolute paths of the images that a manifest names, each once, in its order; they need not exist.

    Raises `UsageError` if the manifest cannot be read or names no image, and `InputError` if it leads elsewhere.
    """
    refuse_special(path, UsageError)
    allowed = [allow] if isinstance(allow, str | Path) else list(allow)
    if path.suffix.lower() in JSON_ENDINGS:
        found = images_of_stac(path)
    else:
        found = [str(path.parent / name) for name in _named(path)]
    if not found:
        raise UsageError(f"{path} names no image; give one a line, or a column {', '.join(IMAGE[:3])}")
    check_links(path, found, allowed)
    # The last part is kept as it is: a link that lies in the folder has its own name.
    return list(dict.fromkeys(Path(name).parent.resolve() / Path(name).name for name in found))


def _named(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(map(str.strip, row)) and not row[0].startswith("#")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a table of images: {error}") from None
    head = [name.strip().lower() for name in rows[0]] if rows else []
    column = next((head.index(name) for name in IMAGE if name in head), None)
    if column is None:
        if any(len(row) > 1 for row in rows):
            first = ",".join(rows[0])[:100]
            raise UsageError(f"{path} has no column that names images ({', '.join(IMAGE)}); its first row is {first}")
        return [row[0].strip() for row in rows]
    if short := next((k for k, row in enumerate(rows, 1) if len(row) <= column or not row[column].strip()), None):
        raise UsageError(f"{path} names no image in row {short}; fill the column {head[column]} or remove the row")
    return [row[column].strip() for row in rows[1:]]
