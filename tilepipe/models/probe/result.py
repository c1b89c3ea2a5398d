"""Results of a probe: frozen values that are written as JSON and read again. This module imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from tilepipe.box import Sides
from tilepipe.errors import ModelError, StorageError
from tilepipe.text import JSON, json_of


class ProbeError(ModelError):
    """The model takes none of the inputs that measuring needs, so the probe says nothing about it."""


@dataclass(frozen=True)
class Probe:
    """The measurement of a model: with how much context, if any, a tile gives the same as the whole image."""

    stride: int | None
    """Total stride S in pixels: f(shift(x, S)) = shift(f(x), S) away from borders. None if no shift up to 384 px has
    this property."""
    reach: Sides | None
    """Distance over which an input pixel can influence an output pixel, in pixels per side. None if the distance is not
    bounded, or if `stride` is None."""
    global_layers: tuple[tuple[str, str], ...] = ()
    """(layer, kind) of every operation that makes the model global, e.g. ('enc2.norm', 'instance norm').
    The layer is '' for code outside a named module. Empty for a local model."""
    frozen_reach: Sides | None = None
    """Reach with the statistics of the global layers held fixed, in pixels per side. None for a local model, and if the
    statistics cannot be held fixed."""
    notes: tuple[str, ...] = ()
    """Sentences for people: a wrong stride in the card, an operation that swallows NaN, what stopped the search."""
    seconds: float = 0.0
    """Time that the probe took, in seconds."""
    evidence: JSON = field(default_factory=dict)
    """Details of the measurement: precision, input sizes, draws; JSON types only."""

    @property
    def local(self) -> bool:
        """Whether tiles aligned to `stride` with `halo` pixels of real context equal the whole image."""
        return self.reach is not None

    @property
    def halo(self) -> Sides | None:
        """Return `reach` rounded up to multiples of `stride`; None for a global model."""
        return None if self.reach is None or self.stride is None else self.reach.up_to(self.stride)

    @property
    def frozen_halo(self) -> Sides | None:
        """Return `frozen_reach` rounded up to multiples of `stride`; None if there is no `frozen_reach`."""
        return None if self.frozen_reach is None or self.stride is None else self.frozen_reach.up_to(self.stride)

    def on_all_sides(self) -> Probe:
        """Return the probe of the average over the eight positions of a tile: each side gets the largest reach.

        A turn or a mirror exchanges the sides of a tile and changes no distance. Tiles begin and end at multiples of
        the stride, so a turned tile is aligned as the whole turned image is.
        """
        reach, frozen = (sides and Sides(*4 * (max(sides),)) for sides in (self.reach, self.frozen_reach))
        return replace(self, reach=reach, frozen_reach=frozen)

    def __str__(self) -> str:
        """Return one or two plain sentences."""
        if self.reach is not None:
            top, bottom, left, right = self.reach
            return f"Local: total stride {self.stride}, reach {top} px up, {bottom} down, {left} left, {right} right."
        named = ", ".join(f"{kind} ({layer or 'outside a named layer'})" for layer, kind in self.global_layers[:4])
        more = len(self.global_layers) - 4
        return f"Global: {named or 'no layer could be named'}{f' and {more} more' if more > 0 else ''}."

    def to_json(self) -> str:
        """Return the probe as JSON text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "probe") -> Probe:
        """Parse the text of `to_json`; errors call it `name`. Raises `StorageError` if the text is no probe."""
        try:
            fields = json_of(text)
            for side in ("reach", "frozen_reach"):
                fields[side] = None if fields[side] is None else Sides(**fields[side])
            fields["global_layers"] = tuple((layer, kind) for layer, kind in fields["global_layers"])
            fields["notes"] = tuple(fields["notes"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"{name} does not hold a probe; delete it to measure again") from None
