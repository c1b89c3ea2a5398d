"""Classical segmentation with parameters fitted once; networks are measured against it. This module imports no torch.

Each method sorts pixels into clusters, ordered dark to bright. The parameters are global: they are fitted on a sample
of the image and are the same for every tile. With true labels, each cluster takes a class so that the mean IoU on the
sample is high.

    threshold       multi-Otsu levels of brightness (Otsu 1979)
    watershed       flooding of the edge strength from markers in flat places (Meyer 1991)
    kmeans          nearest of k colours (Lloyd 1982)
    slic            kmeans of the mean colours of superpixels (Achanta 2012); superpixels depend on the tile
    region_growing  growth from pixels close to one of k colours to connected pixels that are less close
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.filters import apply_hysteresis_threshold, sobel
from skimage.segmentation import slic, watershed

from tilepipe.arrays import Pixels

Floats = NDArray[np.float64]
SMOOTHING = 1.0
"""Standard deviation in pixels of the Gaussian that every method begins with; the Gaussian reaches 4 pixels."""
_NEVER = -1e6  # score of a class that no cluster has


class Method(Protocol):
    """One fitted method."""

    def scores(self, x: Floats) -> Floats:
        """Return cluster scores, (clusters, height, width), of standardised, smoothed bands (bands, height, width)."""


@dataclass(frozen=True)
class Classical:
    """A fitted method that scores tiles. It is a plain value, so it can be printed, compared and pickled."""

    name: str
    """One of `METHODS`."""
    mean: tuple[float, ...]
    """Mean of the sample per band, in the image's own units."""
    std: tuple[float, ...]
    """Standard deviation of the sample per band, in the image's own units."""
    method: Method
    """The fitted parameters."""
    class_of: tuple[int, ...]
    """Class of each cluster."""
    classes: int
    """Number of classes."""

    @property
    def halo(self) -> int | None:
        """Distance that a pixel's context reaches, in pixels; None if a label depends on the tile as a whole."""
        # scipy cuts a Gaussian off at 4 standard deviations. The other methods follow edges or neighbours without a
        # limit.
        return int(4 * SMOOTHING) if self.name in ("threshold", "kmeans") else None

    def scores(self, tile: Pixels) -> NDArray[np.float32]:
        """Return class scores, (classes, height, width), of a tile (bands, height, width) in the image's own units.

        The class of a pixel is the one with the largest score; a class without a cluster has the lowest score.
        """
        clusters = self.method.scores(smoothed(standardised(tile, self.mean, self.std)))
        out = np.full((self.classes, *tile.shape[1:]), _NEVER, np.float32)
        for cluster, label in enumerate(self.class_of):
            np.maximum(out[label], clusters[cluster], out=out[label])
        return out


@dataclass(frozen=True)
class Threshold:
    """Levels of brightness, which is the mean of the standardised bands."""

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
        """Score 1 for the cluster whose markers flood a pixel; a tile without markers is scored by its levels."""
        grey = x.mean(0)
        edges = sobel(grey)
        cluster = np.digitize(grey, self.levels)
        # In scikit-image, the number 0 is no marker.
        markers = np.where(edges <= self.flat, cluster + 1, 0)
        flooded = watershed(edges, markers) - 1 if markers.any() else cluster
        return _one_hot(flooded, len(self.levels) + 1)


@dataclass(frozen=True)
class Kmeans:
    """Cluster centres in standardised colour; `superpixel` is the side of SLIC's superpixels in pixels, or 0."""

    centres: tuple[tuple[float, ...], ...]
    superpixel: int = 0

    def scores(self, x: Floats) -> Floats:
        """Score by minus the squared distance to each centre."""
        if self.superpixel:
            x = superpixel_means(x, self.superpixel)
        return -squared_distances(x, self.centres)


@dataclass(frozen=True)
class Growing:
    """Cluster centres, and squared distances: a region begins at pixels within `seed` and grows to `reach`."""

    centres: tuple[tuple[float, ...], ...]
    seed: tuple[float, ...]
    reach: tuple[float, ...]

    def scores(self, x: Floats) -> Floats:
        """Score grown pixels from 0 to 1 by closeness, and all others below 0 by distance."""
        distances = squared_distances(x, self.centres)
        out = np.empty_like(distances)
        for k, (distance, seed, reach) in enumerate(zip(distances, self.seed, self.reach, strict=True)):
            grown = apply_hysteresis_threshold(-distance, -reach, -seed)  # connected by edges
            # The reach is 0 for a centre that no pixel of the sample was nearest to.
            out[k] = np.where(grown, 1 - distance / (reach + 1e-9), -distance)
        return out


def standardised(tile: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> Floats:
    """Return the tile (bands, height, width) in standard deviations from the mean of each band."""
    return np.asarray((tile - np.array(mean)[:, None, None]) / np.array(std)[:, None, None], np.float64)


def smoothed(x: Floats) -> Floats:
    """Return standardised bands (bands, height, width), smoothed by the Gaussian of `SMOOTHING`."""
    return np.asarray(gaussian_filter(x, (0, SMOOTHING, SMOOTHING)), np.float64)


def squared_distances(x: Floats, centres: Iterable[Iterable[float]]) -> Floats:
    """Return squared distances (centres, ...) of colours (bands, ...)."""
    return np.stack(
        [sum(((band - c) ** 2 for band, c in zip(x, centre, strict=True)), np.zeros(x.shape[1:])) for centre in centres]
    )


def superpixel_means(x: Floats, side: int) -> Floats:
    """Return the mean colour (bands, height, width) of each pixel's superpixel, which is about `side` pixels wide."""
    count = max(x.shape[1] * x.shape[2] // side**2, 1)
    # Bands need not be red, green and blue, so there is no Lab colour of them.
    of = slic(
        np.moveaxis(x, 0, -1), n_segments=count, compactness=1.0, start_label=0, channel_axis=-1, convert2lab=False
    )
    sizes = np.maximum(np.bincount(of.ravel()), 1)
    return np.stack([(np.bincount(of.ravel(), band.ravel()) / sizes)[of] for band in x])


def _one_hot(labels: NDArray[np.integer], count: int) -> Floats:
    return np.asarray(labels == np.arange(count)[:, None, None], np.float64)
