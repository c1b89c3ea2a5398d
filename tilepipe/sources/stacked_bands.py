"""Stacked bands: bands that lie in several files, or groups of files, as one source on the finest of their grids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Georeference, Resolution, Source
from tilepipe.sources.georeference import apart, same_crs, where
from tilepipe.sources.mosaic import Mosaic
from tilepipe.sources.mosaic_grid import TOLERANCE
from tilepipe.sources.resample import Resampled
from tilepipe.sources.tiff_kinds import Opened
from tilepipe.text import JSON

_NUMBERED = re.compile(r"(?:^|[_.\- ])(B(?:and)?[_-]?\d{1,2}A?)(?=[_.\- ]|$)", re.IGNORECASE)
_WORDS = re.compile(
    r"(?:^|[_.\- ])(coastal|blue|green|yellow|red|red_?edge\d*|nir\d*|swir\d*|pan|thermal|lwir\d*)(?=[_.\- ]|$)",
    re.IGNORECASE,
)


def band_of(path: str) -> str:
    """Return the band that a file's name ends in, such as B02 in T45_B02_10m.tif, or nir; '' if it names none."""
    stem = Path(path).stem
    found = _NUMBERED.findall(stem) or _WORDS.findall(stem)
    return str(found[-1]) if found else ""


def by_band(opened: Sequence[Opened], named: Sequence[Band] = ()) -> dict[Band, list[Opened]] | None:
    """Return the files of each band; None unless each file names a band, and they name several.

    `named` holds the band of each file; if it is empty, the files' names say it.
    """
    named = named or [Band(band_of(file.known.path)) for file in opened]
    groups: dict[Band, list[Opened]] = {}
    for band, file in zip(named, opened, strict=True):
        groups.setdefault(band, []).append(file)
    if Band() in groups or len(groups) < 2:
        return None
    return dict(sorted(groups.items(), key=lambda group: _natural(group[0].name)))


def _natural(name: str) -> tuple[float, str]:
    digits = re.search(r"\d+", name)
    return (float(digits[0]) if digits and _NUMBERED.search(name) else np.inf), name


class Pick(NamedTuple):
    """A band of a stack."""

    source: int
    """Index of the source that holds it."""
    number: int
    """Number of the band in that source, from 1."""


@dataclass(frozen=True)
class Stack:
    """What a stack is made of."""

    name: str
    """Name of the image in messages."""
    place: Path | None
    """Path that stands for the image on disk; None if there is none."""
    sources: tuple[Mosaic, ...]
    """Sources of the bands."""
    picks: tuple[Pick, ...]
    """Where each band is."""
    bands: tuple[Band, ...]
    """Names and colours of the bands."""
    resolution: Resolution | None = None
    """Pixel size of the finest band, if the user states it."""
    by_number: bool = False
    """Whether the bands are in the order of their numbers, which nobody has chosen."""


