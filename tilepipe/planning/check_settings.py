"""This module says what each setting may be, and what its value stands for.

A value may come from Python, a jobs file or the command line. What depends on the image, the model or the machine is
checked when that is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.products.formats import refuse_unknown
from tilepipe.products.vector_options import ALL, target_name
from tilepipe.sources.geo_drivers import driver_named
from tilepipe.text import JSON, comma_list
from tilepipe.tiling.uncertainty import layer_names
from tilepipe.tiling.weights import PROFILES

Fits = Callable[[object], bool]
GRIDS = ("full", "model")
"""Names of the grids that labels can be kept on."""
YEAR = 366 * 24 * 3600
"""Upper bound of a time (seconds)."""
LARGEST = 1e12
"""Upper bound of pixel sizes; below it, numbers of pixels can be computed from a pixel size."""


class Kind(NamedTuple):
    """The kind of a setting: which values it may have."""

    fits: Fits
    """Whether a value is allowed."""
    what: str
    """What the user should give, in words."""
    meant: Callable[[Any], Any] = lambda value: value
    """Function that returns what the value stands for. Raises `UsageError`."""


def checked(settings: Mapping[str, object]) -> JSON:
    """Return the settings that are not None, with numbers as Python's own; None means that a setting is not given.

    Raises `UsageError` if a setting is not known, or if its value is not allowed.
    """
    for name in settings:
        if name not in KINDS:
            near = get_close_matches(name, KINDS, 1, 0.75)
            meant = f"did you mean {near[0]}? There are" if near else "there are"
            raise UsageError(f"setting {name!r} is not known; {meant} {', '.join(sorted(KINDS))}")
    given = {name: _by_name(value) for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if not KINDS[name].fits(value):
            said = repr(value)
            # A value may be an array of a million numbers; its beginning is enough to find the mistake.
            said = said if len(said) < 80 else said[:80] + "..."
            raise UsageError(f"`{name}` {said} cannot be used; give {KINDS[name].what}")
    return {name: _plain(value) for name, value in given.items()}


def _by_name(value: object) -> object:
    """Return the name of a torch device, and the address of a Dask client's scheduler; else the value itself."""
    # Neither package is imported to ask: who has such an object has imported it.
    kind = f"{type(value).__module__}.{type(value).__name__}"
    if kind == "torch.device":
        return str(value)
    if kind == "distributed.client.Client":
        return value.scheduler.address  # type: ignore[attr-defined]
    return value


def _plain(value: object) -> object:
    """Return numpy's numbers and arrays as Python's, which can be written as JSON."""
    if isinstance(value, str | bool | Box | Path | int | float):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    assert isinstance(value, Iterable), "settings of another kind are refused before"
    return tuple(_plain(part) for part in value)


def _number(value: object) -> TypeGuard[float]:
    # True is a number for Python; as a tile size it is a mistake.
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _is(*kinds: type) -> Fits:
    return lambda value: isinstance(value, kinds)


_file = _is(str, Path)


