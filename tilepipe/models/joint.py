"""Joint: several networks that answer together, and the model that they are: an ensemble.

Each network scales tiles by its own mean and deviation, so an ensemble takes pixels as they are in the image. The
networks stand in the order of their identities, and their probabilities are added exactly (`average`): an ensemble is
the same in whatever order its members are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.average import Mean, averaged
from tilepipe.models.card import ModelCard
from tilepipe.models.identity import identify
from tilepipe.models.model import Model
from tilepipe.models.scaled import normalised
from tilepipe.models.wrapper import Wrapper


class Scaled(Wrapper):
    """Maps pixels (B, bands, H, W) to the answers of a network, which sees (x - mean) / std."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Keep the network, and mean and deviation of each band; an empty mean stands for 0, an empty std for 1."""
        super().__init__(network)
        self.mean, self.std = mean, std

    def answers(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the logits of each answer."""
        scaled = normalised(x, self.mean, self.std, x.dtype)
        if isinstance(self.network, Mean):
            yield from self.network.answers(scaled)
        else:
            yield self.network(scaled)


class Joint(Mean):
    """Maps pixels (B, bands, H, W) to the logarithm of the mean probabilities of several networks."""

    def __init__(self, networks: Sequence[Scaled]) -> None:
        """Keep the networks."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.opaque = any(network.opaque for network in networks)
        self.single = next((network.single for network in networks if network.single), "")

    def answers(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the logits of each answer of each network."""
        for network in self.networks:
            assert isinstance(network, Scaled)
            yield from network.answers(x)


@dataclass(frozen=True, eq=False)
class Ensemble(Model):
    """Several models whose probabilities are averaged. Its `normalise` leaves pixels as they are."""

    def normalise(self, tiles: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return the tiles as `dtype`, by default float32; each network scales them by itself."""
        return normalised(tiles, (), (), dtype)


def ensemble(models: Sequence[Model], tta: str = "none") -> Model:
    """Return the model that averages the probabilities of `models`, each over the positions `tta`.

    Raises `ModelError` if one of them is given twice or gives labels, and if bands, classes, pixel type or resolution
    differ.
    """
    if len(models) == 1 and models[0].members:
        models = models[0].members
    if len(models) == 1:
        return averaged(models[0], tta)
    known = {identify(model, "cpu", "fp32").key: model for model in models}
    if len(known) < len(models):
        raise ModelError(
            f"{_names(models)}: a model is given twice, and would count twice in the mean; name each model once"
        )
    ordered = tuple(averaged(known[key], tta) for key in sorted(known))
    for other in models[1:]:
        _refuse_unlike(models[0], other)
    for model in models:
        if model.card.output == "labels":
            raise ModelError(f"{model.name} gives labels and no probabilities, so it cannot be averaged with others")
    module = Joint([Scaled(model.module, model.card.mean, model.card.std) for model in ordered])
    return Ensemble(_card(ordered), module.eval(), _names(models), None, ordered)


def _names(models: Sequence[Model]) -> str:
    return " + ".join(sorted(model.name for model in models))


def _refuse_unlike(one: Model, other: Model) -> None:
    """Raise `ModelError` if the probabilities of two models are not of the same classes of the same pixels."""
    a, b = one.card, other.card
    both = f"{one.name} and {other.name} cannot be averaged"
    if a.classes != b.classes:
        raise ModelError(
            f"{both}: their classes are {list(a.classes)} and {list(b.classes)}; names and order must agree"
        )
    if a.bands != b.bands:
        raise ModelError(f"{both}: they read {a.bands} and {b.bands} bands")
    if a.band_names and b.band_names and [*map(str.lower, a.band_names)] != [*map(str.lower, b.band_names)]:
        raise ModelError(f"{both}: they read the bands {list(a.band_names)} and {list(b.band_names)}")
    if (a.resolution, a.unit if a.resolution else "") != (b.resolution, b.unit if b.resolution else ""):
        sizes = [f"{card.resolution:g} {card.unit}/px" if card.resolution else "any pixel size" for card in (a, b)]
        raise ModelError(
            f"{both}: they work at {sizes[0]} and {sizes[1]}, and one image has one grid for all; train them at one "
            "resolution, or state it in both cards"
        )
    if a.dtype and b.dtype and a.dtype != b.dtype:
        raise ModelError(f"{both}: they were trained on {a.dtype} and {b.dtype}, and no image has both types")


def _card(models: Sequence[Model]) -> ModelCard:
    """Return the card of an ensemble; `mean` fills pixels without image data and is that of all members."""
    cards = [model.card for model in models]
    first, stride = cards[0], math.lcm(*(card.stride for card in cards))
    halos = [card.halo for card in cards]
    reach = None if None in halos else max(halo for halo in halos if halo is not None)
    return ModelCard(
        name=" + ".join(sorted(card.name for card in cards)),
        bands=first.bands,
        band_names=next((card.band_names for card in cards if card.band_names), ()),
        classes=first.classes,
        colors=next((card.colors for card in cards if card.colors), ()),
        mean=_mean([card.mean or (0.0,) * card.bands for card in cards]) if any(card.mean for card in cards) else (),
        std=_mean([card.std or (1.0,) * card.bands for card in cards]) if any(card.std for card in cards) else (),
        dtype=next((card.dtype for card in cards if card.dtype), None),
        resolution=first.resolution,
        unit=first.unit,
        stride=stride,
        halo=None if reach is None else -(-reach // stride) * stride,
        tile=max((card.tile for card in cards if card.tile), default=None),
    )


def _mean(values: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    # `fsum` does not round on the way, so the order of models does not matter.
    return tuple(math.fsum(column) / len(values) for column in zip(*values, strict=True))
