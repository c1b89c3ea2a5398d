import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score, jaccard_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from tilepipe.errors import InputError, UsageError
from tilepipe.evaluation.metrics.confusion import Confusion, confusion_matrix

maps = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.just(k),
        *(arrays(np.uint8, (7, 9), elements=st.sampled_from([*range(k), 255])) for _ in range(2)),
    )
)


@given(maps)
def test_equals_scikit_learn(drawn):
    classes, prediction, truth = drawn
    found = confusion_matrix(prediction, truth, classes)
    scored = (prediction != 255) & (truth != 255)
    p, t = prediction[scored], truth[scored]
    assert found.unpredicted == ((prediction == 255) & (truth != 255)).sum()
    assert found.pixels == scored.sum()
    if not scored.any():
        assert np.isnan(found.mean_iou)
        assert np.isnan(found.accuracy)
        return
    np.testing.assert_array_equal(found.matrix, sklearn_confusion(t, p, labels=range(classes)))
    assert found.accuracy == pytest.approx(accuracy_score(t, p))
    present = np.union1d(p, t)
    assert found.mean_iou == pytest.approx(jaccard_score(t, p, labels=present, average="macro"))
    assert found.mean_dice == pytest.approx(f1_score(t, p, labels=present, average="macro"))
    assert [c for c in range(classes) if not np.isnan(found.iou[c])] == list(present)


@given(maps, st.integers(1, 6), st.integers(1, 8))
def test_blocks_add_up(drawn, row, column):
    classes, prediction, truth = drawn
    total = Confusion.zero(classes)
    for rows in (slice(0, row), slice(row, None)):
        for columns in (slice(0, column), slice(column, None)):
            total += confusion_matrix(prediction[rows, columns], truth[rows, columns], classes)
    assert total == confusion_matrix(prediction, truth, classes)


def test_by_hand():
    truth = np.array([[0, 0, 0, 1], [1, 2, 2, 9]], np.uint16)
    prediction = np.array([[0, 0, 1, 1], [1, 2, 7, 0]], np.uint16)
    found = confusion_matrix(prediction, truth, 4, ignore=9, nodata=7)
    assert found.counts == ((2, 1, 0, 0), (0, 2, 0, 0), (0, 0, 1, 0), (0, 0, 0, 0))
    assert found.unpredicted == 1
    assert found.iou[:3] == (2 / 3, 2 / 3, 1.0)
    assert np.isnan(found.iou[3])
    assert found.mean_iou == pytest.approx(7 / 9)
    assert found.recall[0] == 2 / 3
    assert found.precision[1] == 2 / 3
    assert found.majority().accuracy == 3 / 6
    assert found.majority().iou[:3] == (0.5, 0.0, 0.0)


def test_signed_bool_and_no_void():
    truth = np.array([[-1, 0, 1]], np.int16)
    prediction = np.array([[True, False, True]])
    assert confusion_matrix(prediction, truth, 2, ignore=-1, nodata=None).counts == ((1, 0), (0, 1))


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"\(2, 3\) and truth \(3, 2\)"),
        (np.full((1, 1), 4, np.uint8), np.zeros((1, 1), np.uint8), "prediction holds the value 4, but there are 2"),
        (np.zeros((1, 1), np.uint8), np.full((1, 1), -3, np.int8), "truth holds the value -3"),
        (np.zeros((1, 1)), np.zeros((1, 1), np.uint8), "prediction holds float64"),
        (np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.uint8), "not two maps"),
    ],
)
def test_bad_maps_are_refused(prediction, truth, message):
    with pytest.raises(InputError, match=message):
        confusion_matrix(prediction, truth, 2)


def test_bad_questions_are_refused():
    with pytest.raises(UsageError, match="2 and 3 classes"):
        Confusion.zero(2) + Confusion.zero(3)
    with pytest.raises(UsageError, match="0 classes"):
        confusion_matrix(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 0)
