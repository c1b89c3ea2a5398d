"""This module reads the values of options: numbers, boxes and pixel sizes that a user types."""

from __future__ import annotations

import re
from collections.abc import Callable

import click


def four_numbers(number: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    """Return a parser of four numbers with commas or blanks between them."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            numbers = tuple(number(word) for word in re.split(r"[,\s]+", text.strip()))
        except ValueError:
            numbers = ()
        if len(numbers) != 4:
            raise click.BadParameter(f"{text!r} is not four {'whole ' if number is int else ''}numbers")
        return numbers

    return parse


def word_or(number: type[int] | type[float], *words: str) -> Callable[[str], str | float]:
    """Return a parser of a number or one of `words`."""

    def parse(text: str) -> str | float:
        try:
            return text if text in words else number(text)
        except ValueError:
            # The letters at the end are the two signs for micro that people type.
            alone = re.match(r"[\d.]+(?=\s*[a-zA-Z\u00b5\u03bc]+$)", text.strip())  # 0.25um, 256px
            hint = f"; give the number alone: {alone[0]}" if alone else ""
            raise click.BadParameter(f"{text!r} is neither a number nor {' nor '.join(words)}{hint}") from None

    return parse


def pixel_size(text: str) -> float:
    """Return a pixel size. Raises `click.BadParameter` that names the number alone if a unit follows the number."""
    try:
        return float(text)
    except ValueError:
        from tilepipe.planning.check_settings import plain_size

        raise click.BadParameter(
            f"{text!r} is no number; give it alone, in micrometres for slides and metres for rasters: "
            f"{plain_size(text)}"
        ) from None
