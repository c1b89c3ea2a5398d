"""Models are refused that no tiling can make right: random, stateful, training, batch-dependent, or giving NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from tilepipe.errors import ModelError
from tilepipe.models.model import Model
from tilepipe.models.probe.global_layers import Findings
from tilepipe.models.probe.sample_tiles import made_up_tiles
from tilepipe.models.probe.subject import Subject

CALLS = 4
"""Number of times that the model is called on a tile."""
SIDE = 64
"""Least side in pixels of the tile that a model is tried on if it cannot be measured and its card names no tile."""


def refuse_unsteady(subject: Subject, findings: Findings) -> None:
    """Raise `ModelError` if the same pixels may get a different answer in another call or another batch."""
    if findings.unsteady:
        (layer, function), kind = next(iter(findings.unsteady.items()))
        others = len(findings.unsteady) - 1
        raise ModelError(
            f"{kind} in layer '{layer or function}'{f' and {others} more' if others else ''}: the answer for a tile "
            "depends on chance or on the other tiles of the batch. Call model.eval() first; batch norm needs running "
            "statistics."
        )
    side = subject.quantum
    x, other = subject.noise(side, side), subject.noise(side, side, seed=7)
    answers = [subject(x) for _ in range(CALLS)]
    _refuse_random(answers)
    x, other = (noise.to(subject.dtype) for noise in (x, other))  # in fp32, rounding differs from batch to batch
    try:
        beside = subject(torch.cat((x, other)))
    except Exception as error:  # an unknown model may raise anything
        raise ModelError(f"the model takes one tile but not a batch of two ({type(error).__name__}: {error})") from None
    _refuse_mixed(beside, subject(x))


def refuse_on_tiles(model: Model) -> None:
    """Raise `ModelError` if a model that cannot be measured is unsteady, or gives NaN, on two ordinary tiles.

    A model that does not take these tiles is not judged: it may need tiles of another size.
    """
    card = model.card
    side = -(-(card.tile or SIDE) // card.stride) * card.stride
    x = model.normalise(torch.from_numpy(made_up_tiles(card, 2, (side, side), card.dtype or "uint8")))
    answers = _answers(model, [x[:1]] * CALLS)
    if not answers:
        return
    if not torch.isfinite(answers[0]).all():
        raise ModelError(
            f"{model.name} gives NaN or infinity for an ordinary image; its weights, or mean and std in its card, are "
            "damaged"
        )
    _refuse_random(answers)
    for beside in _answers(model, [x]):
        _refuse_mixed(beside, answers[0])


def _answers(model: Model, batches: list[Tensor]) -> list[Tensor]:
    """Return the model's answers; an empty list if it does not take such batches."""
    try:
        with torch.no_grad():
            return [model.module(batch.clone()) for batch in batches]  # a network may change its input in place
    except Exception:  # an unknown module may raise anything
        return []


def _refuse_random(answers: list[Tensor]) -> None:
    """Raise `ModelError` if the answers for one image differ."""
    again = max(_gap(answer, answers[0]) for answer in answers[1:])
    if again > 0:
        raise ModelError(
            f"the model gives different answers for the same image (by up to {again:.2g} of their spread): something "
            "in it is random or keeps state between calls. Switch it off (model.eval(), fixed seeds) and try again."
        )


def _refuse_mixed(beside: Tensor, alone: Tensor) -> None:
    """Raise `ModelError` if the first tile has another answer in a batch than alone."""
    if _gap(beside[:1], alone) > 1e-4:
        raise ModelError(
            "the model's answer for a tile depends on the other tiles of the batch (batch statistics?). "
            "Call model.eval() first, or export it with running statistics."
        )


def _gap(a: Tensor, b: Tensor) -> float:
    gap = float((a - b).abs().max()) / (float(b.std()) + 1e-30)
    return gap if gap > 1e-6 else 0.0
