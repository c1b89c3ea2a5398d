import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.seams import ChangeCounter, Flips, flips, seam_excess, total_variation


def scores(seed, size=768, scale=4):
    """Smooth class scores of a synthetic scene, (3, size, size), standard deviation 1."""
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.standard_normal((size, size)).astype(np.float32), scale) for _ in range(3)])
    return fields / fields.std()


def by_tiles(whole, step, change):
    """Labels made tile by tile; `change(scores, rows, columns)` is what went wrong in one tile."""
    size = whole.shape[1]
    out = np.empty((size, size), np.uint8)
    for y in range(0, size, step):
        for x in range(0, size, step):
            place = slice(y, y + step), slice(x, x + step)
            out[place] = change(whole, *place).argmax(0)
    return out


def judge(labels, tile, step, stride=None):
    counter = ChangeCounter(*labels.shape[-2:])
    counter.add(labels)
    return seam_excess(counter, tile, step, stride)


def test_total_variation_and_flips_by_hand():
    p, q = np.array([[0.5, 1.0], [0.5, 0.0]]), np.array([[0.25, 0.0], [0.75, 1.0]])
    np.testing.assert_allclose(total_variation(p, q), [0.25, 1.0])
    assert total_variation(np.array([[0], [255]], np.uint8), np.array([[255], [0]], np.uint8)) == 255
    left, right = np.array([[0, 1, 255, 255]], np.uint8), np.array([[0, 2, 3, 255]], np.uint8)
    assert flips(left, right) == Flips(3, 2)
    assert (flips(left[:, :2], right[:, :2]) + flips(left[:, 2:], right[:, 2:])).share == 2 / 3
    assert flips(right, right, None) == Flips(4, 0)
    assert Flips(0, 0).share == 0
    with pytest.raises(UsageError, match=r"\(1, 4\) and \(1, 2\)"):
        flips(left, right[:, :2])


def brute(values, offset, step):
    """Mean change over the lines of both axes, from the definition."""
    rows = [values[y] != values[y - 1] for y in range(1, values.shape[0]) if (y - offset) % step == 0]
    columns = [values[:, x] != values[:, x - 1] for x in range(1, values.shape[1]) if (x - offset) % step == 0]
    return np.concatenate([*rows, *columns]).mean(), len(rows) + len(columns)


@pytest.mark.parametrize(("offset", "step"), [(0, 8), (3, 8), (0, 5), (1, 13)])
def test_combs_equal_brute_force_and_blocks_the_whole(offset, step):
    labels = scores(0, 90)[:, :70].argmax(0).astype(np.uint8)
    whole, blocks = ChangeCounter(70, 90), ChangeCounter(70, 90)
    whole.add(labels)
    for y in (0, 31, 32):
        for x in (0, 64):
            stop = {0: 31, 31: 32, 32: 70}[y], {0: 64, 64: 90}[x]
            y0, x0 = max(y - 1, 0), max(x - 1, 0)
            blocks.add(labels[y0 : stop[0], x0 : stop[1]], y0, x0)
    assert whole.comb(offset, step) == blocks.comb(offset, step)
    assert whole.comb(offset, step) == pytest.approx(brute(labels, offset, step))


def test_probabilities_count_by_total_variation_and_nodata_does_not_count():
    labels = scores(1, 64).argmax(0).astype(np.uint8)
    hot = (labels == np.arange(3)[:, None, None]).astype(np.float32)
    as_labels, as_probabilities = ChangeCounter(64, 64), ChangeCounter(64, 64)
    as_labels.add(labels)
    as_probabilities.add(hot)
    assert as_labels.comb(0, 8) == as_probabilities.comb(0, 8)
    labels[10:, 20:] = 255
    hot[:, 10:, 20:] = np.nan
    holed, holed_hot = ChangeCounter(64, 64), ChangeCounter(64, 64)
    holed.add(labels)
    holed_hot.add(hot)
    assert holed.comb(4, 8) == holed_hot.comb(4, 8)
    assert holed.comb(0, 30)[1] == 4  # rows 30 and 60 keep 20 columns, columns 30 and 60 keep 10 rows
    empty = ChangeCounter(64, 64)
    empty.add(np.full((64, 64), 255, np.uint8))
    assert not seam_excess(empty, 16, 16, 1).enough


