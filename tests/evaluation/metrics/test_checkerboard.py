import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.checkerboard import checkerboard, one_hot, spectrum_of


def smooth_labels(seed, size=256, classes=3):
    rng = np.random.default_rng(seed)
    return np.stack([gaussian_filter(rng.standard_normal((size, size)), 6) for _ in range(classes)]).argmax(0)


def rectangles(seed, size=256, count=40):
    """A town: every edge lies along an axis."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), int)
    for _ in range(count):
        y, x, height, width = *rng.integers(0, size, 2), *rng.integers(5, 50, 2)
        labels[y : y + height, x : x + width] = rng.integers(3)
    return labels


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("draw", [smooth_labels, rectangles])
def test_clean_label_maps_stay_below_the_flag(draw, stride):
    total = None
    for seed in range(6):
        one = spectrum_of(one_hot(draw(seed), 3), stride)
        total = total + one if total else one
    found = total.checkerboard()
    assert not found.flagged
    assert found.peak_db < 1
    assert found.phase < 0.1


@pytest.mark.parametrize("stride", [2, 3, 4, 8])
def test_a_planted_pattern_is_found_at_its_stride(stride):
    rng = np.random.default_rng(1)
    labels = smooth_labels(1)
    planted = np.zeros(labels.shape, bool)
    planted[1::stride, ::stride] = True
    planted &= rng.random(labels.shape) < 0.5
    broken = one_hot(np.where(planted, 1, labels), 3)
    found = checkerboard(broken, stride)
    assert found.flagged
    assert found.line_db > (6 if stride < 8 else 1)  # the slow lines of a large stride drown in coarse structure
    clean = checkerboard(one_hot(labels, 3), stride)
    assert found.phase > 3 * clean.phase
    assert found.line_db > clean.line_db + 1
    if stride % 3:
        assert not checkerboard(broken, 3).flagged


def test_definition_by_hand():
    """On white noise plus one cosine the line is the cosine's power, and the rest is 0 dB."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((8, 256, 256))
    clean = checkerboard(noise, 2)
    assert abs(clean.line_db) < 0.5
    assert clean.peak_db < 0.5
    columns = noise + 0.2 * np.cos(np.pi * np.arange(256))
    found = checkerboard(columns, 2)
    # a cosine of amplitude A at (0, W/2) has power (A sum w)^2, times 1.5 an axis with the bins beside it (Hann);
    # noise has sum w^2 a bin: 25 bins a line, three lines
    w = np.hanning(256)
    expected = 1.5**2 * (0.2 * w.sum() ** 2) ** 2 / (25 * (w**2).sum() ** 2)
    assert found.line_db == pytest.approx(10 * np.log10(1 + expected / 3), abs=0.5)
    assert found.phase == pytest.approx(0.2 / np.sqrt(1 + 0.2**2), abs=0.03)


def test_windows_add_and_odd_sizes_are_cut():
    labels = one_hot(smooth_labels(2), 3)
    left, right = spectrum_of(labels[:, :, :128], 4), spectrum_of(labels[:, :, 128:], 4)
    total = left + right
    np.testing.assert_array_equal(total.power, left.power + right.power)
    assert total.samples == labels.size
    odd = checkerboard(labels[:, :131, :67], 4)
    assert odd == checkerboard(labels[:, :128, :64], 4)
    with pytest.raises(UsageError, match="cannot be added"):
        total + spectrum_of(labels[:, :, :128], 2)


def test_nothing_there_is_zero_and_a_perfect_pattern_is_finite():
    assert checkerboard(np.full((64, 64), 0.3), 2).peak_db == 0
    board = (np.indices((64, 64)).sum(0) % 2).astype(float)
    assert 30 < checkerboard(board, 2).peak_db < 150
    assert checkerboard(board, 2).phase == pytest.approx(1, abs=1e-3)


def test_bad_questions_are_refused():
    with pytest.raises(UsageError, match="31 x 90 px for stride 2: give at least 32 px"):
        checkerboard(np.zeros((31, 90)), 2)
    with pytest.raises(UsageError, match="stride 1"):
        checkerboard(np.zeros((64, 64)), 1)
