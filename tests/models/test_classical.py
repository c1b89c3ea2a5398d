import pickle

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_multiotsu
from sklearn.cluster import KMeans

from tilepipe.errors import InputError, UsageError
from tilepipe.models.classical_fit import METHODS, fit

SEEN = {"threshold", "watershed", "kmeans", "slic", "region_growing"}
COLOURS = np.array([[60, 90, 50], [120, 110, 100], [200, 190, 210]], float)


def scene(seed, classes=2, size=128, noise=12.0):
    """(image (3, size, size) uint8, truth): discs of flat colour with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size))
    truth = np.zeros((size, size), np.uint8)
    for k in range(1, classes):
        for _ in range(6):
            cy, cx, r = *rng.integers(10, size - 10, 2), rng.integers(8, 22)
            truth[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = k
    colours = COLOURS[[0, 2]] if classes == 2 else COLOURS
    image = colours[truth].transpose(2, 0, 1) + rng.normal(0, noise, (3, size, size))
    return np.clip(image, 0, 255).astype(np.uint8), truth


def iou(found, truth, k=1):
    return ((found == k) & (truth == k)).sum() / ((found == k) | (truth == k)).sum()


def test_every_method_is_here():
    assert set(METHODS) == SEEN


@pytest.mark.parametrize("name", sorted(SEEN))
@pytest.mark.parametrize("classes", [2, 3])
def test_finds_flat_discs_in_an_image_it_was_not_fitted_on(name, classes):
    sample = np.stack([scene(seed, classes)[0] for seed in range(3)])
    fitted = fit(name, sample, classes)
    image, truth = scene(9, classes)
    scores = fitted.scores(image)
    assert scores.shape == (classes, 128, 128)
    assert scores.dtype == np.float32
    floor = 0.75 if name == "slic" else 0.85
    assert all(iou(scores.argmax(0), truth, k) > floor for k in range(classes))


@pytest.mark.parametrize("name", sorted(SEEN))
def test_parameters_are_global(name):
    """A tile of one class only keeps its class: nothing is fitted on the tile."""
    sample = np.stack([scene(seed)[0] for seed in range(3)])
    fitted = fit(name, sample, 2)
    rng = np.random.default_rng(0)
    for k, colour in ((0, COLOURS[0]), (1, COLOURS[2])):
        tile = np.clip(colour[:, None, None] + rng.normal(0, 12, (3, 32, 32)), 0, 255).astype(np.uint8)
        assert (fitted.scores(tile).argmax(0) == k).mean() > 0.99


def test_threshold_is_scikit_images_and_kmeans_is_scikit_learns():
    sample = np.stack([scene(seed, 3)[0] for seed in range(2)])
    standard = (sample - sample.mean((0, 2, 3))[:, None, None]) / sample.std((0, 2, 3))[:, None, None]
    smooth = gaussian_filter(standard, (0, 0, 1, 1))
    levels = fit("threshold", sample, 3).method.levels
    np.testing.assert_allclose(levels, threshold_multiotsu(smooth.mean(1), 3))
    centres = np.array(fit("kmeans", sample, 3).method.centres)
    theirs = KMeans(3, n_init=10, random_state=0).fit(smooth.transpose(0, 2, 3, 1).reshape(-1, 3)).cluster_centers_
    np.testing.assert_allclose(centres, theirs[np.argsort(theirs.mean(1))], atol=0.02)


def test_clusters_take_true_classes():
    pairs = [scene(seed, 3) for seed in range(3)]
    sample, truth = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    swapped = np.array([1, 0, 1, 255], np.uint8)[truth]  # dark and bright are one class, the middle is class 0
    swapped[:, :5] = 255
    fitted = fit("kmeans", sample, 3, swapped, 3)
    assert fitted.class_of == (1, 0, 1)
    image, other = scene(8, 3)
    scores = fitted.scores(image)
    assert iou(scores.argmax(0), np.array([1, 0, 1], np.uint8)[other]) > 0.95
    assert (scores[2] < scores[:2].min(0)).all()  # no cluster has class 2


def test_a_rare_class_gets_a_cluster_where_that_is_better():
    """A third of the bright pixels are of class 1: by majority nothing would be."""
    pairs = [scene(seed) for seed in range(3)]
    sample, bright = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    truth = np.where(np.random.default_rng(0).random(bright.shape) < 0.4, bright, 0)
    assert fit("kmeans", sample, 2, truth, 2).class_of == (0, 1)


@pytest.mark.parametrize("name", ["threshold", "kmeans"])
def test_context_beyond_the_halo_does_not_matter(name):
    image, _ = scene(3)
    fitted = fit(name, image[None], 2)
    halo = fitted.halo
    inner = fitted.scores(image[:, 40 - halo : 80 + halo, 30 - halo : 70 + halo])[:, halo:-halo, halo:-halo]
    np.testing.assert_array_equal(inner, fitted.scores(image)[:, 40:80, 30:70])
    assert fit("watershed", image[None], 2).halo is None


def test_is_a_plain_value():
    image, _ = scene(1)
    for name in SEEN:
        fitted = fit(name, image[None], 2)
        assert fit(name, image[None], 2) == fitted
        assert pickle.loads(pickle.dumps(fitted)) == fitted
        assert repr(fitted) != repr(fit(name, image[None, :, :64], 2))


def test_tiles_of_one_value_have_an_answer():
    image, _ = scene(1)
    for name in SEEN:
        assert np.isfinite(fit(name, image[None], 2).scores(np.full((3, 16, 16), 7, np.uint8))).all()


def test_bad_questions_are_refused():
    image, _ = scene(1)
    with pytest.raises(UsageError, match="method 'magic' is not known; use threshold"):
        fit("magic", image[None])
    with pytest.raises(UsageError, match="6 clusters for threshold"):
        fit("threshold", image[None], 6)
    with pytest.raises(InputError, match="too few grey levels for 3 clusters"):
        fit("threshold", np.full((1, 1, 16, 16), 5, np.uint8), 3)
    with pytest.raises(InputError, match="4 pixels for 5 clusters"):
        fit("kmeans", np.zeros((1, 1, 2, 2), np.uint8), 5)
