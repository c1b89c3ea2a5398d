"""Bands of an image: their names in the file, the bands that are read, and the band that marks image data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.sources.base import Source
from tilepipe.sources.checks import pick_bands, usable
from tilepipe.sources.wrapped import Wrapped
from tilepipe.text import JSON, setting

UNDEFINED = ("", "undefined", "gray", "grey")
"""Words for the colour of a band that do not say what the band holds beside red, green and blue."""
_COLOURS = {
    "red": ("red", "r"),
    "green": ("green", "g"),
    "blue": ("blue", "b"),
    "nir": ("nir", "n", "near infrared", "near-infrared", "nearinfrared", "near_infrared", "infrared"),
    "alpha": ("alpha", "a", "transparency"),
}
_COLOUR_OF = {word: colour for colour, words in _COLOURS.items() for word in words}

BandNames = str | Sequence[int | str]
"""Bands that a user names: '1,2,3', 'R,G,B', [3, 2, 1] or ['nir', 'red']."""


@dataclass(frozen=True)
class Band:
    """What a file says about one of its bands."""

    name: str = ""
    """Name: a GeoTIFF's band description, a name in a STAC item or an OME channel name; '' if there is none."""
    colour: str = ""
    """Colour: red, green, blue, nir, alpha, undefined or another word of GDAL or of STAC's common names; '' if the file
    does not say."""

    @property
    def meaning(self) -> str:
        """Content of the band: the colour that its name is a word for, else its colour."""
        return _COLOUR_OF.get(self.name.strip().casefold(), self.colour)

    def __str__(self) -> str:
        colour = self.colour if self.colour not in UNDEFINED else ""
        return " ".join(dict.fromkeys(word for word in (self.name, colour) if word)) or self.colour or "no name"


COLOURS = tuple(Band(colour=colour) for colour in ("red", "green", "blue"))
"""Bands of a file that holds colours by its format: a picture or a slide."""


@dataclass(frozen=True)
class Picked:
    """Which bands of an image are read."""

    bands: tuple[int, ...] = ()
    """Numbers of the bands from 1, in the order in which they are read; () for those that the source has."""
    valid: int = 0
    """Number of the band in which 0 means that there is no image data; 0 if there is no such band."""
    notes: tuple[str, ...] = ()
    """Sentences about what was chosen without being asked for."""


def bands_of(source: Source) -> tuple[Band, ...]:
    """Return what is known about each band that can be picked, in the order of their numbers."""
    known: tuple[Band, ...] | None = getattr(source, "file_bands", None)
    return known or (Band(),) * source.shape[0]


def read_of(source: Source) -> dict[int, Band]:
    """Return the bands of a source that are read, in the order in which they are read, by their numbers in the file."""
    bands, picked = bands_of(source), getattr(source, "picked", Picked())
    numbers = picked.bands or getattr(source, "numbers", None) or range(1, source.shape[0] + 1)
    # A reader of files lists all bands of its file, also those that are not read.
    if len(bands) != source.shape[0]:
        bands = tuple(bands[number - 1] for number in numbers)
    return dict(zip(numbers, bands, strict=True))


def listed(bands: Sequence[Band]) -> str:
    """Return the bands in words, such as '1 red, 2 green, 3 blue, 4 alpha'."""
    return ", ".join(f"{number} {band}" for number, band in enumerate(bands, 1))


def numbers_of(name: str, asked: BandNames, bands: Sequence[Band]) -> tuple[int, ...]:
    """Return the numbers of the bands that a user names by number or by name, in that order. Raises `UsageError`."""
    words = asked.split(",") if isinstance(asked, str) else list(asked)
    numbers = tuple(_number(name, word, bands) for word in words)
    return pick_bands(name, numbers, len(bands))


