"""Band choice: finds the bands that a model reads if nobody names them, and the band that marks image data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilepipe.errors import InputError
from tilepipe.sources.alpha_band import alphas, cleared, is_two_valued
from tilepipe.sources.bands import (
    UNDEFINED,
    Band,
    BandNames,
    Picked,
    bands_of,
    listed,
    numbers_of,
    plain_name,
)
from tilepipe.sources.base import Source
from tilepipe.text import setting

RGB = ("red", "green", "blue")
NUMBERED = ("b4", "b3", "b2")
"""Names of the bands red, green and blue where they are numbered as those of Sentinel-2 and Landsat 8."""


@dataclass(frozen=True)
class Reader:
    """The model that reads the bands."""

    bands: int | None = None
    """Number of bands that the model reads; None if a model is still to be trained."""
    names: tuple[str, ...] = ()
    """Names of these bands in the model's card; () if it has none."""
    name: str = "the model"
    """Name of the model, for messages."""


def choose_bands(source: Source, reader: Reader, asked: BandNames | None = None, *, masked: bool = True) -> Picked:
    """Return the bands of `source` to read: those asked for, or those that fit the reader.

    If `masked`, one more band may decide where there is image data. This band is flagged as alpha, or is undefined
    beside red, green and blue, and it holds only 0 and 255. Raises `UsageError` for bands that are not there, and
    `InputError` if the file does not say which bands to read.
    """
    bands = bands_of(source)
    if asked is not None:
        numbers = numbers_of(source.name, asked, bands)
        return _told(Picked(numbers, 0, cleared(source, bands, numbers) if masked else ()), bands, reader)
    # The bands were picked when the source was opened; choosing again would take bands of bands.
    if getattr(source, "chosen", False):
        return _told(Picked(), bands, reader)
    alpha = alphas(bands)
    if len(alpha) == 1:
        picked = _beside_alpha(source, bands, alpha[0], reader, masked)
    else:
        picked = _without_alpha(source, bands, reader, masked)
    # The reader of pictures has taken alpha off already, so it is no band here.
    if masked and (said := getattr(source, "alpha", None)):
        picked = Picked(picked.bands, picked.valid, (*picked.notes, f"{source.name}: {said}"))
    return _told(picked, bands, reader)


def _beside_alpha(source: Source, bands: Sequence[Band], alpha: int, reader: Reader, masked: bool) -> Picked:
    others = tuple(k for k in range(1, len(bands) + 1) if k != alpha)
    # Programs often flag a fourth image band as alpha, so a model that reads as many bands gets them all.
    if reader.bands == len(bands):
        looks = "; it holds only 0 and 255, as transparency does" if is_two_valued(source, alpha) else ""
        note = f"all {len(bands)} bands are read as image, also band {alpha}, which the file flags as alpha{looks}"
        return Picked((*range(1, len(bands) + 1),), 0, (note,))
    read, dropped = _fitting(source, bands, others, reader)
    left = (f"band {alpha}, which the file flags as alpha, is left out",)
    if not masked or not others:
        return Picked(read, 0, (*dropped, *left))
    if not is_two_valued(source, alpha):
        raise InputError(
            f"{source.name}: band {alpha} is flagged as alpha and holds other values than 0 and 255, so it may be an "
            f"image band, for instance near infrared; say what it is: {_ways(read, len(bands), reader)}"
        )
    said = f"band {alpha} (alpha) holds only 0 and 255 and says where there is image data"
    return Picked(read, alpha, (*dropped, said))


def _ways(read: tuple[int, ...], count: int, reader: Reader) -> str:
    """Return what to type for each thing that a band flagged as alpha may be."""
    few, every = list(read), list(range(1, count + 1))
    end = "trains on it" if reader.bands is None else f"reads it, with a model of {count} bands"
    return (
        f"{setting(bands=few, mask='none')} leaves it out, {setting(bands=few)} takes 0 in it for no data, "
        f"{setting(bands=every)} {end}"
    )


def _without_alpha(source: Source, bands: Sequence[Band], reader: Reader, masked: bool) -> Picked:
    everything = tuple(range(1, len(bands) + 1))
    rgb = _coloured(bands, everything)
    extra = [k for k in everything if k not in rgb]
    # A band that has a name is image; only one of which the file says nothing may be transparency.
    single = len(rgb) == 3 and len(extra) == 1 and _says_nothing(bands[extra[0] - 1])
    # A model of four bands reads the fourth as image.
    if single and reader.bands in (None, 3):
        if is_two_valued(source, extra[0], seen=True):
            end = "says where there is image data" if masked else "is left out"
            said = f"bands {_row(rgb)} are read; band {extra[0]} (undefined) holds only 0 and 255 and {end}"
            return Picked(rgb, extra[0] if masked else 0, (said,))
        if reader.bands == 3:
            return Picked(rgb, 0, (f"bands {_row(rgb)} are read; band {extra[0]} (undefined) is left out",))
    if reader.bands == len(bands) and getattr(source, "by_number", False):
        return _of_stack(source, bands, everything, reader)
    if reader.bands in (None, len(bands)):
        return Picked((), 0, _backwards(bands, everything, reader))
    read, notes = _fitting(source, bands, everything, reader)
    return Picked(read, 0, notes)


def _backwards(bands: Sequence[Band], of: tuple[int, ...], reader: Reader) -> tuple[str, ...]:
    """Return a warning if the file calls its bands blue, green, red, in this order, and the card names no bands."""
    if reader.bands != 3 or reader.names:
        return ()
    numbered = [plain_name(band.name) for band in reversed(bands)] == list(NUMBERED)
    if not numbered and _coloured(bands, of) != of[::-1]:
        return ()
    listed_backwards = [str(band) for band in reversed(bands)]
    return (
        f"warning: the bands are read in the order {', '.join(map(str, bands))}, which is blue, green, red, and "
        f"{reader.name} does not say which bands it was trained on; {setting(bands=listed_backwards)} gives it red, "
        "green, blue",
    )


