"""Reach of a model as a plan uses it: measured; its card's word counts only where nothing can be measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.box import Sides
from tilepipe.errors import ModelError, TilepipeError
from tilepipe.events import Listener, silent
from tilepipe.models.card import ModelCard
from tilepipe.models.probe.result import Probe, ProbeError

if TYPE_CHECKING:
    from tilepipe.models.model import Model

NAMED = 3
"""Global layers that a sentence names."""
MEASURED = "measured"


@dataclass(frozen=True)
class Reach:
    """How far an input pixel can influence an output pixel, and how that is known."""

    sides: Sides | None = None
    """Pixels per side; None if it is unknown or not bounded."""
    known: str = "the model's card does not say how far it sees"
    """'measured', or in words: who says so and why it was not measured; where `sides` is None, why."""
    tolerance: float = 0.0
    """Difference in probability that the run's context was chosen for, on patches of the image; 0 if it was not."""
    frozen: str = ""
    """Global layers, in words, whose statistics must be held fixed for `sides` to hold; '' for a local model."""

    @property
    def measured(self) -> bool:
        """Whether `sides` was measured; a promise needs that."""
        return self.sides is not None and self.known == MEASURED


Known = tuple[ModelCard, Reach]
"""A model's card with stride and halo as they are used, and its reach."""


def reach_of_card(card: ModelCard, why: str = "") -> Reach:
    """Return the reach that a card states, or that it states none; `why` says why it was not measured."""
    if card.halo is None:
        return Reach(None, f"how far the model sees cannot be measured: {why}") if why else Reach()
    reason = f" ({why})" if why else ""
    return Reach(Sides(*4 * (card.halo,)), f"as far as the model's card says that it sees, not measured{reason}")


def measure_receptive_field(model: Model, listener: Listener = silent) -> Known:
    """Return the model's card with stride and halo as measured, and its reach.

    They come from the certificate beside the network, where it is of these weights, else from a probe: seconds on a
    CPU, once for the same weights (`listener` hears of it). Raises `ModelError` for a card that contradicts them, and
    for a model that no tiling can make right: random, stateful, dependent on the other tiles of a batch, or giving NaN.
    A card that states more context than the model needs is not wrong; what is needed is used. Where nothing can be
    measured the card's word stays, and the reach says so.
    """
    card = model.card
    found = _probed(model, listener)
    if isinstance(found, str):
        return card, reach_of_card(card, found)
    # No halo and stride 1 are the defaults: a card that says nothing is not wrong.
    wrong = contradictions(card, found) if card.halo is not None or card.stride > 1 else ()
    if wrong:
        raise ModelError(f"{model.name}: {wrong[0]}; {_remedy(model, found)}")
    stride = found.stride or card.stride
    if found.reach is None and card.halo is not None:
        return card.model_copy(update={"stride": stride}), reach_of_card(card, " ".join(found.notes))
    # Tiles have one overlap for all sides, so the side that sees farthest decides.
    halo = max(found.halo) if found.halo else None
    return card.model_copy(update={"stride": stride, "halo": halo}), reach_of_probe(found)


def _probed(model: Model, listener: Listener) -> Probe | str:
    """Return the model's probe, or why there is none."""
    from tilepipe.models.probe.certificate_file import known_probe

    try:
        return known_probe(model, listener)
    except ProbeError as problem:
        why = str(problem)
    except TilepipeError:
        raise
    except Exception as problem:  # whatever a stranger's module raises for the odd input of a probe
        why = f"{type(problem).__name__} in the model"
    from tilepipe.models.probe.steadiness import refuse_on_tiles

    # What cannot be measured can still be random or keep state, which no tiling makes right.
    refuse_on_tiles(model)
    return why


def contradictions(card: ModelCard, found: Probe) -> tuple[str, ...]:
    """Return in sentences where a card says other things about seams than what was measured."""
    problems = []
    if found.stride is not None and card.stride % found.stride:
        problems.append(
            f"the card says stride {card.stride}, measured is {found.stride}: a tile's place in the image would change "
            "its labels"
        )
    least = found.evidence.get("at_least") if found.reach is None else max(found.reach)
    if card.halo is not None and least is not None and card.halo < least:
        problems.append(
            f"the card says halo {card.halo}, measured reach is {'' if found.reach else 'at least '}{least}: "
            "labels near tile borders would depend on the tiling"
        )
    if card.halo is not None and least is None:
        layers = named_layers(found)
        problems.append(
            f"the card says halo {card.halo}, but no halo is enough for a model that is not local"
            f"{f': {layers} mix the whole of a tile' if layers else ''}"
        )
    return tuple(problems)


def _remedy(model: Model, found: Probe) -> str:
    """Say which values are right and how they get into the card."""
    halo = max(found.halo) if found.halo else "null"
    right = f"right are stride {found.stride or model.card.stride} and halo {halo}"
    if Path(model.name).exists():
        return f"{right}, which `tilepipe model check {model.name} --write` writes into the card"
    return f"{right}: correct the card (`tilepipe model check` measures them)"


def reach_of_probe(found: Probe) -> Reach:
    """Return the measured reach, or the global layers by name."""
    if found.reach is not None:
        return Reach(found.reach, MEASURED)
    layers = named_layers(found)
    if not layers:
        return Reach(None, " ".join(found.notes) or "the model sees the whole image")
    return Reach(None, f"{layers} mix the whole of a tile")


def named_layers(found: Probe) -> str:
    """Return the global layers in words, the first few by name."""
    layers = [f"{kind} ({layer or 'outside a named layer'})" for layer, kind in found.global_layers]
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return f"{', '.join(layers[:NAMED])}{more}"
