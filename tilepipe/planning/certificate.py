"""Certificate: what is known about seams for a model and the settings of a run; `certificate.json`. Knows no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from tilepipe.box import Sides
from tilepipe.errors import StorageError
from tilepipe.inference.profile.reproducibility import Reproducibility
from tilepipe.text import JSON, json_of
from tilepipe.tiling.tiling import SMALL, cost_factor

ROUNDING = ", but for rounding"
"""What is said of a promise as long as nothing shows that the device rounds nothing."""
Mode = Literal["EXACT", "TOLERANCE", "FIELD", "BLEND", "UNCERTIFIED"]


@dataclass(frozen=True)
class Certificate:
    """What was measured about seams. EXACT and FIELD do not depend on the tiling; TOLERANCE bounds how much they do."""

    mode: Mode
    """EXACT: full context, aligned. TOLERANCE: less, error measured. FIELD: global statistics from a fixed grid.
    BLEND: overlapping windows, seams hidden rather than removed. UNCERTIFIED: the user's own settings."""
    stride: int
    """Total stride S: tile origins and sizes are multiples of it."""
    halo: Sides
    """Context that is computed and thrown away, in pixels per side; for BLEND half of the overlap."""
    tile: int
    """Side of a tile in pixels."""
    reach: Sides | None = None
    """Measured reach in pixels per side; None if it is unbounded or unknown."""
    tolerance: float = 0.0
    """Largest total variation distance of class probabilities that was asked for, 0 to 1; TOLERANCE only."""
    error: float | None = None
    """Largest difference of class probabilities to a pass without seams, 0 to 1; None if it was not checked."""
    device: str = "cpu"
    """Device that `error` holds for."""
    precision: str = "fp32"
    """Arithmetic that `error` holds for."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """tilepipe, torch, CUDA, cuDNN, weights sha256."""
    known: str = "measured"
    """How `reach` is known: 'measured', or in words who says so; if there is no reach, the reason."""
    whole: bool = False
    """Whether one tile covers the image, so that nothing is cut and the model's reach does not matter."""
    work: float | None = None
    """Pixels that the model saw per pixel asked for, edges and all; None: that of tiles inside the image."""
    half: float | None = None
    """What `work` would have been for tiles of this size that overlap by half; None if it is not known."""
    whole_work: float | None = None
    """What `work` would have been for the whole image with these tiles; None if it is not known."""
    level: Reproducibility | None = None
    """How exactly `device` keeps promises in `precision`; None if it was not measured."""
    statistics: str = ""
    """FIELD only: 'field' for statistics from patches on a fixed grid, 'whole' for those of the whole image."""

    def __post_init__(self) -> None:
        """Check that the settings support the mode: an EXACT certificate with too small a halo cannot exist."""
        assert self.mode in get_args(Mode), self.mode
        if self.mode == "EXACT" and not self.whole:
            assert self.reach is not None
            assert all(halo >= reach for halo, reach in zip(self.halo, self.reach, strict=True)), (
                self.halo,
                self.reach,
            )
            assert not any(length % self.stride for length in (self.tile, *self.halo)), self.stride

    @property
    def cost(self) -> float:
        """Return F, the work of the run over that of one pass over the image."""
        return self.work if self.work is not None else cost_factor(self.tile, self.halo)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return plain sentences: what holds, how it was checked at what cost and, if measured, the device's level."""
        checked = "Not checked against a pass without seams yet (tilepipe verify does)"
        if self.error is not None:
            where = f"on {self.device} in {self.precision}"
            checked = f"Largest difference to a pass without seams: {self.error:.1e} in probability, {where}"
        work = f"{self.cost:.2f} times the work of one pass" if math.isfinite(self.cost) else "no tile has a core"
        promise = self._promise()
        level = (self.level.sentence,) if self.level else ()
        if not self.level and ROUNDING in promise:
            level = (f"How {self.device} rounds in {self.precision} is not measured yet (tilepipe verify does).",)
        if self.whole_work is not None and self.cost > SMALL * self.whole_work:
            work = (
                f"{self.whole_work:.2f} times the work of one pass over the whole image, {self.cost:.3g} times over "
                "this small region, beyond which its tiles reach"
            )
        elif self.half is not None and self.cost > self.half:
            work += f", more than the {self.half:.2f} of tiles that overlap by half"
        return promise, f"{checked}; {work}.", *level

    def _promise(self) -> str:
        how = f"tiles of {self.tile} px on multiples of {self.stride} px, {max(self.halo)} px of context"
        rounding = "" if self.level and self.level.exact else ROUNDING
        source = "are those of the whole image" if self.statistics == "whole" else "come from a grid fixed to the image"
        beyond = "less than the model sees" if self.reach and self.known == "measured" else self.known
        if self.whole and self.statistics != "field":
            return "The labels do not depend on how the image was cut: one tile covers it."
        return {
            "EXACT": f"The labels do not depend on how the image was cut{rounding}: {how}; as far as the model sees.",
            "TOLERANCE": f"Cutting the image changes probabilities by at most about {self.tolerance:g}, as measured on "
            f"patches of it: {how}, less than the model sees.",
            "FIELD": f"The labels do not depend on how the image was cut{rounding}: {how}, and the model's image-wide "
            f"statistics {source}.",
            "BLEND": f"The labels depend on how the image was cut (uncertified): {how}, blended; {beyond}.",
            "UNCERTIFIED": f"The labels may depend on how the image was cut (uncertified): {how}; {beyond}.",
        }[self.mode]

    def to_json(self) -> str:
        """Return the text of `certificate.json`, with the cost factor F and the sentences."""
        cost = self.cost if math.isfinite(self.cost) else None
        return json.dumps({**asdict(self), "cost": cost, "sentences": self.sentences}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "certificate.json") -> Certificate:
        """Parse `to_json`'s text; `name` is what an error calls it. Raises `StorageError`."""
        try:
            fields: JSON = json_of(text)
            fields.pop("cost"), fields.pop("sentences")
            for side in ("reach", "halo"):
                fields[side] = None if fields[side] is None else Sides(**fields[side])
            fields["level"] = Reproducibility(**fields["level"]) if fields.get("level") else None
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
            raise StorageError(f"{name} does not hold a certificate; run tilepipe verify again to make one") from None
