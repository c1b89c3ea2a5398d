"""Reproducibility: states how exactly a device keeps the promises about labels, in one precision.

`measure_reproducibility` measures it; this module does not import torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from tilepipe.errors import StorageError
from tilepipe.text import json_of


@dataclass(frozen=True)
class Reproducibility:
    """Results measured on a few tiles of one model, tile shape and batch size; distances are total variation, 0 to 1.

    On a device that is neither repeatable nor independent, a resumed run may differ from an uninterrupted run.
    """

    device: str
    """Name of the GPU, or 'cpu'."""
    precision: str
    """Precision: 'fp64', 'fp32', 'tf32', 'bf16' or 'fp16'."""
    repeatable: bool
    """Whether a tile that is computed again gives the same logits, bit for bit."""
    independent: bool
    """Whether a tile gives the same logits in another place of the batch and beside other tiles.

    If so, the labels of a region are a crop of the labels of the full run.
    """
    gap: float | None = None
    """Largest distance of probabilities between a tile and a larger pass; None if no tile has full context."""
    flips: float | None = None
    """Share of labels that differ between the tile and the larger pass, 0 to 1."""
    rounding: float | None = None
    """Largest distance of probabilities to fp32 on the same device; None for fp32."""
    rounded: float | None = None
    """Share of labels that differ from the labels of fp32, 0 to 1."""

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
        """Return the results as JSON text."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Reproducibility:
        """Return the results from the text of `to_json`. Raises `StorageError` if the text cannot be read."""
        try:
            return cls(**json_of(text))
        except (ValueError, TypeError):
            raise StorageError("a level that was kept cannot be read; it is measured again") from None


def _amount(distance: float, share: float | None) -> str:
    if distance == 0:
        return "nothing"
    return f"at most {distance:.1e} in probability and {share or 0:.1e} of the labels"
