"""This module finds the pixel size for a model's card: that of its images if they agree, else none."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tilepipe.errors import InputError
from tilepipe.training.config import TrainConfig
from tilepipe.training.scenes import Scene

SAME = 1.05
"""Largest quotient of two pixel sizes that count as equal; prediction also uses an image's own pixels up to it."""
APART = 8.0
"""Largest quotient of the pixel sizes of images that are trained on together."""


def common_pixel_size(scenes: Sequence[Scene], config: TrainConfig) -> tuple[float | None, str]:
    """Return the pixel size for the card in the configuration's unit, and a sentence if it has none.

    Raises `InputError` if the pixel sizes of two images differ by more than the factor `APART`.
    """
    if config.resolution is not None:
        return config.resolution, ""
    known = [(scene.name, scene.whole.resolution) for scene in scenes]
    sizes = [(name, side) for name, size in known if size is not None for side in (size.y, size.x)]
    ask = f"give resolution in {config.unit} (or train: resolution of the images) so that it can be checked later"
    missing = [name for name, size in known if size is None or size.unit != config.unit]
    (small, low), (large, high) = (
        (f(sizes, key=lambda entry: entry[1]) for f in (min, max)) if sizes else (("", 1.0),) * 2
    )
    if not missing and high / low > APART:
        raise InputError(
            f"{large} has pixels of {high:.4g} {config.unit} and {small} of {low:.4g}, {high / low:.3g} times as "
            f"small: objects have different sizes in them. Give resolution in {config.unit}, at which all are read"
        )
    if missing:
        return None, f"the model's card states no pixel size, as {missing[0]} has none in {config.unit}; {ask}"
    if high / low > SAME:
        return None, (
            f"the model's card states no pixel size, as those of the images go from {low:.4g} to {high:.4g} "
            f"{config.unit}; {ask}"
        )
    # A pixel size is wrong by a factor and not by a distance, so the mean is that of logarithms.
    middle = math.exp(sum(math.log(side) for _, side in sizes) / len(sizes))
    return float(f"{middle:.4g}"), ""
