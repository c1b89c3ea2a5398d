"""Classical segmentation with parameters fitted once: what a network is measured against. Imports no torch.

Each method cuts pixels into clusters, ordered dark to bright, whose parameters are global: fitted on a sample of the
image, the same for every tile. With true labels each cluster takes a class so that the mean IoU on the sample is high.

    threshold       multi-Otsu levels of brightness (Otsu 1979)
    watershed       flooding of the edge strength from markers where it is flat (Meyer 1991)
    kmeans          nearest of k colours (Lloyd 1982)
    slic            the same for the mean colours of superpixels (Achanta 2012); superpixels depend on the tile
    region_growing  from pixels close to one of k colours to connected ones that are less close
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.filters import apply_hysteresis_threshold, sobel, threshold_multiotsu
from skimage.segmentation import slic, watershed

from tilepipe.arrays import Pixels
from tilepipe.errors import InputError, UsageError

Floats = NDArray[np.float64]
SMOOTHING = 1.0
"""Standard deviation in pixels of the Gaussian that every method begins with; it reaches 4 pixels."""
MOST_PIXELS = 100_000
"""Of the sample that parameters are fitted on."""
_NEVER = -1e6  # score of a class that no cluster has


class Method(Protocol):
    """One fitted method."""

    def scores(self, x: Floats) -> Floats:
        """Return cluster scores, (clusters, height, width), of standardised, smoothed bands (bands, height, width)."""


@dataclass(frozen=True)
class Classical:
    """A fitted method that scores tiles; a plain value, so it can be printed, compared and pickled."""

    name: str
    """One of `METHODS`."""
    mean: tuple[float, ...]
    """Per band, of the sample."""
    std: tuple[float, ...]
    """Per band, of the sample."""
    method: Method
    """The fitted parameters."""
    class_of: tuple[int, ...]
    """Class of each cluster."""
    classes: int
    """Number of classes."""

    @property
    def halo(self) -> int | None:
        """How far a pixel's context reaches in pixels; None where it depends on the tile as a whole."""
        return int(4 * SMOOTHING) if self.name in ("threshold", "kmeans") else None

    def scores(self, tile: Pixels) -> NDArray[np.float32]:
        """Return class scores, (classes, height, width), of a tile (bands, height, width) in the image's own units.

        The largest is the class; a class that no cluster has lies below all others.
        """
        clusters = self.method.scores(_smooth(_standard(tile, self.mean, self.std)))
        out = np.full((self.classes, *tile.shape[1:]), _NEVER, np.float32)
        for cluster, label in enumerate(self.class_of):
            np.maximum(out[label], clusters[cluster], out=out[label])
        return out


@dataclass(frozen=True)
class Threshold:
    """Levels of brightness, the mean of the standardised bands."""

    levels: tuple[float, ...]

    def scores(self, x: Floats) -> Floats:
        """Score by how far brightness lies inside a cluster's interval."""
        grey = x.mean(0)
        bounds = (-np.inf, *self.levels, np.inf)
        inside = [np.minimum(grey - low, high - grey) for low, high in pairwise(bounds)]
        return np.stack(inside)


@dataclass(frozen=True)
class Watershed:
    """Levels of brightness, and the edge strength below which a pixel is a marker."""

    levels: tuple[float, ...]
    flat: float

    def scores(self, x: Floats) -> Floats:
        """Score 1 for the cluster whose markers flood a pixel; a tile without markers is cut by its levels."""
        grey = x.mean(0)
        edges = sobel(grey)
        cluster = np.digitize(grey, self.levels)
        markers = np.where(edges <= self.flat, cluster + 1, 0)
        flooded = watershed(edges, markers) - 1 if markers.any() else cluster
        return _one_hot(flooded, len(self.levels) + 1)


@dataclass(frozen=True)
class Kmeans:
    """Cluster centres in standardised colour; `superpixel` is the side of SLIC's superpixels in pixels, 0 for none."""

    centres: tuple[tuple[float, ...], ...]
    superpixel: int = 0

    def scores(self, x: Floats) -> Floats:
        """Score by minus the squared distance to each centre."""
        if self.superpixel:
            x = _superpixel_means(x, self.superpixel)
        return -_distances(x, self.centres)


@dataclass(frozen=True)
class Growing:
    """Cluster centres, and squared distances: up to `seed` a region begins, up to `reach` it grows."""

    centres: tuple[tuple[float, ...], ...]
    seed: tuple[float, ...]
    reach: tuple[float, ...]

    def scores(self, x: Floats) -> Floats:
        """Score grown pixels 0 to 1 by closeness, others below 0: by distance."""
        distances = _distances(x, self.centres)
        out = np.empty_like(distances)
        for k, (distance, seed, reach) in enumerate(zip(distances, self.seed, self.reach, strict=True)):
            grown = apply_hysteresis_threshold(-distance, -reach, -seed)  # connected by edges
            out[k] = np.where(grown, 1 - distance / (reach + 1e-9), -distance)
        return out


