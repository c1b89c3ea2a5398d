"""Reproducibility: how exactly a device keeps the promises about labels, in one precision.

`measure_reproducibility` measures it; this knows no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from tilepipe.errors import StorageError
from tilepipe.text import json_of


@dataclass(frozen=True)
class Reproducibility:
    """What was measured on a few tiles of one model, tile shape and batch size. Distances are total variation, 0 to 1.

    On a device that is neither repeatable nor independent a resumed run may differ from one that was not interrupted.
    """

    device: str
    """The GPU's name, or 'cpu'."""
    precision: str
    """'fp64', 'fp32', 'tf32', 'bf16' or 'fp16'."""
    repeatable: bool
    """Whether a tile that is computed again gives the same logits, bit for bit."""
    independent: bool
    """Whether it does so in another place of the batch and beside other tiles: a region is the crop of the full run."""
    gap: float | None = None
    """Largest distance of probabilities between a tile with full context and a larger pass; None if it has none."""
    flips: float | None = None
    """Share of labels that differ between these, 0 to 1."""
    rounding: float | None = None
    """Largest distance to fp32 on the same device; None for fp32."""
    rounded: float | None = None
    """Share of labels that differ from those of fp32, 0 to 1."""

    @property
    def exact(self) -> bool:
        """Whether tiles, batches and larger passes all gave the same bits."""
        return self.repeatable and self.independent and self.gap == 0

    @property
    def sentence(self) -> str:
        """Return what was measured in one plain sentence."""
        again = "the same to the bit" if self.repeatable else "not the same"
        beside = "the same" if self.independent else "not the same"
        parts = [f"a tile computed again is {again}, beside other tiles {beside}"]
        if self.gap is not None:
            parts.append(f"a larger pass differs by {_amount(self.gap, self.flips)}")
        if self.rounding is not None:
            parts.append(f"fp32 differs by {_amount(self.rounding, self.rounded)}")
        return f"Measured on {self.device} in {self.precision}: {'; '.join(parts)}."

    def to_json(self) -> str:
        """Return the level as JSON text."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Reproducibility:
        """Parse `to_json`'s text. Raises `StorageError`."""
        try:
            return cls(**json_of(text))
        except (ValueError, TypeError):
            raise StorageError("a level that was kept cannot be read; it is measured again") from None


def _amount(distance: float, share: float | None) -> str:
    if distance == 0:
        return "nothing"
    return f"at most {distance:.1e} in probability and {share or 0:.1e} of the labels"
