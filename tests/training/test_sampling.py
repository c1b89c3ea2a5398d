from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.array import ArraySource
from tilepipe.training.config import TrainConfig
from tilepipe.training.sampling import CELL, Sampler, class_weights, resized, square_around, survey
from tilepipe.training.scenes import Scene

RANDOM = np.random.default_rng(3)


def scene(height: int = 150, width: int = 200, share: float = 0.3, bands: int = 2) -> Scene:
    """Return a scene whose first band holds the label times 10 plus its row's parity, with some pixels ignored."""
    label = (RANDOM.random((height, width)) < share).astype(np.int64)
    label[RANDOM.random((height, width)) < 0.1] = -1
    image = np.stack([label * 10 + 20, *RANDOM.integers(0, 99, (bands - 1, height, width))]).astype(np.uint8)
    box = Box.of_shape(height, width)
    return Scene("s", ArraySource(image), box, box, lambda b: label[b.y0 : b.y1, b.x0 : b.x1])


def config(**changes: Any) -> TrainConfig:
    fields = {"name": "m", "output": "m", "classes": ("a", "b"), "train": [{"image": "i", "label": "l"}], "crop": 32}
    return TrainConfig(**{**fields, **changes})


def test_survey_counts_every_labelled_pixel_once() -> None:
    scenes = [scene(), scene(40, 64), scene(65, 33)]
    found = survey(scenes, 2)
    images = [s.image(Box.of_shape(*s.region.shape)) for s in scenes]
    labels = [s.label(Box.of_shape(*s.region.shape)) for s in scenes]
    flat = np.concatenate([i[:, label >= 0] for i, label in zip(images, labels, strict=True)], axis=1)
    assert found.counts.sum(0).tolist() == [sum(int((label == k).sum()) for label in labels) for k in (0, 1)]
    np.testing.assert_allclose(found.mean, flat.mean(1), rtol=1e-8)
    np.testing.assert_allclose(found.std, flat.std(1), rtol=1e-8)
    k, y, x = found.places[5]
    part = labels[k][y : y + CELL, x : x + CELL]
    assert found.counts[5].tolist() == [(part == 0).sum(), (part == 1).sum()]


def test_balanced_weights_are_the_square_root_of_those_of_scikit_learn() -> None:
    scenes = [scene(share=0.05), scene(40, 64, share=0.5)]
    found, three = survey(scenes, 3), config(classes=("a", "b", "c"), class_weights="balanced")
    labels = np.concatenate([s.label(Box.of_shape(*s.region.shape)).ravel() for s in scenes])
    wanted = np.sqrt(compute_class_weight("balanced", classes=np.array([0, 1]), y=labels[labels >= 0]))
    weights = class_weights(found, three)
    assert weights == pytest.approx((*wanted / wanted.mean(), 1.0))
    assert class_weights(found, config()) == ()
    assert class_weights(found, config(class_weights=(1, 2))) == (1.0, 2.0)


def test_survey_refuses_images_that_are_not_alike_or_not_labelled() -> None:
    with pytest.raises(InputError, match="3 bands of uint8, s has 2 of uint8"):
        survey([scene(), scene(bands=3)], 2)
    empty = scene()
    nothing = Scene("n", empty.source, empty.region, empty.full, lambda b: np.full(b.shape, -1, np.int64))
    with pytest.raises(InputError, match="no labelled pixel"):
        survey([nothing], 2)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    scenes = [scene(), scene(90, 90)]
    found = survey(scenes, 2)
    first, again = (Sampler(scenes, found, config(seed=4)) for _ in range(2))
    first.batch(0)
    for step in (7, 3):
        assert torch.equal(first.batch(step)[0], again.batch(step)[0])
    assert not torch.equal(first.batch(0)[0], first.batch(1)[0])
    assert not torch.equal(first.batch(0)[0], Sampler(scenes, found, config(seed=5)).batch(0)[0])


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("size", [(150, 200), (20, 90)])
def test_crops_hold_pixels_under_their_labels(scale: float, size: tuple[int, int]) -> None:
    scenes = [scene(*size)]
    images, labels = Sampler(scenes, survey(scenes, 2), config(augment={"scale": scale})).batch(0)
    assert images.shape == (8, 2, 32, 32)
    assert images.dtype == torch.float32
    assert labels.shape == (8, 32, 32)
    assert labels.dtype == torch.int64
    assert (labels >= 0).any((1, 2)).all()
    if scale == 1:
        held = labels != -1
        np.testing.assert_array_equal(images[:, 0][held], labels[held] * 10 + 20)


def test_balance_draws_rare_classes_as_often_as_common_ones() -> None:
    label = np.zeros((256, 256), np.int64)
    label[:8, :8] = 1
    box = Box.of_shape(256, 256)
    source = ArraySource(np.zeros((1, 256, 256), np.uint8))
    scenes = [Scene("s", source, box, box, lambda b: label[b.y0 : b.y1, b.x0 : b.x1])]
    found = survey(scenes, 2)
    share = []
    for balance in (0.0, 1.0):
        sampler = Sampler(scenes, found, config(balance=balance, crop=64, batch=100, augment={"scale": 1}))
        share.append(float((sampler.batch(0)[1] == 1).any(2).any(1).float().mean()))
    assert share[0] < 0.25
    assert share[1] > 0.4


@pytest.mark.parametrize(("at", "first"), [((0, 0), (0, 0)), ((50, 60), (34, 44)), ((99, 99), (68, 68))])
def test_squares_stay_inside_where_they_fit(at: tuple[int, int], first: tuple[int, int]) -> None:
    box = square_around(*at, 32, (100, 100))
    assert (box.y0, box.x0, *box.shape) == (*first, 32, 32)
    assert square_around(*at, 128, (100, 100)) == Box(-14, -14, 114, 114)


def test_resizing_keeps_image_and_labels_together() -> None:
    label = torch.from_numpy(np.kron(RANDOM.integers(0, 2, (8, 8)), np.ones((4, 4), int)))
    image = label[None].float() * 7
    smaller, labels = resized(image, label, 16)
    np.testing.assert_array_equal(labels, label[::2, ::2])
    inner = np.kron(np.ones((8, 8)), [[1, 0], [0, 0]]) == 1  # antialiasing reaches over edges of the cells
    assert smaller.shape == (1, 16, 16)
    assert ((smaller[0] > 3.5).long() == labels)[torch.from_numpy(inner)].all()
    larger, labels = resized(image, label, 64)
    assert larger.shape == (1, 64, 64)
    np.testing.assert_array_equal(labels, np.kron(label, np.ones((2, 2), int)))
