"""Models that no tiling can make right: random, stateful, in training mode, or dependent on the rest of the batch."""

from __future__ import annotations

import torch

from tilepipe.errors import ModelError
from tilepipe.probe.subject import Subject
from tilepipe.probe.watch import Findings


def refuse_unsteady(subject: Subject, findings: Findings) -> None:
    """Raise `ModelError` where the same pixels may get another answer in another call or another batch."""
    if findings.unsteady:
        (layer, function), kind = next(iter(findings.unsteady.items()))
        others = len(findings.unsteady) - 1
        raise ModelError(
            f"{kind} in layer '{layer or function}'{f' and {others} more' if others else ''}: the answer for a tile "
            "depends on chance or on the other tiles of the batch. Call model.eval() first; batch norm needs running "
            "statistics."
        )
    side = subject.quantum
    x, other = subject.window(side, side), subject.window(side, side, seed=7)
    y = subject(x)
    again = max(_gap(subject(x), y) for _ in range(3))
    if again > 0:
        raise ModelError(
            f"the model gives different answers for the same image (by up to {again:.2g} of their spread): something "
            "in it is random or keeps state between calls. Switch it off (model.eval(), fixed seeds) and try again."
        )
    try:
        beside = subject(torch.cat((x, other)))[:1]
    except Exception as error:  # whatever a stranger's model raises
        raise ModelError(f"the model takes one tile but not a batch of two ({type(error).__name__}: {error})") from None
    if _gap(beside, y) > 1e-4:
        raise ModelError(
            "the model's answer for a tile depends on the other tiles of the batch (batch statistics?). "
            "Call model.eval() first, or export it with running statistics."
        )


def _gap(a: torch.Tensor, b: torch.Tensor) -> float:
    gap = float((a - b).abs().max()) / (float(b.std()) + 1e-30)
    return gap if gap > 1e-6 else 0.0
