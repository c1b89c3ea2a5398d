"""Material: what the products of a run, or of an export, are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.numbers import Numbers
from tilepipe.products.tally import Tally
from tilepipe.products.vector_options import PLAIN, VectorOptions
from tilepipe.sources.base import Source


@dataclass(frozen=True)
class Material:
    """Finished maps on one grid, and the image that they were made from."""

    maps: Mapping[str, LabelMap]
    """The labels, by the name `LABELS`, and uncertainty layers by theirs."""
    tally: Tally
    """Counts the labels as they are read."""
    image: Source | None = None
    """The image at full resolution, with the bands that the model reads; None if it is not at hand."""
    content: str = LABELS
    """Name of the map that a product shows."""
    options: VectorOptions = PLAIN
    """How polygons and objects are written."""
    notes: list[str] = field(default_factory=list)
    """Sentences that writers have to say."""

    @property
    def map(self) -> LabelMap:
        """The map that a product shows."""
        return self.maps[self.content]

    @classmethod
    def of(
        cls,
        maps: Mapping[str, LabelMap],
        image: Source | None = None,
        tissue: float | None = None,
        options: VectorOptions = PLAIN,
    ) -> Material:
        """Return the material of finished maps; `tissue` is its area in mm2, if a tissue mask was used."""
        tally = Tally(maps[LABELS], tissue)
        return cls({**maps, LABELS: tally.watched()}, tally, image, options=options)

    def numbers(self) -> Numbers:
        """Return what each class has; labels that no product has read so far are read for it."""
        return self.tally.numbers()

    def showing(self, content: str) -> Material:
        """Return the same material for a product that shows another map."""
        return replace(self, content=content)


Write = Callable[[Material, Path], None]
"""Writes a product at a new path."""


def of_map(write: Callable[[LabelMap, Path], None]) -> Write:
    """Return the writer of a product that is made of one map alone."""

    def write_material(material: Material, path: Path) -> None:
        write(material.map, path)

    return write_material
