"""The parameters of classical methods are fitted once on a sample of the image. This module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from skimage.filters import sobel, threshold_multiotsu

from tilepipe.arrays import Pixels
from tilepipe.errors import InputError, UsageError
from tilepipe.models.classical import (
    Classical,
    Floats,
    Growing,
    Kmeans,
    Method,
    Threshold,
    Watershed,
    smoothed,
    squared_distances,
    standardised,
    superpixel_means,
)

MOST_PIXELS = 100_000
"""Largest number of pixels of the sample that parameters are fitted on."""


def fit(
    name: str, sample: Pixels, clusters: int = 2, truth: NDArray[np.integer] | None = None, classes: int | None = None
) -> Classical:
    """Fit a method of `METHODS` on `sample`, (patches, bands, height, width) in the image's own units.

    With `truth`, (patches, height, width), each cluster takes one of the `classes`; labels outside [0, classes)
    are left out. Without `truth`, cluster k is class k, dark to bright. Raises `UsageError` for an unknown method or
    an impossible number, and `InputError` if the sample has too few colours.
    """
    if name not in METHODS:
        raise UsageError(f"method {name!r} is not known; use {', '.join(METHODS)}")
    # Multi-Otsu tries every combination of levels, so its time grows steeply with their number.
    if not 2 <= clusters <= (5 if name in ("threshold", "watershed") else 64):
        raise UsageError(f"{clusters} clusters for {name}: give 2 to 5 (threshold, watershed) or 2 to 64")
    bands = np.moveaxis(np.asarray(sample, np.float64), 1, 0)
    # A band with one value has no deviation, and pixels are divided by it.
    mean, std = _tuple(bands.mean((1, 2, 3))), _tuple(np.maximum(bands.std((1, 2, 3)), 1e-9))
    # Patch by patch, since patches are not neighbours in the image.
    smooth = np.stack([smoothed(standardised(patch, mean, std)) for patch in sample])
    method = METHODS[name](smooth, clusters)
    identity = tuple(range(clusters))
    if truth is None:
        return Classical(name, mean, std, method, identity, clusters)
    classes = classes or int(truth.max()) + 1
    found = np.stack([method.scores(patch).argmax(0) for patch in smooth])
    known = (truth >= 0) & (truth < classes)
    votes = np.zeros((clusters, classes), np.int64)
    # `votes[...] += 1` would count a pair once, however many pixels have it.
    np.add.at(votes, (found[known], truth[known].astype(np.intp)), 1)
    return Classical(name, mean, std, method, _assign(votes), classes)


def _assign(votes: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the class of each cluster; `votes` counts pixels, (clusters, true classes).

    A cluster gets its commonest class, or the class of which it holds the largest share (else rare classes would
    often get no cluster). The rule that gives the higher mean IoU is taken.
    """
    share = votes / np.maximum(votes.sum(0), 1)
    return max((_tuple_int(votes.argmax(1)), _tuple_int(share.argmax(1))), key=lambda of: _mean_iou(votes, of))


def _mean_iou(votes: NDArray[np.int64], class_of: tuple[int, ...]) -> float:
    confusion = np.zeros((votes.shape[1],) * 2)
    for cluster, label in enumerate(class_of):
        confusion[:, label] += votes[cluster]
    hit = np.diag(confusion)
    return float((hit / np.maximum(confusion.sum(0) + confusion.sum(1) - hit, 1)).mean())


def _fit_threshold(x: Floats, clusters: int) -> Threshold:
    return Threshold(_levels(x, clusters))


def _fit_watershed(x: Floats, clusters: int) -> Watershed:
    edges = np.stack([sobel(patch.mean(0)) for patch in x])
    return Watershed(_levels(x, clusters), float(np.quantile(edges, 0.25)))


def _fit_kmeans(x: Floats, clusters: int) -> Kmeans:
    return Kmeans(_centres(x, clusters))


def _fit_slic(x: Floats, clusters: int) -> Kmeans:
    side = 12
    means = np.stack([superpixel_means(patch, side) for patch in x])
    return Kmeans(_centres(means, clusters), side)


def _fit_growing(x: Floats, clusters: int) -> Growing:
    centres = _centres(x, clusters)
    distances = squared_distances(np.moveaxis(x, 1, 0), centres)
    own = distances.argmin(0)
    near = [
        np.quantile(distances[k][own == k], (0.3, 0.9)) if (own == k).any() else (0.0, 0.0) for k in range(clusters)
    ]
    return Growing(centres, _tuple(n[0] for n in near), _tuple(n[1] for n in near))


METHODS: dict[str, Callable[[Floats, int], Method]] = {
    "threshold": _fit_threshold,
    "watershed": _fit_watershed,
    "kmeans": _fit_kmeans,
    "slic": _fit_slic,
    "region_growing": _fit_growing,
}


def _levels(x: Floats, clusters: int) -> tuple[float, ...]:
    try:
        return _tuple(threshold_multiotsu(_thin(x.mean(1).ravel()), clusters))
    except ValueError:
        raise InputError(f"the sample has too few grey levels for {clusters} clusters; give a larger sample") from None


def _centres(x: Floats, clusters: int) -> tuple[tuple[float, ...], ...]:
    """Return k-means centres, dark to bright; they start at the means of equal brightness shares, so without chance."""
    pixels = _thin(np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]))
    pixels = pixels[np.argsort(pixels.mean(1), kind="stable")]
    if len(pixels) < clusters:
        raise InputError(f"the sample has {len(pixels)} pixels for {clusters} clusters; give a larger sample")
    centres = np.stack([share.mean(0) for share in np.array_split(pixels, clusters)])
    for _ in range(30):
        nearest = squared_distances(pixels.T, centres).argmin(0)
        # A centre that no pixel is nearest to stays where it is: it has no mean.
        moved = [pixels[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(clusters)]
        centres = np.stack(moved)
    return tuple(_tuple(centre) for centre in centres[np.argsort(centres.mean(1), kind="stable")])


def _thin(values: Floats) -> Floats:
    return values[:: -(-len(values) // MOST_PIXELS)]


def _tuple_int(values: Iterable[np.integer]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _tuple(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
