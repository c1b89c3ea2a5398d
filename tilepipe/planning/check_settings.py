"""Settings as they come from Python, a jobs file or the command line, each of a kind that can be meant.

What a number or word may be is checked where it is used; here a list in place of a word is refused, which would end in
an error about Python's types there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.planning.settings import Settings
from tilepipe.text import comma_list


def checked(settings: Settings) -> Settings:
    """Return settings without those that are None, which are as good as not given; numbers are Python's own.

    Raises `UsageError` for one that is not known, or of a kind that cannot be meant.
    """
    given: dict[str, Any] = {**settings}
    for name in given:
        if name not in Settings.__annotations__:
            raise UsageError(f"setting {name!r} is not known; use {', '.join(sorted(Settings.__annotations__))}")
    return cast(Settings, {name: _checked(name, value) for name, value in given.items() if value is not None})


def _checked(name: str, value: Any) -> Any:
    kind = KINDS.get(name)
    if kind is None:
        return value
    fits, what = kind
    if not fits(value):
        said = repr(value)
        raise UsageError(f"{name} {said if len(said) < 80 else said[:80] + '...'} cannot be used; give {what}")
    if name == "of" and isinstance(value, str):
        return comma_list(value)
    if name == "region" and not isinstance(value, str | Path | Box):
        return Box(*value)
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return numpy's numbers and arrays as Python's: they go into JSON."""
    if isinstance(value, str | bool | Box | Path | int | float):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return tuple(_plain(part) for part in value)


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _word(value: Any) -> bool:
    return isinstance(value, str)


def _number_or_word(value: Any) -> bool:
    return _number(value) or _word(value)


def _file(value: Any) -> bool:
    return isinstance(value, str | Path)


def _listed(one: Callable[[Any], bool], count: int | None = None) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        several = isinstance(value, Sequence) or hasattr(value, "tolist")
        if not several or isinstance(value, str | bytes) or getattr(value, "ndim", 1) != 1:
            return False
        return all(map(one, value)) and count in (None, len(value))

    return fits


def _or_word(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: _word(value) or fits(value)


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("scene", "z", "t", "batch", "block", "workers"), (_whole, "a whole number")),
    **dict.fromkeys(("tile", "overlap"), (_number_or_word, "a whole number or auto")),
    **dict.fromkeys(("tolerance", "max_cost"), (_number, "a number")),
    "pixel_size": (_number_or_word, "a number"),
    "resolution": (_number_or_word, "full, model or a number"),
    **dict.fromkeys(
        ("window_shape", "statistics", "device", "precision", "scheduler", "trust_model", "on_tile_error"),
        (_word, "a word, in quotes"),
    ),
    "memory": (_or_word(_whole), "a size like 4GiB, or bytes"),
    "mask": (_file, "auto, none, tissue, value:255 or the path of a GeoJSON file"),
    "region": (
        lambda value: _file(value) or isinstance(value, Box) or _listed(_whole, 4)(value),
        "the path of a GeoJSON file, a Box, or its four whole numbers: first row, first column, row and column after "
        "the last",
    ),
    "bounds": (_listed(_number, 4), "four numbers: left, bottom, right, top"),
    "window": (_listed(_whole, 4), "four whole numbers: column, row, width, height"),
    "bands": (_or_word(_listed(_number_or_word)), "numbers from 1, or names"),
    "of": (_or_word(_listed(_word)), "a list of products, like ['cog', 'geojson']"),
    "layers": (_or_word(_listed(_word)), "a list of layers, like ['margin', 'entropy']"),
}
"""By setting: what it may be, and how that is said. Others take whatever has a truth value, or say it themselves."""
