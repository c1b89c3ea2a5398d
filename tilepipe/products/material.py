"""Material: what the products of a run, or of an export, are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.vector_options import PLAIN, VectorOptions
from tilepipe.sources.base import Source


@dataclass(frozen=True)
class Material:
    """Finished maps on one grid, and the image that they were made from."""

    maps: Mapping[str, LabelMap]
    """The labels, by the name `LABELS`, and uncertainty layers by theirs."""
    image: Source | None = None
    """The image at full resolution, with the bands that the model reads; None if it is not at hand."""
    content: str = LABELS
    """Name of the map that a product shows."""
    options: VectorOptions = PLAIN
    """How polygons are written."""

    @property
    def map(self) -> LabelMap:
        """The map that a product shows."""
        return self.maps[self.content]

    def of(self, content: str) -> Material:
        """Return the same material for a product that shows another map."""
        return replace(self, content=content)


Write = Callable[[Material, Path], None]
"""Writes a product at a new path."""


def of_map(write: Callable[[LabelMap, Path], None]) -> Write:
    """Return the writer of a product that is made of one map alone."""

    def write_material(material: Material, path: Path) -> None:
        write(material.map, path)

    return write_material
