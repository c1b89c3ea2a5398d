"""This module pairs the label maps of a folder with the truth in another one, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tilepipe.errors import InputError, UsageError
from tilepipe.paths import output_of_run
from tilepipe.sources.geo_vectors import ARCHIVE, is_vector

ENDINGS = (".ome.zarr", ".ome.tif", ".ome.tiff", ".zarr", ".tif", ".tiff", ".png", ARCHIVE)
"""Endings of label maps; those of polygons are known to `is_vector`."""
WORDS = (".labels", "_labels", "_label", "-labels", "_mask", "_masks", "_truth", "_gt")
"""Ends of names that say that a file holds labels; they do not count when names are compared."""
ZARR = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
SHOWN = 5
"""Largest number of names in a sentence."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of two folders."""

    pairs: tuple[tuple[str, Path, Path], ...]
    """Name, prediction and truth of each pair, sorted by name."""
    notes: tuple[str, ...]
    """Sentences about files without a partner."""


def is_folder(what: object) -> bool:
    """Return whether a path is a folder of label maps, and no Zarr and no work directory of a run."""
    if not isinstance(what, str | Path) or not os.path.isdir(what):
        return False
    return output_of_run(what) is None and not any((Path(what) / name).exists() for name in ZARR)


def pairs_of(prediction: object, truth: object) -> Pairs:
    """Return the pairs of two folders, whose files have the same name but for their endings.

    Raises `InputError` if there is no pair, or a name stands for two files of one folder, and `UsageError` if only one
    of them is a folder.
    """
    paths = [what for what in (prediction, truth) if isinstance(what, str | Path) and is_folder(what)]
    if len(paths) < 2:
        raise UsageError(f"{paths[0]} is a folder and the other map is none; give two folders or two maps")
    prediction, truth = paths
    first = _named(Path(prediction), polygons=False)
    second = _named(Path(truth), polygons=True)
    both = sorted(first.keys() & second.keys())
    if not both:
        listed = [
            ", ".join(sorted(p.name for p in found.values())[:SHOWN]) or "no label map" for found in (first, second)
        ]
        raise InputError(
            f"no label map in {prediction} ({listed[0]}) has a truth of the same name in {truth} ({listed[1]}); names "
            "are compared without endings, .labels, _label and _mask"
        )
    notes = [
        f"{len(alone)} of {len(found)} files in {folder} have no partner and are left out: "
        f"{', '.join(found[key].name for key in alone[:SHOWN])}{', ...' if len(alone) > SHOWN else ''}"
        for folder, found in ((prediction, first), (truth, second))
        if (alone := sorted(found.keys() - set(both)))
    ]
    return Pairs(tuple((key, first[key], second[key]) for key in both), tuple(notes))


def _named(folder: Path, *, polygons: bool) -> dict[str, Path]:
    """Return the label maps of a folder by the part of their names that is compared."""
    found: dict[str, Path] = {}
    for path in _maps(folder, polygons=polygons):
        key = _key(path)
        if key in found:
            raise InputError(f"{found[key]} and {path} both are labels called {key!r}; leave one of them in the folder")
        found[key] = path
    return found


def _maps(folder: Path, *, polygons: bool) -> Iterator[Path]:
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    maps = [path for path in paths if path.name.lower().endswith(ENDINGS) and not path.name.lower().endswith(ARCHIVE)]
    yield from maps
    if polygons:
        # Polygons beside a raster of the same name were made from it, or it from them.
        known = {_key(path) for path in maps}
        yield from (path for path in paths if is_vector(path) and _key(path) not in known)


def _key(path: Path) -> str:
    """Return a file's name without its ending and without a word that says that it holds labels."""
    low = path.name.lower()
    ending = next((ending for ending in ENDINGS if low.endswith(ending)), path.suffix)
    name = path.name[: len(path.name) - len(ending)]
    word = next((word for word in WORDS if name.lower().endswith(word)), "")
    return name[: len(name) - len(word)]
