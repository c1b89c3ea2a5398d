import numpy as np
import pytest

import tilepipe as tp
from tilepipe.errors import InputError
from tilepipe.sources.array import ArraySource
from tilepipe.training.fit_classical import classical_model


class Held:
    def __init__(self, labels):
        self.labels, self.shape = labels, labels.shape

    def read(self, box):
        return self.labels[box.y0 : box.y1, box.x0 : box.x1]


def town(height=210, width=190):
    """Bright squares on dark ground: (image (1, height, width), truth)."""
    rng = np.random.default_rng(0)
    truth = np.zeros((height, width), np.uint8)
    for y in range(5, height - 20, 30):
        for x in range(5, width - 20, 35):
            truth[y : y + rng.integers(8, 20), x : x + rng.integers(8, 20)] = 1
    image = np.where(truth, 180, 70) + rng.normal(0, 10, truth.shape)
    return image.astype(np.uint8)[None], truth


@pytest.mark.parametrize("method", ["threshold", "watershed", "kmeans", "slic", "region_growing"])
def test_runs_through_the_tiled_pipeline(method):
    image, truth = town()
    model = classical_model(ArraySource(image), method, ("ground", "building"))
    found = tp.predict(image, model, tile=64, overlap=16)
    assert found.shape == truth.shape
    assert ((found == 1) & (truth == 1)).sum() / ((found == 1) | (truth == 1)).sum() > (
        0.5 if method == "slic" else 0.85
    )


@pytest.mark.parametrize("method", ["threshold", "kmeans"])
def test_local_methods_do_not_depend_on_the_tiling(method):
    image, truth = town()
    model = classical_model(ArraySource(image), method, ("ground", "building"), clusters=4, truth=Held(truth))
    assert model.card.halo == 4
    whole = tp.predict(image, model, tile=256)
    for tile in (32, 57):
        np.testing.assert_array_equal(tp.predict(image, model, tile=tile, overlap=8, window_shape="crop"), whole)


def test_another_fit_is_another_model():
    image, _ = town()
    one, same = (classical_model(ArraySource(image), "kmeans", ("a", "b")) for _ in range(2))
    other = classical_model(ArraySource(image[:, :100]), "kmeans", ("a", "b"))
    assert one.sha256() == same.sha256() != other.sha256()


def test_bad_input_is_refused():
    image, truth = town()
    with pytest.raises(InputError, match=r"truth is \(10, 190\) pixels, the image \(210, 190\)"):
        classical_model(ArraySource(image), "kmeans", ("a", "b"), truth=Held(truth[:10]))