def fit(
    name: str, sample: Pixels, clusters: int = 2, truth: NDArray[np.integer] | None = None, classes: int | None = None
) -> Classical:
    """Fit a method of `METHODS` on `sample`, (patches, bands, height, width) in the image's own units.

    With `truth`, (patches, height, width), each cluster takes one of the `classes`; labels outside [0, classes)
    are left out. Without, cluster k is class k, dark to bright. Raises `UsageError` for a method or number that
    cannot be, `InputError` where the sample has too few colours.
    """
    if name not in METHODS:
        raise UsageError(f"method {name!r} is not known; use {', '.join(METHODS)}")
    if not 2 <= clusters <= (5 if name in ("threshold", "watershed") else 64):
        raise UsageError(f"{clusters} clusters for {name}: give 2 to 5 (threshold, watershed) or 2 to 64")
    bands = np.moveaxis(np.asarray(sample, np.float64), 1, 0)
    mean, std = _tuple(bands.mean((1, 2, 3))), _tuple(np.maximum(bands.std((1, 2, 3)), 1e-9))
    smooth = np.stack([_smooth(_standard(patch, mean, std)) for patch in sample])
    method = METHODS[name](smooth, clusters)
    identity = tuple(range(clusters))
    if truth is None:
        return Classical(name, mean, std, method, identity, clusters)
    classes = classes or int(truth.max()) + 1
    found = np.stack([method.scores(patch).argmax(0) for patch in smooth])
    known = (truth >= 0) & (truth < classes)
    votes = np.zeros((clusters, classes), np.int64)
    np.add.at(votes, (found[known], truth[known].astype(np.intp)), 1)
    return Classical(name, mean, std, method, _assign(votes), classes)


def _assign(votes: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the class of each cluster from pixels by (cluster, true class).

    Either the commonest class, or the class of which the cluster holds the largest share (rare classes would often
    get no cluster otherwise): whichever gives the higher mean IoU.
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
    means = np.stack([_superpixel_means(patch, side) for patch in x])
    return Kmeans(_centres(means, clusters), side)


def _fit_growing(x: Floats, clusters: int) -> Growing:
    centres = _centres(x, clusters)
    distances = _distances(np.moveaxis(x, 1, 0), centres)
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


def _standard(tile: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> Floats:
    return np.asarray((tile - np.array(mean)[:, None, None]) / np.array(std)[:, None, None], np.float64)


def _smooth(x: Floats) -> Floats:
    return np.asarray(gaussian_filter(x, (0, SMOOTHING, SMOOTHING)), np.float64)


def _levels(x: Floats, clusters: int) -> tuple[float, ...]:
    try:
        return _tuple(threshold_multiotsu(_thin(x.mean(1).ravel()), clusters))
    except ValueError:
        raise InputError(f"the sample has too few grey levels for {clusters} clusters; give a larger sample") from None


def _centres(x: Floats, clusters: int) -> tuple[tuple[float, ...], ...]:
    """Return k-means centres, dark to bright; begun from the means of equal shares by brightness, so without chance."""
    pixels = _thin(np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]))
    pixels = pixels[np.argsort(pixels.mean(1), kind="stable")]
    if len(pixels) < clusters:
        raise InputError(f"the sample has {len(pixels)} pixels for {clusters} clusters; give a larger sample")
    centres = np.stack([share.mean(0) for share in np.array_split(pixels, clusters)])
    for _ in range(30):
        nearest = _distances(pixels.T, centres).argmin(0)
        moved = [pixels[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(clusters)]
        centres = np.stack(moved)
    return tuple(_tuple(centre) for centre in centres[np.argsort(centres.mean(1), kind="stable")])


def _distances(x: Floats, centres: Iterable[Iterable[float]]) -> Floats:
    """Return squared distances (centres, ...) of colours (bands, ...)."""
    return np.stack(
        [sum(((band - c) ** 2 for band, c in zip(x, centre, strict=True)), np.zeros(x.shape[1:])) for centre in centres]
    )


def _superpixel_means(x: Floats, side: int) -> Floats:
    count = max(x.shape[1] * x.shape[2] // side**2, 1)
    of = slic(
        np.moveaxis(x, 0, -1), n_segments=count, compactness=1.0, start_label=0, channel_axis=-1, convert2lab=False
    )
    sizes = np.maximum(np.bincount(of.ravel()), 1)
    return np.stack([(np.bincount(of.ravel(), band.ravel()) / sizes)[of] for band in x])


def _one_hot(labels: NDArray[np.integer], count: int) -> Floats:
    return np.asarray(labels == np.arange(count)[:, None, None], np.float64)


def _thin(values: Floats) -> Floats:
    return values[:: -(-len(values) // MOST_PIXELS)]


def _tuple_int(values: Iterable[np.integer]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _tuple(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