def _number(name: str, word: int | str, bands: Sequence[Band]) -> int:
    text = str(word).strip()
    # A negative number is no name: it is refused with the range of numbers.
    if text.lstrip("-").isdigit():
        return int(text)
    wanted = text.casefold()
    for found in (
        [k for k, band in enumerate(bands, 1) if plain_name(band.name) == plain_name(text)],
        [k for k, band in enumerate(bands, 1) if band.meaning and band.meaning == _COLOUR_OF.get(wanted, wanted)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{name} has {len(found)} bands called {text!r} ({listed(bands)}); name them by number")
    unnamed = any(not band.name and band.colour in UNDEFINED for band in bands)
    by_number = "; name them by number" if unnamed else ""
    raise UsageError(f"{name} has no band called {text!r}; its bands are {listed(bands)}{by_number}")


def plain_name(name: str) -> str:
    """Return a band's name in lower case; B4, B04, Band 4 and band_04 are all 'b4'."""
    text = name.strip().casefold()
    # 8A is a band of Sentinel-2.
    numbered = re.fullmatch(r"b(?:and)?[ _-]?0*(\d+a?)", text)
    return f"b{numbered[1]}" if numbered else text


def with_bands(source: Source, numbers: Sequence[int]) -> Source:
    """Return `source` with only these bands, in this order; its own reader picks them if the reader can."""
    numbers = pick_bands(source.name, numbers, len(bands_of(source)))
    picking = getattr(source, "picking", None)
    found: Source | None = picking(numbers) if picking else None
    return found if found is not None else Bands(source, numbers)


def with_picked(source: Source, picked: Picked) -> Source:
    """Return `source` with the bands and the validity of `picked`."""
    if picked == Picked():
        return source
    result = with_bands(source, picked.bands) if picked.bands else source
    if picked.valid:
        result = ValidByBand(result, with_bands(source, [picked.valid]), picked.valid)
    named = bands_of(source)
    return Chosen(result, picked, tuple(named[number - 1] for number in picked.bands) or named)


class Chosen(Wrapped):
    """A source whose bands were chosen for a model."""

    chosen = True
    """Whether the bands were chosen; they are not chosen again."""

    def __init__(self, source: Source, picked: Picked, named: tuple[Band, ...]) -> None:
        super().__init__(source)
        self.picked = picked
        self.file_bands = named

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was chosen without being asked for."""
        return (*super().notes, *self.picked.notes)

    def coarser(self, height: int, width: int) -> Source:
        """Return the source's smaller version."""
        return self.source.coarser(height, width)


class Bands(Wrapped):
    """Some bands of a source, by number from 1, in the order given; a band may be read twice."""

    chosen = True
    """Whether the bands were chosen; they are not chosen again."""

    def __init__(self, source: Source, numbers: Sequence[int]) -> None:
        super().__init__(source)
        self.numbers = tuple(numbers)
        self.file_bands = tuple(bands_of(source)[number - 1] for number in numbers)
        self._index = [number - 1 for number in numbers]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width)."""
        return len(self.numbers), *self.source.shape[1:]

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width)."""
        return self.source.read(box)[self._index]

    def coarser(self, height: int, width: int) -> Source:
        """Return the same bands of the source's smaller version."""
        smaller = self.source.coarser(height, width)
        return self if smaller is self.source else Bands(smaller, self.numbers)

    def identity(self) -> JSON:
        """Return the source's identity and the numbers of the bands."""
        return {"reader": "bands", "bands": list(self.numbers), "of": self.source.identity()}


class ValidByBand(Wrapped):
    """A source that holds image data where one more band of the file is not 0.

    The band holds two values only. Reading a box in which it holds a third value raises `UsageError`: then the band is
    no transparency.
    """

    chosen = True
    """Whether the bands were chosen; they are not chosen again."""

    def __init__(self, source: Source, band: Source, number: int) -> None:
        """Take `band`, a source of that band alone, and its `number` in the file, counted from 1."""
        super().__init__(source)
        self.band, self.number = band, number
        self.file_bands = bands_of(source)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where the band is not 0 and the source is valid, (box.height, box.width); None if all is True."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None:
            values = self.band.read(inside)[0]
            mask = self._opaque(values)
            declared = self.source.valid(inside)
            mask = mask if declared is None else mask & declared
        return usable(mask, box, *self.shape[1:])

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return False

    def _opaque(self, values: Pixels) -> NDArray[np.bool_]:
        odd = ~np.isin(values, two_values(values.dtype))
        if odd.any():
            raise UsageError(
                f"{self.name}: band {self.number} was taken for transparency, as it held only 0 and 255 where it was "
                f"looked at first, but it holds {values[odd][0]} too; say what it is: "
                f"{remedies(self.number, self.shape[0])}"
            )
        return np.asarray(values != 0)

    def identity(self) -> JSON:
        """Return the source's identity and the band that decides what is valid."""
        return {"reader": "valid by band", "band": self.number, "of": self.source.identity()}


def two_values(dtype: DType) -> tuple[int, ...]:
    """Return the values that a band of transparency holds: 0 and 255, or 0 and the largest of its type."""
    # Transparency in floats goes from 0 to 1 in some files and to 255 in others.
    return (0, 1, 255) if dtype.kind == "f" else (0, 255, int(np.iinfo(dtype).max))


def remedies(extra: int, count: int) -> str:
    """Return what to type if band `extra` beside `count` others may be transparency or image."""
    others = [number for number in range(1, count + 2) if number != extra]
    return (
        f"{setting(bands=others, mask='none')} leaves it out, {setting(bands=others)} takes 0 in it for no data, and "
        f"{setting(bands=sorted([*others, extra]))} reads it as image, for a model of {count + 1} bands"
    )
