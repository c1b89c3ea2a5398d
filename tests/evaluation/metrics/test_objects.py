"""Object F1 and panoptic quality, against every pair of objects by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilepipe.errors import InputError, UsageError
from tilepipe.evaluation.metrics.objects import ObjectScores, object_scores


def brute_force(prediction: NDArray[np.int64], truth: NDArray[np.int64], threshold: float) -> ObjectScores:
    names_p, names_t = (set(m.ravel().tolist()) - {0} for m in (prediction, truth))
    ious = [
        float(((prediction == p) & (truth == t)).sum() / ((prediction == p) | (truth == t)).sum())
        for p in names_p
        for t in names_t
    ]
    found = [iou for iou in ious if iou > threshold]
    return ObjectScores(len(found), len(names_p), len(names_t), sum(found), threshold)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 999), st.sampled_from([0.5, 0.6, 0.9]))
def test_scores_are_those_of_every_pair(height: int, width: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 3, 7, 1000], size=(height, width))
    prediction = np.where(rng.random((height, width)) < 0.2, rng.choice([0, 1, 2, 9], size=(height, width)), truth)
    found, wanted = object_scores(prediction, truth, threshold), brute_force(prediction, truth, threshold)
    assert (found.matched, found.predicted, found.true) == (wanted.matched, wanted.predicted, wanted.true)
    assert found.iou == pytest.approx(wanted.iou)


def test_a_known_case() -> None:
    """Of three nuclei one is found as it is, one as two halves, one not; the IoU of exactly 0.5 is no match."""
    truth = np.repeat([[1, 1, 2, 2, 3, 0]], 2, axis=0)
    prediction = np.repeat([[5, 5, 6, 7, 0, 0]], 2, axis=0)
    scores = object_scores(prediction, truth)
    assert (scores.matched, scores.predicted, scores.true) == (1, 3, 3)
    assert (scores.precision, scores.recall, scores.f1) == (1 / 3, 1 / 3, 1 / 3)
    assert (scores.segmentation_quality, scores.panoptic_quality) == (1.0, 1 / 3)


def test_panoptic_quality_is_detection_times_segmentation_quality() -> None:
    truth = np.repeat([[1, 1, 1, 1, 2, 2]], 2, axis=0)
    prediction = np.repeat([[1, 1, 1, 0, 2, 2]], 2, axis=0)
    scores = object_scores(prediction, truth)
    assert scores.panoptic_quality == pytest.approx(scores.f1 * scores.segmentation_quality)
    assert scores.segmentation_quality == pytest.approx((0.75 + 1) / 2)


def test_images_add_up() -> None:
    one = object_scores(np.array([[1, 2]]), np.array([[1, 0]]))
    two = object_scores(np.array([[0, 2]]), np.array([[1, 2]]))
    total = one + two
    assert (total.matched, total.predicted, total.true, total.iou) == (2, 3, 3, 2.0)
    with pytest.raises(UsageError, match="do not add up"):
        one + object_scores(np.array([[0]]), np.array([[0]]), 0.6)


def test_without_objects_there_is_no_score() -> None:
    scores = object_scores(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8))
    assert all(map(math.isnan, (scores.f1, scores.precision, scores.recall, scores.panoptic_quality)))
    assert object_scores(np.zeros((1, 1), int), np.ones((1, 1), int)).f1 == 0


def test_what_are_no_objects_is_refused() -> None:
    with pytest.raises(InputError, match="not two maps"):
        object_scores(np.zeros((2, 3), int), np.zeros((3, 2), int))
    with pytest.raises(InputError, match="whole"):
        object_scores(np.zeros((2, 2)), np.zeros((2, 2), int))
    with pytest.raises(UsageError, match="from 0"):
        object_scores(np.zeros((2, 2), int), np.zeros((2, 2), int), 0.4)
