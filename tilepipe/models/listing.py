"""Lists the models that come with tilepipe, as their cards describe them. No network is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tilepipe.models.card import ModelCard
from tilepipe.models.facts import BUNDLED, CARD, bundled_models
from tilepipe.text import JSON


@dataclass(frozen=True)
class ListedModel:
    """A model that comes with tilepipe, in the words and numbers of its card."""

    name: str
    """Name that `-m` takes."""
    description: str
    """What it finds, in which images, and what it was trained on."""
    resolution: float | None
    """Size of the pixels that it works at, in `unit`; None if it takes any."""
    unit: str
    """Unit of the resolution: 'm' or 'um'."""
    bands: int
    """Number of bands that it reads."""
    band_names: tuple[str, ...]
    """Names of these bands; empty if the card names none."""
    dtype: str | None
    """Type of the pixels that it was trained on."""
    classes: tuple[str, ...]
    """Names of its classes by label value."""
    license: str
    """Licence of the data that it was trained on, which holds for the model too."""
    iou: Mapping[str, float]
    """IoU of each class on `scored_on`."""
    mean_iou: float | None
    """Mean of these."""
    object_f1: Mapping[str, float]
    """F1 of the regions of each class as objects, which match above an IoU of 0.5; without the background."""
    scored_on: tuple[str, ...]
    """Images, or parts of them, that it was not trained on and was scored on, each with its box."""

    def to_json(self) -> JSON:
        """Return the fields as JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        size = f"{self.resolution:g} {self.unit}" if self.resolution else "any"
        kind = f"{self.bands} of {self.dtype}" if self.dtype else f"{self.bands}"
        named = f" ({', '.join(self.band_names)})" if self.band_names else ""
        scores = ", ".join(f"{name} {iou:.3f}" for name, iou in self.iou.items())
        objects = ", ".join(f"{name} {f1:.3f}" for name, f1 in self.object_f1.items())
        found = f"; object F1 {objects} (connected pixels, IoU above 0.5)" if objects else ""
        rows = {
            "finds": self.description,
            "pixel size": size,
            "bands": f"{kind}{named}",
            "classes": ", ".join(f"{value} {name}" for value, name in enumerate(self.classes)),
            "licence": self.license,
            "scores": f"IoU {scores}{found}, on images or parts that it was not trained on" if scores else "not known",
        }
        return "\n".join([self.name, *(f"  {name:<11} {text}" for name, text in rows.items())])


def listed_models() -> tuple[ListedModel, ...]:
    """Return the models that come with tilepipe, by name."""
    return tuple(_listed(name) for name in bundled_models())


def _listed(name: str) -> ListedModel:
    card = ModelCard.load(BUNDLED / f"{name}.model" / CARD)
    training = card.training or {}
    scores = training.get("scores", {}).get("model", {})
    return ListedModel(
        name=name,
        description=card.description,
        resolution=card.resolution,
        unit=card.unit,
        bands=card.bands,
        band_names=tuple(card.band_names),
        dtype=card.dtype,
        classes=tuple(card.classes),
        license=card.license,
        iou={label: scores["iou"][label] for label in card.classes if label in scores.get("iou", {})},
        mean_iou=scores.get("mean_iou"),
        object_f1=scores.get("object_f1", {}),
        scored_on=tuple(training.get("scored_images", ())),
    )
