from itertools import pairwise

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label
from skimage.metrics import variation_of_information

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.components import ComponentCounter, components_of
from tilepipe.evaluation.metrics.objects import object_scores
from tilepipe.evaluation.metrics.pair import pair


def numbered(labels, scored):
    """Brute force: 4-connected components of every class, numbered from 1; 0 where not scored."""
    out, count = np.zeros(labels.shape, int), 0
    for c in np.unique(labels[scored]):
        found, n = label((labels == c) & scored)
        out[found > 0] = found[found > 0] + count
        count += n
    return out, count


@given(st.integers(0, 2**32), st.sampled_from([[0, 1], [0, 0, 0, 1, 1, 2, 255]]), st.sets(st.integers(1, 8)))
def test_bands_equal_brute_force(seed, values, cuts):
    prediction, truth = np.random.default_rng(seed).choice(np.array(values, np.uint8), (2, 9, 8))
    counter = ComponentCounter(3, smallest=4)
    edges = [0, *sorted(cuts), 9]
    for start, stop in pairwise(edges):
        counter.add(pair(prediction[start:stop], truth[start:stop], 3))
    found = counter.result()
    scored = (prediction != 255) & (truth != 255)
    (p, n_p), (t, n_t) = numbered(prediction, scored), numbered(truth, scored)
    assert (found.predicted, found.true) == (n_p, n_t)
    assert found.predicted_small == (np.bincount(p[scored], minlength=n_p + 1)[1:] < 4).sum()
    assert found.true_small == (np.bincount(t[scored], minlength=n_t + 1)[1:] < 4).sum()
    if scored.any():
        merge, split = variation_of_information(p[scored][None], t[scored][None])
        assert (found.split, found.merge) == (pytest.approx(split, abs=1e-9), pytest.approx(merge, abs=1e-9))


def test_a_larger_map_in_bands_of_every_height():
    rng = np.random.default_rng(3)
    truth = np.kron(rng.integers(0, 3, (12, 15), np.uint8), np.ones((8, 8), np.uint8))
    prediction = np.where(rng.random(truth.shape) < 0.03, 2, truth).astype(np.uint8)
    whole = components_of(pair(prediction, truth, 3))
    p, t = (numbered(m, np.ones_like(m, bool))[0] for m in (prediction, truth))
    merge, split = variation_of_information(p, t)
    assert (whole.split, whole.merge) == (pytest.approx(split), pytest.approx(merge))
    assert whole.ratio > 2
    assert whole.split > 4 * whole.merge  # specks cut the truth up; they hardly join it
    for height in (1, 7, 50):
        counter = ComponentCounter(3)
        for y in range(0, truth.shape[0], height):
            counter.add(pair(prediction[y : y + height], truth[y : y + height], 3))
        banded = counter.result()
        assert (banded.predicted, banded.true, banded.predicted_small) == (
            whole.predicted,
            whole.true,
            whole.predicted_small,
        )
        assert (banded.split, banded.merge) == (pytest.approx(whole.split), pytest.approx(whole.merge))


def test_by_hand():
    truth = np.zeros((8, 8), np.uint8)
    prediction = truth.copy()
    prediction[:, 4:] = 1
    cut = components_of(pair(prediction, truth, 2))
    assert (cut.ratio, cut.split, cut.merge, cut.small_share) == (2.0, 1.0, 0.0, 0.0)
    same = components_of(pair(truth, truth, 2), smallest=65)
    assert (same.ratio, same.split, same.merge, same.small_share) == (1.0, 0.0, 0.0, 1.0)
    nothing = components_of(pair(np.full((2, 2), 255, np.uint8), truth[:2, :2], 2))
    assert np.isnan(nothing.ratio)
    assert np.isnan(nothing.small_share)


def test_fragments_on_branches_that_join_later_count_as_on_one():
    """The finished fragment lies on two arms of a true component that meet only below it."""
    truth = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    prediction = np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]], np.uint8)
    counter = ComponentCounter(2)
    for p, t in zip(prediction, truth, strict=True):
        counter.add(pair(p[None], t[None], 2))
    assert counter.result() == components_of(pair(prediction, truth, 2))


def test_a_spiral_is_one_component_in_any_bands():
    spiral = np.array([list(row) for row in ("11111", "00001", "11101", "10001", "11111")]).astype(np.uint8)
    counter = ComponentCounter(2)
    for row in spiral:
        counter.add(pair(row[None], np.zeros_like(row)[None], 2))
        counter.result()  # asking in between changes nothing
    assert (counter.result().predicted, counter.result().true) == (2, 1)


def test_bad_bands_are_refused():
    counter = ComponentCounter(2)
    counter.add(pair(np.zeros((2, 5), np.uint8), np.zeros((2, 5), np.uint8), 2))
    with pytest.raises(UsageError, match="4 px wide after one 5 px"):
        counter.add(pair(np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8), 2))
    with pytest.raises(UsageError, match="0 pixels"):
        ComponentCounter(2, 0)


@given(st.integers(0, 2**32), st.sampled_from([[0, 1], [0, 0, 0, 1, 1, 2, 255]]), st.sets(st.integers(1, 11)))
def test_objects_of_bands_match_as_those_of_the_whole_do(seed, values, cuts):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.choice(np.array(values, np.uint8), (4, 5)), np.ones((3, 2), np.uint8))
    prediction = np.where(rng.random(truth.shape) < 0.1, rng.choice(np.array(values, np.uint8), truth.shape), truth)
    counter = ComponentCounter(3)
    for start, stop in pairwise([0, *sorted(cuts), 12]):
        counter.add(pair(prediction[start:stop], truth[start:stop], 3))
    scored = (prediction != 255) & (truth != 255)
    for c, found in enumerate(counter.objects()):
        whole = [skimage.measure.label((m == c) & scored, connectivity=1) for m in (prediction, truth)]
        wanted = object_scores(*whole)
        assert (found.matched, found.predicted, found.true) == (wanted.matched, wanted.predicted, wanted.true)
        assert found.iou == pytest.approx(wanted.iou)


def test_objects_take_memory_by_the_row_and_not_by_the_pixel():
    """A component that stays open to the last row overlaps many that are finished; only one could match it."""
    truth = np.zeros((4000, 40), np.uint8)
    truth[:, 0] = truth[::4] = 1  # a comb
    prediction = np.zeros_like(truth)
    prediction[::4, 1::2] = 1  # its teeth, in specks
    counter = ComponentCounter(2)
    most = 0
    for y in range(0, 4000, 10):
        counter.add(pair(prediction[y : y + 10], truth[y : y + 10], 2))
        most = max(most, counter._candidates.shape[1] + counter._pairs.shape[1])
    assert most < 200
    assert counter.objects()[1].predicted == 20_000
    assert (counter.objects()[1].true, counter.objects()[1].matched) == (1, 0)
