"""This module measures a model's reach for the plan; the card's word counts only if nothing can be measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
"""Largest number of global layers that a sentence names."""
MEASURED = "measured"


@dataclass(frozen=True)
class Reach:
    """How far an input pixel can influence an output pixel, and how that is known."""

    sides: Sides | None = None
    """Reach on each side (pixels); None if it is unknown or unbounded."""
    known: str = "the model's card does not say how far it sees"
    """How the reach is known: 'measured', or a sentence that says who states it and why it was not measured. If `sides`
    is None, this is the reason."""
    tolerance: float = 0.0
    """Difference in probability (0 to 1) that the run's context was chosen for, on patches of the image; 0 if the
    context was not chosen so."""
    frozen: str = ""
    """Names of global layers whose statistics must be fixed for `sides` to hold; '' for a local model."""

    @property
    def measured(self) -> bool:
        """Whether `sides` was measured; a promise needs a measured reach."""
        return self.sides is not None and self.known == MEASURED


Known = tuple[ModelCard, Reach]
"""A model's card with the stride and halo that are used, and the model's reach."""


def reach_of_card(card: ModelCard, why: str = "") -> Reach:
    """Return the reach that a card states, or an unknown reach; `why` says why the reach was not measured."""
    if card.halo is None:
        return Reach(None, f"how far the model sees cannot be measured: {why}") if why else Reach()
    reason = f" ({why})" if why else ""
    return Reach(Sides(*4 * (card.halo,)), f"as far as the model's card says that it sees, not measured{reason}")


def measure_receptive_field(model: Model, listener: Listener = silent) -> Known:
    """Return the model's card with stride and halo as measured, and its reach.

    Both come from the certificate beside the network if that belongs to these weights, else from a probe. A probe takes
    seconds on a CPU, once for the same weights, and `listener` is told. If the card states more context than the model
    needs, the needed context is used. If nothing can be measured, the card's word stays, and the reach says so.

    Raises `ModelError` if the card contradicts the measurement, or if no tiling can make the model right: it is random,
    has state, depends on the other tiles of a batch, or gives NaN.
    """
    card = model.card
    if model.members:
        return _of_all(model, [measure_receptive_field(member, listener) for member in model.members])
    found = _probed(model, listener)
    if isinstance(found, str):
        return card, reach_of_card(card, found)
    # Halo 0 and stride 1 are the defaults, so a card that does not state them is not wrong.
    stated = card.halo is not None or card.stride > 1
    wrong = contradictions(card, found) if stated else ()
    if wrong and "weights" in found.evidence:
        # This import opens torch, which a plan with a bundled model does without.
        from tilepipe.models.probe.procedure import probe_of_weights

        # What the layers do for some weights is more than these weights may do, and a card speaks of these.
        found = probe_of_weights(model.module, card.bands, card.stride, listener)
        wrong = contradictions(card, found)
    if wrong:
        raise ModelError(f"{model.name}: {wrong[0]}; {_remedy(model, found)}")
    stride = found.stride or card.stride
    if found.reach is None and card.halo is not None:
        return card.model_copy(update={"stride": stride}), reach_of_card(card, " ".join(found.notes))
    # Tiles have the same overlap on all sides, so the side with the largest reach decides.
    halo = max(found.halo) if found.halo else None
    return card.model_copy(update={"stride": stride, "halo": halo}), reach_of_probe(found)


def _of_all(model: Model, known: Sequence[Known]) -> Known:
    """Return card and reach of an ensemble: the largest reach on each side, and a stride that suits all members."""
    stride, halos = math.lcm(*(card.stride for card, _ in known)), [card.halo for card, _ in known]
    reaches = [reach.sides for _, reach in known]
    halo = None if None in halos else -(-max(halo or 0 for halo in halos) // stride) * stride
    card = model.card.model_copy(update={"stride": stride, "halo": halo})
    # The reach of a mean is measured only if that of each member is.
    unsure = [
        f"{name}: {reach.known}" for name, (_, reach) in zip(model.names, known, strict=True) if not reach.measured
    ]
    sides = None if None in reaches else Sides(*map(max, zip(*filter(None, reaches), strict=True)))
    return card, Reach(sides, unsure[0] if unsure else MEASURED)


def _probed(model: Model, listener: Listener) -> Probe | str:
    """Return the model's probe, or the reason why there is none."""
    from tilepipe.models.probe.certificate_file import known_probe

    try:
        return known_probe(model, listener)
    except ProbeError as problem:
        why = str(problem)
    # A model that is refused (it is random or keeps state) must not get its card's word instead.
    except TilepipeError:
        raise
    except Exception as problem:  # a foreign module may raise anything for the unusual input of a probe
        why = f"{type(problem).__name__} in the model"
    from tilepipe.models.probe.steadiness import refuse_on_tiles

    # A model that cannot be measured can still be random or keep state, and then no tiling makes it right.
    refuse_on_tiles(model)
    return why


def contradictions(card: ModelCard, found: Probe) -> tuple[str, ...]:
    """Return sentences, one for each statement of a card about seams that the measurement contradicts."""
    problems = []
    # A multiple of the measured stride keeps the phase of every pooling as well, so it is no contradiction.
    if found.stride is not None and card.stride % found.stride:
        problems.append(
            f"the card says stride {card.stride}, measured is {found.stride}: a tile's place in the image would change "
            "its labels"
        )
    # If a model sees too far for the probe to reach the end, at least the part that was measured can contradict the
    # card.
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
    """Return a sentence that says which values are right and how they get into the card."""
    halo = max(found.halo) if found.halo else "null"
    right = f"right are stride {found.stride or model.card.stride} and halo {halo}"
    if Path(model.name).exists():
        return f"{right}, which `tilepipe model check {model.name} --write` writes into the card"
    return f"{right}: correct the card (`tilepipe model check` measures them)"


def reach_of_probe(found: Probe) -> Reach:
    """Return the measured reach, or an unbounded reach that names the global layers."""
    if found.reach is not None:
        return Reach(found.reach, MEASURED)
    layers = named_layers(found)
    if not layers:
        return Reach(None, " ".join(found.notes) or "the model sees the whole image")
    return Reach(None, f"{layers} mix the whole of a tile")


def named_layers(found: Probe) -> str:
    """Return a sentence part with the names of the first few global layers."""
    layers = [f"{kind} ({layer or 'outside a named layer'})" for layer, kind in found.global_layers]
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return f"{', '.join(layers[:NAMED])}{more}"