def _word(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _size(value: object) -> bool:
    return _number(value) and 0 < value < LARGEST


def _listed(one: Fits, count: int | None = None) -> Fits:
    def fits(value: object) -> bool:
        # Sets have no order and mappings hold more than values, so they are no lists; arrays of numpy and torch are no
        # `Sequence` but have `tolist`.
        several = isinstance(value, Sequence) or hasattr(value, "tolist")
        if not (several and isinstance(value, Collection)) or isinstance(value, str | bytes):
            return False
        # An array without axes has no length, and an array with two axes would give rows in place of values.
        if getattr(value, "ndim", 1) != 1:
            return False
        return all(map(one, value)) and count in (None, len(value))

    return fits


def _any_of(*kinds: Fits) -> Fits:
    return lambda value: any(fits(value) for fits in kinds)


def _count(least: int, *words: str) -> Kind:
    def fits(value: object) -> bool:
        return value in words if _word(value) else _number(value) and least <= value < math.inf and value % 1 == 0

    what = " or ".join((*words, f"a whole number of at least {least}"))
    return Kind(fits, what, lambda value: None if value in words else int(value))


def _one_of(*words: str) -> Kind:
    return Kind(lambda value: _word(value) and value in words, f"{', '.join(words[:-1])} or {words[-1]}")


def _products(value: str | Sequence[str]) -> tuple[str, ...]:
    products = tuple(comma_list(value) if isinstance(value, str) else value)
    refuse_unknown(products)
    return products


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    # A name of QuPath may hold a comma, so one text is one name.
    return (value,) if isinstance(value, str) else tuple(value)


def _folders(value: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return (str(value),) if isinstance(value, str | Path) else tuple(map(str, value))


def _pixel_size(value: str | float) -> float:
    if isinstance(value, str):
        raise UsageError(
            f"`pixel_size` {value!r} is no number; give it alone, in micrometres for slides and metres for rasters: "
            f"{plain_size(value)}"
        )
    return value


def plain_size(text: str) -> str:
    """Return a pixel size as it should have been given: '0.25 (um)' for '250nm'; '0.25' if nothing can be read."""
    # Unicode has two signs for micro, the sign of its own and the Greek letter, and people type both.
    found = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(nm|um|µm|μm|mm|cm|m)(?:/px)?\s*", text.lower())
    if not found:
        return "0.25"
    times, unit = {"nm": (1e-3, "um"), "mm": (1e-3, "m"), "cm": (1e-2, "m"), "m": (1, "m")}.get(found[2], (1, "um"))
    return f"{float(found[1]) * times:g} (that is in {unit})"


def _resolution(value: object) -> bool:
    with suppress(ValueError):
        value = float(value) if _word(value) else value
    return value in GRIDS if _word(value) else _size(value)


def _memory(value: str | int) -> int | None:
    size, plain = parse_bytes(value), str(value).strip()
    # No run fits into a megabyte, so such a number was meant as MiB.
    if 0 < size < 1 << 20 and plain.isdecimal():
        raise UsageError(f"memory {plain} is {plain} bytes; write {plain}MiB for that many MiB")
    return size or None


def parse_bytes(text: str | int) -> int:
    """Return the bytes of '4GiB', '500MB' or a number. Raises `UsageError`."""
    if isinstance(text, int):
        return text
    units = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
    # `dask.utils.parse_bytes` is not used, because it takes '-5' and an empty text.
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if not match:
        raise UsageError(f"memory {text!r} is not a size; write it like 4GiB or 500MB")
    return int(float(match[1]) * units[match[2] or ""])


KINDS: dict[str, Kind] = {
    **dict.fromkeys(("z", "t", "workers"), _count(0)),
    "scene": Kind(
        lambda value: _word(value) or (_number(value) and value >= 0 and value % 1 == 0),
        "a whole number of at least 0, or the name of a variable",
        lambda value: int(value) if not _word(value) or value.isdigit() else value,
    ),
    "driver": Kind(_word, "the name of a GDAL driver, in quotes", driver_named),
    **dict.fromkeys(("batch", "block"), _count(1)),
    "tile": _count(1, "auto"),
    "overlap": _count(0, "auto"),
    # The total variation distance of probabilities is at most 1, so a tolerance of 1 would allow everything.
    "tolerance": Kind(lambda value: _number(value) and 0 <= value < 1, "a number from 0 on that is below 1"),
    # Every pixel must be seen once, so nothing costs less than one pass.
    "max_cost": Kind(lambda value: _number(value) and value >= 1, "a number of at least 1"),
    # A text is let through here only because `_pixel_size` can answer it with the number that is meant.
    "pixel_size": Kind(_any_of(_size, _word), f"a number above 0 and below {LARGEST:g}", _pixel_size),
    "resolution": Kind(
        _resolution,
        f"full, model or a pixel size above 0 and below {LARGEST:g}",
        lambda value: value if value in GRIDS else float(value),
    ),
    "grid": _one_of("image", "world"),
    "window_shape": _one_of("auto", "crop", *sorted(PROFILES)),
    "statistics": _one_of("auto", "field", "whole", "tile"),
    "tta": _one_of("none", "d4"),
    "runtime": _one_of("auto", "torch", "onnxruntime", "openvino", "compile"),
    "on_tile_error": _one_of("nodata", "fail"),
    "tile_timeout": Kind(lambda value: _number(value) and 0 <= value < YEAR, "seconds, or 0 to wait for ever", float),
    **dict.fromkeys(("device", "precision", "scheduler", "trust_model"), Kind(_word, "a word, in quotes")),
    **dict.fromkeys(
        ("overwrite", "record", "force_resolution", "smooth", "orthogonalize", "split", "annotations", "with_image"),
        Kind(_is(bool, np.bool_), "true or false"),
    ),
    "memory": Kind(lambda value: _word(value) or (_whole(value) and value >= 0), "a size like 4GiB, or bytes", _memory),
    "since": Kind(_file, "the path of the labels of an earlier run", str),
    "mask": Kind(_file, "auto, none, tissue, value:255 or the path of a vector file", str),
    "region": Kind(
        _any_of(_is(str, Path, Box), _listed(_whole, 4)),
        "the path of a vector file, a Box, or its four whole numbers: first row, first column, row and column after "
        "the last",
        lambda value: value if isinstance(value, Box) else str(value) if _file(value) else Box(*value),
    ),
    "bounds": Kind(_listed(_number, 4), "four numbers: left, bottom, right, top"),
    "min_area": Kind(_size, f"an area above 0 and below {LARGEST:g}", float),
    "fill_holes": Kind(
        lambda value: value == ALL if _word(value) else _size(value),
        f"{ALL}, or an area above 0 and below {LARGEST:g}",
    ),
    "neck": Kind(lambda value: _number(value) and 0 < value < 1, "a number above 0 and below 1", float),
    "simplify": Kind(_size, f"a length above 0 and below {LARGEST:g}", float),
    "crs": Kind(_word, "a CRS in quotes, like 'EPSG:4326'", target_name),
    "allow": Kind(_any_of(_file, _listed(_file)), "a folder, or a list of folders", _folders),
    "bounds_crs": Kind(_word, "a CRS in quotes, like 'EPSG:4326'"),
    "window": Kind(_listed(_whole, 4), "four whole numbers: column, row, width, height"),
    "classes": Kind(_any_of(_word, _listed(_word)), "a class, or a list of classes", _names),
    "bands": Kind(_any_of(_word, _listed(_any_of(_number, _word))), "numbers from 1, or names"),
    "of": Kind(_any_of(_word, _listed(_word)), "a list of products, like ['cog', 'geojson']", _products),
    "layers": Kind(_any_of(_word, _listed(_word)), "a list of layers, like ['margin', 'entropy']", layer_names),
}
"""The kind of each setting."""
