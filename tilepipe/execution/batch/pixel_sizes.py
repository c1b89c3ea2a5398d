"""Pixel sizes of a batch whose images do not say them: a table in the jobs file, or a CSV file beside it.

settings: {pixel_size: {slide_1: 0.25, slide_2.svs: 0.5}}
settings: {pixel_size: sizes.csv}      # two columns: the image, its pixel size
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.planning.settings import Request
from tilepipe.text import did_you_mean

NAME = "pixel_size"
CSV = ".csv"


def is_table(value: object) -> bool:
    """Return whether the setting `pixel_size` holds a size for each image, or names a file that does."""
    return isinstance(value, Mapping) or (isinstance(value, str) and value.lower().endswith(CSV))


def read_table(value: object, base: Path) -> dict[str, float]:
    """Return the pixel size of each image by its name. Raises `UsageError` if a size is no number.

    `base` is the folder that the path of a CSV file starts from.
    """
    rows = list(value.items()) if isinstance(value, Mapping) else _rows(base / str(value))
    found: dict[str, float] = {}
    for name, size in rows:
        try:
            number = float(size)
            Request.of({NAME: number})
        except (TypeError, ValueError, UsageError):
            raise UsageError(f"the pixel size of {name} is {size!r}; give a number above 0 for each image") from None
        found[str(name)] = number
    return found


def size_of(table: Mapping[str, float], image: Path, base: Path) -> float | None:
    """Return the pixel size of an image by its path from `base`, its name, or its name without ending; else None."""
    below = image.relative_to(base).as_posix() if image.is_relative_to(base) else str(image)
    return next((table[name] for name in (str(image), below, image.name, image.stem) if name in table), None)


def refuse_unused(table: Mapping[str, float], images: Sequence[Path], base: Path) -> None:
    """Raise `UsageError` if a name in the table is that of no image."""
    names = {name for image in images for name in (str(image), image.name, image.stem)}
    names |= {image.relative_to(base).as_posix() for image in images if image.is_relative_to(base)}
    if unused := next((name for name in table if name not in names), None):
        raise UsageError(f"`{NAME}` names an image that the batch does not have: {did_you_mean(unused, names)}")


def _rows(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a table of pixel sizes: {error}") from None
    if wrong := next((row for row in rows if len(row) != 2), None):
        raise UsageError(f"{path} has a row of {len(wrong)} columns ({','.join(wrong)[:60]}); give image,size")
    # The first row may name the columns.
    head = rows and not rows[0][1].strip().replace(".", "", 1).isdigit()
    return [(name.strip(), size.strip()) for name, size in rows[1 if head else 0 :]]
