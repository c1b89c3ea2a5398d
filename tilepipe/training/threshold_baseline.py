"""This module finds the best threshold on a band, a ratio of bands or a stain; two-class models must beat it
clearly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed

from tilepipe.box import Box
from tilepipe.evaluation.metrics.confusion import Confusion
from tilepipe.training.scenes import IGNORE, Scene
from tilepipe.training.validation import blocks, compared, hull, spread, training_pixels, truth

CUTS = 200
"""Number of thresholds tried per feature."""
SAMPLE = 200_000
"""Largest number of floats per training scene on which thresholds are chosen."""

Floats = NDArray[np.float64]
Feature = Callable[[Floats], Floats]
"""Function from pixels (C, N) to values (N,)."""


@dataclass(frozen=True)
class Rule:
    """A rule that gives class 1 if the feature is above (or not above) a cut."""

    feature: str
    cut: float
    above: bool

    def __str__(self) -> str:
        return f"{self.feature} {'>' if self.above else '<='} {self.cut:.4g}"


def best_threshold(scenes: Sequence[Scene], scored: Sequence[Scene]) -> tuple[Confusion, str]:
    """Return the confusion on `scored` of the rule with the best mean IoU on `scenes`, and the rule as text."""
    known = features(scenes[0].source.shape[0])
    pixels, labels = _sample(scenes)
    tried = [_best_cut(name, feature(pixels), labels) for name, feature in known.items()]
    rule = max(tried, key=lambda pair: pair[0])[1]
    total = Confusion.zero(2)
    for scene in scored:
        for box in blocks(scene.full):
            rows, columns = training_pixels(scene, box)
            part = hull(rows, columns)
            values = known[rule.feature](scene.source.read(part).reshape(scene.source.shape[0], -1).astype(np.float64))
            labels = ((values > rule.cut) == rule.above).astype(np.uint8).reshape(part.shape)
            total += compared(spread(labels, rows, columns), truth(scene, box), 2)
    return total, str(rule)


def features(bands: int) -> Mapping[str, Feature]:
    """Return the features: bands, their mean, normalised differences, and for RGB also saturation and stains."""
    found: dict[str, Feature] = {f"band {k + 1}": itemgetter(k) for k in range(bands)}
    found["mean of bands"] = lambda p: p.mean(0)
    for i, j in combinations(range(bands), 2):
        found[f"(band {i + 1} - band {j + 1}) / sum"] = partial(_ratio, i, j)
    if bands == 3:
        found["saturation"] = lambda p: 1 - p.min(0) / np.maximum(p.max(0), 1)
        found["haematoxylin"] = lambda p: rgb2hed(np.clip(p.T / 255, 0, 1))[:, 0]
        found["eosin"] = lambda p: rgb2hed(np.clip(p.T / 255, 0, 1))[:, 1]
    return found


def _ratio(i: int, j: int, pixels: Floats) -> Floats:
    return np.asarray((pixels[i] - pixels[j]) / np.maximum(pixels[i] + pixels[j], 1))


def _sample(scenes: Sequence[Scene]) -> tuple[Floats, NDArray[np.int64]]:
    pixels, labels = [], []
    for scene in scenes:
        height, width = scene.region.shape
        rows = max(1, min(height, SAMPLE // width))
        for y in np.linspace(0, height - 1, rows).astype(int):
            line = Box(int(y), 0, int(y) + 1, width)
            label = scene.label(line)[0]
            pixels.append(scene.image(line)[:, 0, label != IGNORE].astype(np.float64))
            labels.append(label[label != IGNORE])
    return np.concatenate(pixels, axis=1), np.concatenate(labels)


def _best_cut(name: str, values: Floats, labels: NDArray[np.int64]) -> tuple[float, Rule]:
    """Return the best mean IoU and its rule, over evenly filled cuts and both directions."""
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, CUTS + 1)[1:-1]))
    place = np.searchsorted(cuts, values, side="left")  # the number of cuts that lie below the value
    # The number of pixels of class 1 that are not above each cut.
    one = np.cumsum(np.bincount(place[labels == 1], minlength=len(cuts) + 1))[:-1]
    zero = np.cumsum(np.bincount(place[labels == 0], minlength=len(cuts) + 1))[:-1]
    ones, zeros = (labels == 1).sum(), (labels == 0).sum()
    upper = _mean_iou(ones - one, zeros - zero, ones, zeros)
    lower = _mean_iou(one, zero, ones, zeros)
    k, above = (int(upper.argmax()), True) if upper.max() >= lower.max() else (int(lower.argmax()), False)
    return float(max(upper.max(), lower.max())), Rule(name, float(cuts[k]), above)


def _mean_iou(hits: NDArray[np.int64], false: NDArray[np.int64], ones: int, zeros: int) -> Floats:
    """Return the mean IoU of two classes from true and false positives of class 1."""
    # A class that neither map holds would divide by 0.
    iou1 = hits / np.maximum(ones + false, 1)
    iou0 = (zeros - false) / np.maximum(zeros + ones - hits, 1)
    return np.asarray((iou0 + iou1) / 2)
