"""A small training: images with rings and discs that no threshold can tell apart, and ways to stop it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.events import Event

SMALL: dict[str, Any] = {
    "arch": {"name": "unet", "width": 4, "depth": 2, "dropout": 0.1},
    "steps": 8,
    "batch": 2,
    "crop": 32,
    "warmup": 2,
    "checkpoint": 3,
    "augment": {"scale": 1.2},
}
"""Settings of a training of a second or two."""


def discs(size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an RGB image of bright rings and discs on noise, and the discs: filled ones only are class 1.

    The outlines are alike, so no threshold on a band can tell them apart.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image = random.normal(90, 15, (3, size, size))
    label = np.zeros((size, size), np.uint8)
    for k, (cy, cx) in enumerate(np.ndindex(4, 4)):
        distance = np.hypot(y - (cy + 0.5) * size / 4, x - (cx + 0.5) * size / 4)
        filled = (k + cy + seed) % 2 == 0
        shape = (distance < 6) if filled else (distance < 6) & (distance > 4)
        image[:, shape] += 80
        label[shape & filled] = 1
    return image.clip(0, 255).astype(np.uint8), label


def weights(directory: Path) -> bytes:
    return (directory / "weights.safetensors").read_bytes()


def first(events: list[Event]) -> str:
    """Return the first message of the training itself, after those about labels."""
    return next(event.message for event in events if event.stage == "train")


class Stop(Exception):  # noqa: N818 - no error, the plug is pulled
    pass


def stopped_at(step: int) -> Callable[[Event], None]:
    def listener(event: Event) -> None:
        if event.done >= step:
            raise Stop

    return listener
