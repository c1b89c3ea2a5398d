"""Material: finished maps and their image, from which the products of a run or of an export are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.numbers import Numbers
from tilepipe.products.vector_options import PLAIN, VectorOptions
from tilepipe.sources.base import Source
from tilepipe.text import JSON
from tilepipe.tiling.uncertainty import PROBABILITIES

if TYPE_CHECKING:
    from tilepipe.products.tally import Tally


@dataclass(frozen=True)
class Asset:
    """A file that a product can name: it is written together with that product, or stands beside it."""

    product: str
    """Format of the file, as `--of` calls it."""
    path: Path
    """Final path of the file."""
    content: str
    """'labels', or the name of an uncertainty layer."""
    media: str
    """Media type of the format."""
    roles: tuple[str, ...]
    """What the file is for, in the words of STAC."""


@dataclass(frozen=True)
class Material:
    """Finished maps on one grid, and the image that they were made from."""

    maps: Mapping[str, LabelMap]
    """Labels, under the name `LABELS`, uncertainty layers, under their own names, and the probability of each class,
    under `probability_names`."""
    tally: Tally
    """Tally that counts the labels as they are read."""
    image: Source | None = None
    """Image at full resolution, with the bands that the model reads; None if the image is not at hand."""
    content: str = LABELS
    """Name of the map that a product shows."""
    options: VectorOptions = PLAIN
    """Options for writing polygons and objects."""
    notes: list[str] = field(default_factory=list)
    """Sentences that writers have to say."""
    facts: JSON = field(default_factory=dict)
    """Facts about the run as JSON types, as they stand in run.json; empty if the run is not known."""
    tissue: LabelMap | None = None
    """Tissue that a run with a tissue mask has found, see `tissue_map`; None without such a mask, and for an export."""
    assets: tuple[Asset, ...] = ()
    """Files of the run, and those that are written now."""

    @property
    def map(self) -> LabelMap:
        """Map that a product shows."""
        return self.maps[self.content]

    @property
    def probabilities(self) -> tuple[LabelMap, ...]:
        """Probability of each class, in their order; empty if they were not kept."""
        return tuple(found for name, found in self.maps.items() if name.startswith(PROBABILITIES))

    @classmethod
    def of(
        cls,
        maps: Mapping[str, LabelMap],
        image: Source | None = None,
        tissue: float | None = None,
        options: VectorOptions = PLAIN,
    ) -> Material:
        """Return the material of finished maps; `tissue` is the area of tissue in mm2, if a tissue mask was used."""
        from tilepipe.products.tally import Tally  # opens rasterio, which the names of products do without

        # The labels are counted while products read them, so that they need not be read once more.
        tally = Tally(maps[LABELS], tissue)
        return cls({**maps, LABELS: tally.watched()}, tally, image, options=options)

    def numbers(self) -> Numbers:
        """Return the numbers of each class; labels that no product has read so far are read now."""
        return self.tally.numbers()

    def showing(self, content: str) -> Material:
        """Return the same material for a product that shows another map."""
        return replace(self, content=content)


Write = Callable[[Material, Path], None]
"""Function that writes a product at a new path."""


def of_map(write: Callable[[LabelMap, Path], None]) -> Write:
    """Return the writer of a product that is made of one map alone."""

    def write_material(material: Material, path: Path) -> None:
        write(material.map, path)

    return write_material


def models_of(facts: JSON) -> list[str]:
    """Return the models that made the labels, by name or path as in run.json; [] if they are not known."""
    said = facts.get("model") or []
    return [said] if isinstance(said, str) else [str(name) for name in said]


def model_name(models: Iterable[str]) -> str:
    """Return the models in one text, without folders; '' if there is none."""
    return " + ".join(PurePath(name).name.removesuffix(".model") for name in models)
