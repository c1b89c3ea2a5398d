import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import distance_transform_edt

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.boundary import Boundary, boundary_of, dilate, margin
from tilepipe.evaluation.metrics.confusion import confusion_matrix
from tilepipe.evaluation.metrics.pair import pair


def within(mask, distance):
    """Brute force: pixels within `distance` of a pixel of `mask`."""
    return distance_transform_edt(~mask) <= distance if mask.any() else np.zeros_like(mask)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14)), st.sampled_from([1, 1.5, 2, 3, 5, 7.2, 20]))
def test_dilate_equals_distance_transform(mask, radius):
    np.testing.assert_array_equal(dilate(mask, radius), within(mask, radius))


def blobs(seed, shape, classes):
    """A label map of smooth blobs with some pixels of no label."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (shape[0] // 4 + 1, shape[1] // 4 + 1), np.uint8)
    labels = np.kron(coarse, np.ones((4, 4), np.uint8))[: shape[0], : shape[1]]
    noisy = rng.random(shape)
    labels[noisy < 0.02] = 0
    labels[noisy > 0.98] = 255
    return labels


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(seed, width):
    prediction, truth = blobs(seed, (40, 33), 3), blobs(seed + 50, (40, 33), 3)
    truth[:, 20:] = prediction[:, 20:]
    found = boundary_of(pair(prediction, truth, 4), width)
    scored = (prediction != 255) & (truth != 255)
    trimap = np.zeros_like(scored)
    for c in range(3):
        p, t = (prediction == c) & scored, (truth == c) & scored
        p_line, t_line = p & within(scored & ~p, 1), t & within(scored & ~t, 1)
        precision = (p_line & within(t_line, width)).sum() / p_line.sum()
        recall = (t_line & within(p_line, width)).sum() / t_line.sum()
        assert found.f1[c] == pytest.approx(2 * precision * recall / (precision + recall))
        p_band, t_band = p & within(scored & ~p, width), t & within(scored & ~t, width)
        assert found.iou[c] == (p_band & t_band).sum() / (p_band | t_band).sum()
        trimap |= t_band
    assert np.isnan(found.f1[3])
    assert np.isnan(found.iou[3])
    assert found.mean_iou == pytest.approx(np.mean(found.iou[:3]))
    assert found.trimap == confusion_matrix(prediction[trimap][None], truth[trimap][None], 4)


@given(st.integers(0, 1000), st.sampled_from([1, 2, 3.5, 6]), st.integers(6, 40), st.integers(6, 40))
def test_blocks_with_margin_equal_the_whole(seed, width, height, step):
    shape = (37, 29)
    prediction, truth = blobs(seed, shape, 3), blobs(seed + 1, shape, 3)
    m, total = margin(width), None
    for y in range(0, shape[0], height):
        for x in range(0, shape[1], step):
            y0, x0, y1, x1 = max(y - m, 0), max(x - m, 0), y + height + m, x + step + m
            maps = pair(prediction[y0:y1, x0:x1], truth[y0:y1, x0:x1], 3)
            core = slice(y - y0, y - y0 + height), slice(x - x0, x - x0 + step)
            part = boundary_of(maps, width, core)
            total = total + part if total else part
    assert total == boundary_of(pair(prediction, truth, 3), width)


def test_shifted_square_by_hand():
    truth = np.zeros((30, 30), np.uint8)
    truth[10:20, 10:20] = 1
    for shift, expected in ((0, 1.0), (2, 1.0), (3, 0.75)):
        prediction = np.roll(truth, shift, 1)
        found = boundary_of(pair(prediction, truth, 2), 2)
        assert found.predicted[1] == found.true[1] == 36
        assert (found.f1[1] == 1.0) == (expected == 1.0)
    assert boundary_of(pair(truth, truth, 2), 3).mean_iou == 1.0
    assert boundary_of(pair(np.zeros_like(truth), truth, 2), 2).f1[1] == 0.0
    half = boundary_of(pair(np.roll(truth, 1, 1), truth, 2), 1)
    # two rings of 36 pixels; they share the top and bottom sides without one column each
    assert (half.common[1], half.either[1]) == (18, 54)


def test_edges_of_the_image_and_of_labels_are_no_outline():
    flat = np.zeros((8, 8), np.uint8)
    flat[2:4, 2:4] = 255
    assert boundary_of(pair(flat, flat, 1), 3).predicted == (0,)


def test_bad_widths_are_refused():
    maps = pair(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 1)
    with pytest.raises(UsageError, match="width of 0 pixels"):
        boundary_of(maps, 0)
    with pytest.raises(UsageError, match="width 1 and 2"):
        boundary_of(maps, 1) + boundary_of(maps, 2)
    assert isinstance(boundary_of(maps, 1), Boundary)
