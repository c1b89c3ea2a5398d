"""This module defines the certificate of a run: what is known about seams. It is kept as `certificate.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Literal, get_args

from tilepipe.box import Sides
from tilepipe.errors import StorageError
from tilepipe.inference.profile.reproducibility import Reproducibility
from tilepipe.text import JSON, json_of
from tilepipe.tiling.tiling import SMALL, cost_factor

ROUNDING = ", but for rounding"
"""Words added to a promise as long as nothing shows that the device rounds nothing."""
PAGE = "docs/seams.md"
"""Page that explains seams, and what to do about them."""
Mode = Literal["EXACT", "TOLERANCE", "FIELD", "BLEND", "UNCERTIFIED"]


@dataclass(frozen=True, repr=False)
class Certificate:
    """The certificate of a run. With EXACT and FIELD labels do not depend on the tiling; TOLERANCE bounds how much they
    do."""

    mode: Mode
    """Kind of the promise. EXACT: tiles have full context and are aligned. TOLERANCE: they have less, and the error was
    measured. FIELD: global statistics come from a fixed grid. BLEND: tiles overlap and are blended, so seams are hidden
    rather than removed. UNCERTIFIED: the settings are the user's own."""
    stride: int
    """Total stride S: tile origins and sizes are multiples of it."""
    halo: Sides
    """Context on each side of a tile that is computed and thrown away (pixels); for BLEND half of the overlap."""
    tile: int
    """Side of a tile (pixels)."""
    reach: Sides | None = None
    """Measured reach of the model on each side (pixels); None if the reach is unbounded or unknown."""
    tolerance: float = 0.0
    """Largest accepted total variation distance of class probabilities (0 to 1); it is used by TOLERANCE only."""
    error: float | None = None
    """Largest difference of class probabilities to a pass without seams (0 to 1); None if the difference was not
    checked."""
    device: str = "cpu"
    """Device for which `error` was measured."""
    precision: str = "fp32"
    """Precision for which `error` was measured."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of tilepipe, torch, CUDA and cuDNN, and the sha256 of the weights."""
    known: str = "measured"
    """How `reach` is known: 'measured', or a sentence that names the source. If there is no reach, this is the
    reason."""
    whole: bool = False
    """Whether one tile covers the image. Then nothing is cut, and the model's reach does not matter."""
    work: float | None = None
    """Pixels that the model saw per pixel asked for, edges included. If None, the cost of tiles inside the image is
    used."""
    half: float | None = None
    """Value that `work` would have for tiles of this size that overlap by half; None if it is not known."""
    whole_work: float | None = None
    """Value that `work` would have for the whole image with these tiles; None if it is not known."""
    level: Reproducibility | None = None
    """How exactly `device` repeats its results in `precision`; None if this was not measured."""
    statistics: str = ""
    """Source of the statistics, used by FIELD only: 'field' for patches on a fixed grid, 'whole' for the whole
    image."""
    bands: int = 0
    """Rows of a band, if tiles are computed in bands; 0 if each tile is computed at once."""
    agreement: str = ""
    """Sentence about the runtime beside torch; '' if torch computed."""

    def __post_init__(self) -> None:
        """Check that the settings support the mode: an EXACT certificate with too small a halo cannot exist."""
        assert self.mode in get_args(Mode), self.mode
        # A tile that covers the image may have any size, and its halo is 0, so the rules of a cut do not apply to it.
        if self.mode == "EXACT" and not self.whole:
            assert self.reach is not None
            assert all(halo >= reach for halo, reach in zip(self.halo, self.reach, strict=True)), (
                self.halo,
                self.reach,
            )
            assert not any(length % self.stride for length in (self.tile, *self.halo)), self.stride

    def __repr__(self) -> str:
        return f"<Certificate {self.mode}: {self.plain}>"

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(sentence)}</p>" for sentence in (self.plain, *self.sentences))

    @property
    def cost(self) -> float:
        """Return F, the work of the run as a multiple of one pass over the image."""
        return self.work if self.work is not None else cost_factor(self.tile, self.halo)

    @property
    def plain(self) -> str:
        """Return one short sentence for people who only want to know whether labels depend on the tiling."""
        if self.whole and self.statistics != "field":
            return "Labels do not depend on tiling."
        if self.mode in ("EXACT", "FIELD"):
            rounding = "" if self.level and self.level.exact else f"{ROUNDING} in {self.precision}"
            return f"Labels do not depend on tiling{rounding}."
        most = f" by about {self.tolerance:g} in probability" if self.mode == "TOLERANCE" else ""
        return f"Labels may change near tile borders{most}; see {PAGE}."

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return plain sentences: what holds, how it was checked, what that costs and, if measured, how exact the
        device is."""
        checked = "tilepipe verify compares the labels with a pass without seams"
        if self.error is not None:
            where = f"on {self.device} in {self.precision}"
            checked = f"Largest difference to a pass without seams: {self.error:.1e} in probability, {where}"
        work = f"{self.cost:.2f} times the work of one pass" if math.isfinite(self.cost) else "no tile has a core"
        promise = self._promise()
        level = (self.level.sentence,) if self.level else ()
        if not self.level and ROUNDING in promise:
            level = (f"tilepipe verify measures how {self.device} rounds in {self.precision}.",)
        if self.whole_work is not None and self.cost > SMALL * self.whole_work:
            work = (
                f"{self.whole_work:.2f} times the work of one pass over the whole image, {self.cost:.3g} times over "
                "this small region, beyond which its tiles reach"
            )
        elif self.half is not None and self.cost > self.half:
            work += f", more than the {self.half:.2f} of tiles that overlap by half"
        return promise, f"{checked}; {work}.", *level, *([self.agreement] if self.agreement else [])

    def _promise(self) -> str:
        tiles = f"columns of {self.tile} px, computed in bands of {self.bands} rows," if self.bands else ""
        tiles = tiles or f"tiles of {self.tile} px"
        how = f"{tiles} on multiples of {self.stride} px, {max(self.halo)} px of context"
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
        """Parse the text that `to_json` wrote; an error calls it `name`. Raises `StorageError`."""
        try:
            fields: JSON = json_of(text)
            # Both are computed from the other fields; a kept sentence could contradict them.
            fields.pop("cost"), fields.pop("sentences")
            for side in ("reach", "halo"):
                fields[side] = None if fields[side] is None else Sides(**fields[side])
            fields["level"] = Reproducibility(**fields["level"]) if fields.get("level") else None
            return cls(**fields)
        # The checks of `__post_init__` are assertions. If a damaged file breaks them, that is no bug of ours.
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
            raise StorageError(f"{name} does not hold a certificate; run tilepipe verify again to make one") from None
