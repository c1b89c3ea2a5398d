"""Reach of a model as a plan uses it: what its card says or, where that says nothing, what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilepipe.errors import TilepipeError
from tilepipe.models.card import ModelCard
from tilepipe.probe import Probe, Sides
from tilepipe.probe.result import ProbeError

if TYPE_CHECKING:
    from tilepipe.models.model import Model

NAMED = 3
"""Global layers that a sentence names."""


@dataclass(frozen=True)
class Reach:
    """How far an input pixel can influence an output pixel, and how that is known."""

    sides: Sides | None = None
    """Pixels per side; None where it is unknown or not bounded."""
    known: str = "the model's card does not say how far it sees"
    """'card' or 'measured'; where `sides` is None, why, in words."""
    tolerance: float = 0.0
    """Difference in probability that the run's context was chosen for, on windows of the image; 0 where it was not."""
    frozen: str = ""
    """Global layers, in words, whose statistics must be held fixed for `sides` to hold; '' for a local model."""


def reach_of_card(card: ModelCard) -> Reach:
    """Return the reach that a card claims."""
    return Reach() if card.halo is None else Reach(Sides(*4 * (card.halo,)), "card")


def look(model: Model, *, measure: bool) -> tuple[ModelCard, Reach]:
    """Return the model's card with stride and halo filled in, and its reach.

    A certificate beside the network counts most. Without one, a card with a halo is believed. Without either, or where
    the certificate is damaged or of other weights, the model is probed, if `measure` asks for it: seconds on a CPU,
    once for the same weights. Raises `ModelError` for a model that no tiling can make right: random, stateful,
    dependent on the other tiles of a batch. One that cannot be measured has no reach.
    """
    from tilepipe.probe.certified import certified

    card = model.card
    found: Probe | str | None = certified(model)
    believed = not measure or (card.halo is not None and model.certificate is None)
    if found is None and believed:
        return card, reach_of_card(card)
    found = found or _probed(model)
    if isinstance(found, str):
        return card, reach_of_card(card) if card.halo is not None else Reach(None, found)
    stride = found.stride or card.stride
    halo = max(found.halo) if found.halo else None
    return card.model_copy(update={"stride": stride, "halo": halo}), reach_of_probe(found)


def _probed(model: Model) -> Probe | str:
    """Return the model's probe, or why there is none."""
    from tilepipe.probe.run import probe_once

    try:
        return probe_once(model.module, model.card.bands, model.card.stride)
    except ProbeError as problem:
        return f"how far the model sees cannot be measured: {problem}"
    except TilepipeError:
        raise
    except Exception as problem:  # whatever a stranger's module raises for the odd input of a probe
        return f"how far the model sees cannot be measured: {type(problem).__name__} in the model"


def reach_of_probe(found: Probe) -> Reach:
    """Return the measured reach, or the global layers by name."""
    if found.reach is not None:
        return Reach(found.reach, "measured")
    layers = named_layers(found)
    if not layers:
        return Reach(None, " ".join(found.notes) or "the model sees the whole image")
    return Reach(None, f"{layers} mix the whole of a tile")


def named_layers(found: Probe) -> str:
    """Return the global layers in words, the first few by name."""
    layers = [f"{kind} ({layer or 'outside a named layer'})" for layer, kind in found.global_layers]
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return f"{', '.join(layers[:NAMED])}{more}"
