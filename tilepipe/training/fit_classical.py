"""This module fits classical baselines on an image, as a `Model`: thresholds, watershed, clusters, regions."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.models.card import ModelCard
from tilepipe.models.classical import Classical
from tilepipe.models.classical_fit import fit
from tilepipe.models.function import from_function
from tilepipe.models.model import Model
from tilepipe.sources.base import Source

PATCH, PATCHES = 128, 16
"""Side of the patches that parameters are fitted on (pixels), and their largest number; they are spread over the
image."""


class Truth(Protocol):
    """A label map on the image's own grid."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (height, width) of the map in pixels."""

    def read(self, box: Box, /) -> NDArray[np.integer]:
        """Return the labels of a box inside the map, (box.height, box.width)."""


def classical_model(
    source: Source, method: str, classes: tuple[str, ...], *, clusters: int | None = None, truth: Truth | None = None
) -> Model:
    """Fit a classical method on patches of `source` and return it as a model with the named classes.

    `method` is one of `tilepipe.models.classical.METHODS`. Without `truth` the classes are the clusters, dark to
    bright; with `truth` there may be more `clusters`, and each takes the class that suits it best. Raises `InputError`
    if the image has no valid patch, or if the maps differ in size.
    """
    if truth is not None and tuple(truth.shape) != source.shape[1:]:
        raise InputError(f"truth is {tuple(truth.shape)} pixels, the image {source.shape[1:]}; give one on its grid")
    boxes = _patches(source)
    sample = np.stack([source.read(box) for box in boxes])
    labels = None if truth is None else np.stack([truth.read(box) for box in boxes])
    count = len(classes)
    fitted = fit(method, sample, count if truth is None else clusters or count, labels, count)
    return as_model(fitted, classes, source.shape[0])


def as_model(fitted: Classical, classes: tuple[str, ...], bands: int) -> Model:
    """Return a fitted method as a model for any image with the same bands and units."""
    card = ModelCard(name=fitted.name, bands=bands, classes=classes, halo=fitted.halo, description="classical baseline")
    # The text of the fitted method is what tells this model from another fit.
    return from_function(fitted.scores, card, repr(fitted))


def _patches(source: Source) -> list[Box]:
    """Return patches of one size, spread over the image, that hold image data only."""
    _, height, width = source.shape
    side = min(PATCH, height, width)
    places = [
        Box(y, x, y + side, x + side)
        for y in range(0, height - side + 1, side)
        for x in range(0, width - side + 1, side)
    ]
    # Some patches hold nodata, so more are looked at than are kept.
    tried = places[:: -(-len(places) // (4 * PATCHES))]
    valid = [box for box in tried if (mask := source.valid(box)) is None or mask.all()]
    if not valid:
        raise InputError(f"{source.name}: no patch of {side} x {side} pixels without nodata; a classical fit needs one")
    return valid[:: -(-len(valid) // PATCHES)]
