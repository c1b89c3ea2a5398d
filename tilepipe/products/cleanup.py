"""Outlines are changed as the options ask: without specks and holes, with simpler, rounder or right-angled borders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.products import outlines as tracing
from tilepipe.products.holes import Contents, closed, without_specks
from tilepipe.products.junctions import Junctions
from tilepipe.products.label_map import LabelMap
from tilepipe.products.outline import Floats, Ints, Outline
from tilepipe.products.ruler import Ruler
from tilepipe.products.vector_options import ALL, VectorOptions

if TYPE_CHECKING:
    from tilepipe.products.arcs import ArcDrawer

STAIRS = 1.5
"""Default distance in pixels of a line from the border: the stairs of an oblique border become one line."""
BATCH = 512
"""Number of outlines that are drawn together."""


def cleaned(
    labels: LabelMap, options: VectorOptions, layer: LabelMap | None = None, block: int = tracing.PART
) -> Iterator[Outline]:
    """Yield the outlines of `outlines`, changed as the options ask.

    If borders are redrawn, the map is read twice, or more often until no border crosses another border of its region. A
    border that would cross stays as it is, in both regions that share it.
    """
    if not options.redraws:
        yield from _kept(labels, options, None, layer, block)
        return
    # shapely is in the extra `vectors`; polygons that stay as they are traced do without it.
    from tilepipe.products.arcs import ArcDrawer

    ruler = Ruler.of(labels)
    stairs = STAIRS * float(np.sqrt(np.prod(ruler.pixel)))
    drawer = ArcDrawer(options.simplify or stairs, options.smooth, ruler.pixel)
    learned = True
    # Whether a border crosses another one may be seen when one of its regions is done already, so nothing is yielded
    # before a pass finds no more of them.
    while learned:
        for _ in _drawn(labels, options, drawer, None, block):
            pass
        learned = drawer.learned()
    for one, rings in _drawn(labels, options, drawer, layer, block):
        squared = _squared(one, rings, ruler, drawer.tolerance) if options.orthogonalize else None
        # The marks are places on the border as it was traced, which is another one now.
        yield replace(one, rings=squared or rings, marks=None)


@dataclass(frozen=True)
class _Watcher:
    """Watches blocks while they are traced."""

    contents: Contents | None
    junctions: Junctions | None

    def see(self, box: Box, pixels: Labels, values: Ints) -> None:
        """Take note of a block."""
        if self.contents is not None:
            self.contents.see(box, pixels)
        if self.junctions is not None:
            self.junctions.see(box, values)

    def marks(self, polygons: Sequence[Sequence[Floats]]) -> Sequence[Ints | None]:
        """Return the junctions on the rings of each polygon."""
        return self.junctions.marks(polygons) if self.junctions is not None else [None] * len(polygons)


def _kept(
    labels: LabelMap, options: VectorOptions, junctions: Junctions | None, layer: LabelMap | None, block: int
) -> Iterator[Outline]:
    """Yield the outlines as they are traced, without specks and with small holes closed."""
    contents = Contents(labels.legend.nodata) if options.fill_holes else None
    ruler, least = Ruler.of(labels), options.min_area or 0.0
    found = tracing.groups(labels, block, layer, _Watcher(contents, junctions))
    if contents is not None:
        limit = np.inf if options.fill_holes == ALL else float(options.fill_holes or 0)
        for group in found:
            yield from closed(group, ruler, contents, limit, least)
    elif least:
        yield from without_specks(chain.from_iterable(found), ruler, least)
    else:
        yield from chain.from_iterable(found)


def _drawn(
    labels: LabelMap, options: VectorOptions, drawer: ArcDrawer, layer: LabelMap | None, block: int
) -> Iterator[tuple[Outline, list[Floats]]]:
    """Yield each outline as it was traced, together with its rings as they are drawn."""
    junctions = Junctions(labels.shape, block)
    found = _kept(labels, options, junctions, layer, block)
    while some := list(islice(found, BATCH)):
        yield from zip(some, drawer.draw(junctions.on(some), [len(one.rings) for one in some]), strict=True)


def _squared(one: Outline, rings: list[Floats], ruler: Ruler, tolerance: float) -> list[Floats] | None:
    from tilepipe.products.right_angles import right_angled

    squared = right_angled([r * ruler.pixel for r in rings], [r * ruler.pixel for r in one.rings], 2 * tolerance)
    return [ring / ruler.pixel for ring in squared] if squared else None
