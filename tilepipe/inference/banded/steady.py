"""Steady: the middle of a pass as a module of fixed shapes, from a band and the kept rows to logits and kept rows.

After the first few bands of a pass, each further band makes the same calls on tensors of the same shapes. These calls
are one graph, which another runtime can compute. The first bands and the last one are computed by the rules.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tilepipe.inference.banded.held import Held
from tilepipe.inference.banded.lookup import NotBandedError
from tilepipe.inference.banded.network import BandedNetwork
from tilepipe.inference.banded.rows import ROWS, Rows
from tilepipe.inference.banded.rules import Rule

MOST = 64
"""Number of bands after which a pass should be steady."""


class Steady(nn.Module):
    """One band in the middle of a pass. Maps (rows, kept rows, ...) to (logits, kept rows, ...)."""

    def __init__(self, network: BandedNetwork, rules: list[Rule], height: int) -> None:
        """Take the rules of a pass that is steady, and the rows of a band."""
        super().__init__()
        self.network, self.rules, self.height = network, rules, height

    def forward(self, rows: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of as many rows as are given, and the rows to keep for the next band."""
        rules = with_rows(self.rules, kept)
        (logits,) = self.network.going_on(rules, self.height).parts(rows)
        return logits, *(one.contiguous() for one in kept_rows(rules))


@dataclass(frozen=True)
class Middle:
    """What is known of a steady pass over planes of any width."""

    module: Steady
    """The band as a module."""
    examples: tuple[Tensor, ...]
    """Band and kept rows of a narrow plane."""
    columns: tuple[tuple[int, int], ...]
    """Columns of each of `examples`, and of a plane that is twice as wide."""
    first: int
    """Number of bands at the top of a plane before a pass is steady."""
    delay: int
    """Rows by which logits are behind the rows that were given."""

    def shapes(self, width: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of a band and of the kept rows of a plane of `width` columns."""
        unit = self.examples[0].shape[3]
        return tuple(
            (*one.shape[:3], narrow + (wide - narrow) * (width - unit) // unit)
            for one, (narrow, wide) in zip(self.examples, self.columns, strict=True)
        )


def middle_of(network: BandedNetwork, bands: int, height: int, width: int) -> Middle:
    """Return the steady band of `height` rows of a network; it is found on planes of `width` columns and of twice that.

    Raises `NotBandedError` if a pass does not become steady.
    """
    if any(isinstance(step.make(), Held) for step in network.steps):
        raise NotBandedError("statistics that are held fixed differ from band to band")
    narrow, wide = (_run(network, torch.zeros(1, bands, height, columns)) for columns in (width, 2 * width))
    (rules, kept, first, delay), (_, other, again, _) = narrow, wide
    if again != first or len(kept) != len(other):
        raise NotBandedError("its bands depend on the width of the plane")
    examples = (torch.zeros(1, bands, height, width), *(torch.zeros_like(one) for one in kept))
    columns = tuple((one.shape[3], two.shape[3]) for one, two in zip(kept, other, strict=True))
    return Middle(Steady(network, rules, height), examples, ((width, 2 * width), *columns), first, delay)


def _run(network: BandedNetwork, band: Tensor) -> tuple[list[Rule], list[Tensor], int, int]:
    """Give a pass bands until it is steady; return its rules and kept rows, how many bands that took, and the delay."""
    going, before, delay = network.begin(), list[torch.Size](), 0
    with torch.no_grad():
        for count in range(1, MOST):
            found = going.feed(band)
            given = 0 if found is None else found.shape[ROWS]
            delay += band.shape[ROWS] - given
            kept = kept_rows(going.rules)
            now = [one.shape for one in kept]
            if given == band.shape[ROWS] and now == before:
                return going.rules, [one.contiguous() for one in kept], count, delay
            before = now
    raise NotBandedError("its bands do not become alike")


def kept_rows(rules: Sequence[Rule]) -> list[Tensor]:
    """Return the rows that a pass keeps, one tensor for each place that keeps some."""
    found = []
    for rows in _places(rules):
        if len(rows.pieces) > 1:
            rows.pieces = [torch.cat(rows.pieces, ROWS)]
        found += rows.pieces
    return found


def with_rows(rules: Sequence[Rule], kept: Sequence[Tensor]) -> list[Rule]:
    """Return copies of rules that keep other rows."""
    made, coming = [copy.copy(rule) for rule in rules], iter(kept)
    for rule in made:
        waiting = getattr(rule, "waiting", None)
        if isinstance(waiting, list):
            vars(rule)["waiting"] = [_other(rows, coming) for rows in waiting]
        elif isinstance(waiting, Rows):
            vars(rule)["waiting"] = _other(waiting, coming)
    return made


def _other(rows: Rows, coming: Iterator[Tensor]) -> Rows:
    return Rows([next(coming)] if rows.pieces else [], rows.first)


def _places(rules: Sequence[Rule]) -> Iterator[Rows]:
    for rule in rules:
        waiting = getattr(rule, "waiting", [])
        yield from waiting if isinstance(waiting, list) else [waiting]
