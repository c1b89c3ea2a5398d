import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.boundary import boundary_of
from tilepipe.evaluation.metrics.coarseness import coarseness, ideal
from tilepipe.evaluation.metrics.confusion import Confusion, confusion_of
from tilepipe.evaluation.metrics.pair import pair

maps = arrays(np.uint8, (11, 13), elements=st.sampled_from([0, 1, 2, 255]))


@given(maps, maps, st.sampled_from([1, 2, 4, 5, 16]))
def test_equals_brute_force_majority(prediction, truth, stride):
    found = ideal(pair(prediction, truth, 3), stride)
    scored = (prediction != 255) & (truth != 255)
    np.testing.assert_array_equal(found.prediction < 3, scored)
    for y in range(0, 11, stride):
        for x in range(0, 13, stride):
            cell = slice(y, y + stride), slice(x, x + stride)
            votes = np.bincount(truth[cell][scored[cell]], minlength=3)
            assert set(found.prediction[cell][scored[cell]]) <= {votes.argmax()}


def test_blocks_of_whole_cells_add_up():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (37, 40), np.uint8)
    total = Confusion.zero(3)
    for y in range(0, 37, 16):
        total += confusion_of(ideal(pair(truth[y : y + 16], truth[y : y + 16], 3), 8))
    assert total == confusion_of(ideal(pair(truth, truth, 3), 8))


def test_a_coarse_prediction_loses_nothing_and_a_fine_one_gains():
    truth = np.zeros((64, 64), np.uint8)
    y, x = np.indices(truth.shape)
    truth[(y - 30) ** 2 + (x - 33) ** 2 < 400] = 1
    exact = pair(truth, truth, 2)
    coarse = ideal(exact, 16)

    def figures(of):
        return coarseness(16, confusion_of(coarse), confusion_of(of), boundary_of(of, 1), boundary_of(of, 8))

    assert figures(coarse).loss == 0
    assert figures(coarse).ideal_iou < 0.9
    assert figures(exact).loss == figures(coarse).ideal_iou - 1
    assert figures(exact).f1_slope == 0
    assert figures(coarse).f1_slope > 0.05
    assert confusion_of(ideal(exact, 1)).mean_iou == 1


def test_bad_strides_are_refused():
    with pytest.raises(UsageError, match="stride of 0"):
        ideal(pair(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 1), 0)
