"""Components found box by box, against scikit-image on the whole map."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilepipe.products import components
from tilepipe.products.components import ComponentSweep
from tilepipe.products.label_map import Legend, label_map_of

CLASSES = ("background", "wood", "town")
LEGEND = Legend("cover", CLASSES, ((9, 9, 9), (213, 94, 0), (0, 158, 115)), 255)


def random_labels(height: int, width: int, seed: int, size: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 2, 255], p=[0.4, 0.35, 0.15, 0.1], size=(height // size + 1, width // size + 1))
    return np.kron(coarse, np.ones((size, size)))[:height, :width].astype(np.uint8)


def swept(labels: NDArray[np.uint8], side: int) -> list[tuple[int, int]]:
    """Return (class, pixels) of each component, in the order in which the sweep knows them."""
    view = label_map_of(labels, LEGEND)
    sweep, found = ComponentSweep(view), []
    waiting: dict[int, tuple[int, int]] = {}
    for box in view.boxes(side):
        for _, parts in sweep.add(box, view.read(box)):
            sizes = np.bincount(parts.numbers.ravel(), minlength=len(parts.classes))
            found += [(int(parts.classes[k]), int(sizes[k])) for k in parts.whole]
            for k in np.flatnonzero(parts.parts):
                waiting[int(parts.parts[k])] = int(parts.classes[k]), int(sizes[k])
        for joined in sweep.closed(box):
            pieces = [waiting.pop(part) for part in joined]
            assert len({label for label, _ in pieces}) == 1
            found.append((pieces[0][0], sum(size for _, size in pieces)))
    assert not waiting
    return found


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 999), st.integers(1, 3), st.integers(1, 45), st.data())
def test_components_are_those_of_the_whole_map(
    height: int, width: int, seed: int, size: int, side: int, data: st.DataObject
) -> None:
    labels = random_labels(height, width, seed, size)
    band = data.draw(st.sampled_from([1, 30, 100, components.BAND]))
    values = np.where((labels == 255) | (labels == 0), 0, labels)
    numbers = skimage.measure.label(values, background=0, connectivity=1)
    truth = Counter((int(labels[numbers == k][0]), int((numbers == k).sum())) for k in range(1, int(numbers.max()) + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "BAND", band)
        assert Counter(swept(labels, side)) == truth


def test_components_are_numbered_by_their_first_pixels() -> None:
    labels = random_labels(30, 30, 3, 2)
    view = label_map_of(labels, LEGEND)
    box = next(view.boxes(30))
    ((_, parts),) = ComponentSweep(view).add(box, view.read(box))
    firsts = [int(np.flatnonzero(parts.numbers == k)[0]) for k in range(1, len(parts.classes))]
    assert firsts == sorted(firsts)
    assert len(parts.whole) == len(firsts) > 10