@pytest.mark.parametrize("seed", range(3))
def test_a_shifted_tile_is_found(seed):
    rng = np.random.default_rng(seed)

    def shifted(whole, rows, columns):
        return np.roll(whole, tuple(rng.integers(-1, 2, 2)), (1, 2))[:, rows, columns]

    found = judge(by_tiles(scores(seed), 48, shifted), 48, 48)
    assert found.found
    assert found.worst.where == "tile starts"
    assert found.worst.excess > 0.2
    assert str(found).startswith("seams at tile starts: +")


@pytest.mark.parametrize("seed", range(3))
def test_a_brightness_step_is_found(seed):
    rng = np.random.default_rng(seed)

    def brighter(whole, rows, columns):
        return whole[:, rows, columns] + np.array([rng.normal(0, 0.2), 0, 0])[:, None, None]

    assert judge(by_tiles(scores(seed), 48, brighter), 64, 48).found


def test_no_overlap_is_found():
    """A smoothing model run tile by tile without context, as no overlap does."""

    def alone(whole, rows, columns):
        return np.stack([gaussian_filter(field, 3) for field in whole[:, rows, columns]])

    whole = scores(5, scale=2)
    assert judge(by_tiles(whole, 48, alone), 48, 48).found
    seamless = np.stack([gaussian_filter(field, 3) for field in whole]).argmax(0)
    assert not judge(seamless, 48, 48).found


def test_seams_at_the_ends_of_tiles_are_named():
    labels = scores(2).argmax(0).astype(np.uint8)
    labels[:, 16::48] = (labels[:, 16::48] + 1) % 3
    found = judge(labels, 64, 48)
    assert found.found
    assert found.worst.where == "tile ends"
    assert found.worst.offset == 16


@pytest.mark.long
def test_silent_on_clean_truth_in_99_of_100_draws():
    alarms = 0
    for seed in range(20):
        labels = scores(100 + seed, 640, scale=(2, 4, 8)[seed % 3]).argmax(0)
        alarms += sum(judge(labels, *cut).found for cut in ((40, 40), (48, 32), (64, 32), (60, 40), (36, 32)))
    assert alarms <= 1


def test_phase_matching_forgives_the_pooling_grid():
    """Columns at multiples of the stride change more in every model's map; that is no seam."""
    labels = scores(3, 1024).argmax(0).astype(np.uint8)
    rng = np.random.default_rng(0)
    labels[:, ::4] = np.where(rng.random(labels[:, ::4].shape) < 0.1, 0, labels[:, ::4])
    blind, matched = judge(labels, 64, 64, stride=1), judge(labels, 64, 64, stride=4)
    assert blind.worst.excess > 0.1 > 4 * abs(matched.worst.excess)
    assert not matched.found
    assert judge(labels, 64, 64) == matched


def test_says_when_it_cannot_tell():
    few = judge(scores(0, 300).argmax(0), 64, 64)
    assert not few.found
    assert "too few seams to judge: 8 lines, 30 are needed" in str(few)
    coarse = judge(scores(0, 640).argmax(0), 32, 32, stride=8)
    assert not coarse.enough
    assert "too few shifted combs to judge: 3 with step 32 and stride 8" in str(coarse)
    flat = judge(np.zeros((640, 640), np.uint8), 32, 32)
    assert str(flat) == "no seams; most at tile starts: +0.0% changes, z 0.0 over 38 lines"
    with pytest.raises(UsageError, match="step 48 is not a multiple of stride 32"):
        judge(np.zeros((64, 64), np.uint8), 64, 48, 32)
    with pytest.raises(UsageError, match="step 65 of tile 64"):
        judge(np.zeros((64, 64), np.uint8), 64, 65)