class Stacked:
    """Bands of several sources that cover the same ground, on the grid of the source with the smallest pixels.

    Other sources are resampled to it, bilinearly. Only sources whose bands are read count: the grid of B05 and B06 of
    Sentinel-2 has pixels of 20 m, and that of B04 and B05 pixels of 10 m. A pixel holds image data if one of its bands
    does, and if a file covers it in all bands; of floats, all bands must hold data.
    """

    def __init__(self, stack: Stack, numbers: Sequence[int] | None = None) -> None:
        """Take the bands by `numbers` from 1, all by default.

        Raises `InputError` if pixels have several types, or if the sources do not cover the same ground.
        """
        self._stack, self.name, self.place, self.file_bands = stack, stack.name, stack.place, stack.bands
        self.numbers = tuple(range(1, len(stack.picks) + 1)) if numbers is None else tuple(numbers)
        """Numbers of the bands that are read, from 1 in `file_bands`."""
        self.by_number = stack.by_number and numbers is None
        picks = [stack.picks[number - 1] for number in self.numbers]
        used = sorted({pick.source for pick in picks})
        self._rows = {k: [row for row, pick in enumerate(picks) if pick.source == k] for k in used}
        own = {k: stack.sources[k].picking([picks[row].number for row in self._rows[k]]) for k in used}
        self._finest = max(own.values(), key=lambda source: source.shape[1] * source.shape[2])
        self._sources: dict[int, Source] = {k: self._fitted(source) for k, source in own.items()}
        self._own = own
        self.shape = (len(picks), *self._finest.shape[1:])
        self.selected: dict[str, int | str] = {}
        self.allowed: tuple[str, ...] = ()
        self.lossy = any(source.lossy for source in own.values())
        self.notes = tuple(self._said())

    def _fitted(self, source: Mosaic) -> Source:
        finest = self._finest
        if source.dtype != finest.dtype:
            raise InputError(
                f"{self.name}: {source.name} has pixels of type {source.dtype} and {finest.name} pixels of type "
                f"{finest.dtype}, so they are not bands of one image; name those that are, for instance by a pattern"
            )
        size = finest.shape[1:]
        fitted: Source = source if source.shape[1:] == size else Resampled(source, *size)
        known, other = finest.georeference, fitted.georeference
        one, two = (None if place is None else place.crs for place in (known, other))
        if not same_crs(one, two) or apart(other, known, *size) > TOLERANCE:
            raise InputError(
                f"{self.name}: {source.name} covers {where(source.georeference, *source.shape[1:])} and {finest.name} "
                f"{where(known, *size)}; bands of one image cover the same ground: gdalwarp -te XMIN YMIN XMAX YMAX "
                "in.tif out.tif"
            )
        return fitted

    def _said(self) -> list[str]:
        _, height, width = self.shape
        names = ", ".join(str(self.file_bands[number - 1]) for number in self.numbers)
        count = sum(len(source.parts) for source in self._own.values())
        notes = [note for source in self._own.values() for note in source.notes if len(source.parts) > 1]
        notes.append(f"{self.name}: bands {names} of {count} files are stacked on {height} x {width} pixels")
        for k, source in self._own.items():
            if self._sources[k] is not source:
                coarse = ", ".join(str(self.file_bands[self.numbers[row] - 1]) for row in self._rows[k])
                size = f"{source.shape[1]} x {source.shape[2]}"
                notes.append(f"{self.name}: {coarse} has {size} pixels and is resampled, bilinearly")
        return notes

    def picking(self, numbers: Sequence[int]) -> Stacked:
        """Return other bands of the stack, by number from 1, on the finest of their grids."""
        return Stacked(self._stack, numbers)

    @property
    def dtype(self) -> DType:
        """Type of the pixels."""
        return self._finest.dtype

    @property
    def resolution(self) -> Resolution | None:
        """Pixel size of the finest band."""
        return self._stack.resolution or self._finest.resolution

    @property
    def georeference(self) -> Georeference | None:
        """Position of the finest band."""
        return self._finest.georeference

    @property
    def files(self) -> list[Path]:
        """Paths of the files, and of files beside them that GDAL reads."""
        return [file for source in self._own.values() for file in source.files]

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return all(source.complete for source in self._own.values())

    @property
    def cache_bytes(self) -> int:
        """Memory that readers keep in a process, over all threads, beyond the pixels they return [bytes]."""
        return max(source.cache_bytes for source in self._own.values())

    @property
    def held_bytes(self) -> int:
        """Memory that each process keeps for the places and states of the files [bytes]."""
        return sum(source.held_bytes for source in self._own.values())

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), reflected outside the image."""
        result = np.empty((self.shape[0], *box.shape), self.dtype)
        for k, source in self._sources.items():
            result[self._rows[k]] = source.read(box)
        return result

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where the pixels of `box` hold image data, (box.height, box.width); None when all do."""
        masks = {k: source.valid(box) for k, source in self._sources.items()}
        needed = [mask for k, mask in masks.items() if self.dtype.kind == "f" or not self._own[k].whole]
        known = [mask for mask in needed if mask is not None]
        some = [mask for mask in masks.values() if mask is not None]
        if len(some) == len(masks):
            known.append(reduce(np.logical_or, some))
        return reduce(np.logical_and, known) if known else None

    def coarser(self, height: int, width: int) -> Source:
        """Return this source: nobody knows how overviews were made, so they are not used."""
        return self

    def identity(self) -> JSON:
        """Return the identities of the sources and how their bands are stacked."""
        return {
            "reader": "stacked",
            "shape": list(self.shape),
            "of": [{"rows": self._rows[k], **source.identity()} for k, source in self._own.items()],
        }