def _of_stack(source: Source, bands: Sequence[Band], of: tuple[int, ...], reader: Reader) -> Picked:
    """Return the order of bands that lie in a file each; their numbers tell no order that the model was trained on."""
    order = ", ".join(str(band) for band in bands)
    read = _named(bands, of, reader.names) or (_coloured(bands, of) if reader.bands == 3 else ())
    if len(read) == len(of):
        how = ", ".join(str(bands[k - 1]) for k in read)
        return Picked() if read == of else Picked(read, 0, (f"bands {how} are read in this order",))
    by_name = {plain_name(band.name): str(band) for band in bands}
    if sorted(by_name) == sorted(NUMBERED) and not reader.names:
        colours = [by_name[name] for name in NUMBERED]
        raise InputError(
            f"{source.name} has the bands {order}, and {reader.name} does not say which bands it was trained on; say "
            f"it: {setting(bands=colours)} for red, green, blue (of Sentinel-2 and Landsat 8), "
            f"{setting(bands=[str(band) for band in bands])} for this order"
        )
    other = [str(band) for band in reversed(bands)]
    said = (
        f"warning: the bands of several files are read in the order {order}, and {reader.name} does not say whether it "
        f"was trained on this order; name the bands in its order, for instance {setting(bands=other)}"
    )
    return Picked((), 0, (said,))


def _fitting(
    source: Source, bands: Sequence[Band], of: tuple[int, ...], reader: Reader
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return which of the bands `of` fit the reader, and sentences about the bands that are left out.

    Raises `InputError` if the bands do not fit the reader.
    """
    if reader.bands in (None, len(of)):
        return of, ()
    named = _named(bands, of, reader.names)
    read = named or (_coloured(bands, of) if reader.bands == 3 else ())
    if len(read) != reader.bands:
        raise InputError(
            f"{source.name} has {len(of)} bands and {reader.name} reads {reader.bands}; "
            f"{_other_order(source, reader)}{_what_to_type(source, bands, of, reader)}"
        )
    rest = ", ".join(f"{k} ({bands[k - 1]})" for k in of if k not in read)
    how = ", ".join(f"{k} ({bands[k - 1]})" for k in read)
    return read, (f"bands {how} are read, as the file names them; left out: {rest}",)


def _what_to_type(source: Source, bands: Sequence[Band], of: tuple[int, ...], reader: Reader) -> str:
    wanted = reader.bands or 0
    if len(of) < wanted:
        again = f"{setting(bands=[1] * wanted)} gives it the one band {wanted} times, or " if len(of) == 1 else ""
        hidden = getattr(source, "alpha", None) and len(of) + 1 == wanted
        alpha = f"gdal_translate {source.name} out.tif makes its alpha a band that is read, or " if hidden else ""
        return f"{again}{alpha}choose another model"
    by_name = {plain_name(band.name): band for band in bands if band.name}
    if wanted == 3 and all(name in by_name for name in NUMBERED):
        typed = setting(bands=[str(by_name[name]) for name in NUMBERED])
        return (
            f"choose the bands or another model: {typed} are red, green and blue, if they are numbered as those of "
            f"Sentinel-2 and Landsat 8 (the file has {listed(bands)})"
        )
    typed = setting(bands=list(of[:wanted]))
    return (
        f"choose the bands or another model: {typed}, in the order that the model was trained on (the file has "
        f"{listed(bands)})"
    )


def _other_order(source: Source, reader: Reader) -> str:
    """Return what to type if the last axis of an array without axis names is as long as the model has bands."""
    if getattr(source, "axes_named", True) or source.shape[2] != reader.bands:
        return ""
    return f"if {source.shape} is (height, width, bands), give array.transpose(2, 0, 1), else "


def _named(bands: Sequence[Band], of: tuple[int, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the bands that a card names, in its order; () if one is missing or not unique."""
    found = []
    for name in names:
        same = [k for k in of if _same(bands[k - 1], name)]
        if len(same) != 1:
            return ()
        found.append(same[0])
    return tuple(found)


def _same(band: Band, name: str) -> bool:
    wanted = Band(name)
    return plain_name(band.name) == plain_name(name) or (bool(wanted.meaning) and wanted.meaning == band.meaning)


def _coloured(bands: Sequence[Band], of: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers of red, green and blue, in this order; () unless each is there once."""
    found = [[k for k in of if bands[k - 1].meaning == colour] for colour in RGB]
    return tuple(k for one in found for k in one) if all(len(one) == 1 for one in found) else ()


def _says_nothing(band: Band) -> bool:
    return not band.name and band.colour in UNDEFINED


def _row(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _told(picked: Picked, bands: Sequence[Band], reader: Reader) -> Picked:
    """Add a warning if the names of the bands that are read contradict the names in the card."""
    read = [bands[k - 1] for k in picked.bands] if picked.bands else list(bands)
    if len(read) != len(reader.names):
        return picked
    for number, (band, name) in enumerate(zip(read, reader.names, strict=True), 1):
        known = Band(name).meaning and band.meaning not in UNDEFINED if not band.name else True
        if known and not _same(band, name):
            said = f"warning: {reader.name} reads {name} as its band {number}, and the image gives it {band}"
            return Picked(picked.bands, picked.valid, (*picked.notes, said))
    return picked
