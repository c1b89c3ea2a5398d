"""An ensemble: the exact mean of several networks, against numpy and torch called by hand."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

import tilepipe as tp
from tilepipe.box import Box, Sides
from tilepipe.errors import ModelError
from tilepipe.inference.device import Compute
from tilepipe.inference.predictor import Predictor
from tilepipe.models.identity import model_identity
from tilepipe.models.joint import ensemble
from tilepipe.models.model import Model
from tilepipe.models.unread import open_models
from tilepipe.planning.receptive_field import measure_receptive_field
from tilepipe.testing import codes_model, noise, random_unet


def member(seed: int, **card: Any) -> Model:
    found = random_unet(depth=1, seed=seed)
    return Model(found.card.model_copy(update=card), found.module, f"net {seed}")


MEMBERS = [
    member(0),
    member(1, mean=(90.0, 100.0, 110.0), std=(40.0, 50.0, 60.0)),
    member(2, mean=(), std=(255.0,) * 3),
]
TILES = np.stack([noise(32, 32, seed=seed).read(Box(0, 0, 32, 32)) for seed in (0, 1)])


def predictor(model: Model) -> Predictor:
    return Predictor(model, (32, 32), Compute("cpu", "fp32", 2))


def softmaxes(models: list[Model]) -> NDArray[np.float64]:
    """Probabilities (members, n, classes, H, W) in double precision, each model scaled by hand."""
    found = []
    for model in models:
        mean, std = (
            np.array(values or default) for values, default in ((model.card.mean, [0] * 3), (model.card.std, [1] * 3))
        )
        x = (TILES.astype(np.float32) - mean[:, None, None].astype(np.float32)) / std[:, None, None].astype(np.float32)
        with torch.inference_mode():
            found.append(model.module(torch.from_numpy(x)).double().softmax(1).numpy())
    return np.stack(found)


def entropy(p: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(-(p * np.log(np.maximum(p, 1e-300))).sum(axis) / np.log(p.shape[axis]))


def test_probabilities_are_the_mean_of_the_members_each_with_its_own_scaling() -> None:
    found = predictor(ensemble(MEMBERS)).probabilities(TILES) / 2**24
    wanted = softmaxes(MEMBERS)
    assert np.abs(found - wanted.mean(0)).max() < 1e-6
    assert np.abs(wanted - wanted.mean(0)).max() > 0.1, "members differ"
    labels = predictor(ensemble(MEMBERS)).labels(TILES)
    first, second = np.sort(wanted.mean(0), axis=1)[:, ::-1][:, :2].transpose(1, 0, 2, 3)
    assert (labels == wanted.mean(0).argmax(1))[first - second > 1e-6].all()


@pytest.mark.long
@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=4, unique=True), st.randoms(), st.sampled_from(["none", "d4"]))
def test_the_order_of_models_does_not_matter(seeds: list[int], random: Any, tta: str) -> None:
    models = [member(seed) for seed in seeds]
    one = ensemble(models, tta)
    random.shuffle(models)
    other = ensemble(models, tta)
    assert model_identity(one, "cpu", "fp32") == model_identity(other, "cpu", "fp32")
    assert (one.card, one.name) == (other.card, other.name)
    a, b = predictor(one), predictor(other)
    assert (a.labels(TILES) == b.labels(TILES)).all()
    assert (a.probabilities(TILES, informed=True) == b.probabilities(TILES, informed=True)).all()


def test_the_sum_itself_does_not_depend_on_the_order() -> None:
    from tilepipe.models.joint import Joint, Scaled

    x = torch.from_numpy(TILES.astype(np.float32))
    found = []
    for models in itertools.permutations(MEMBERS):
        net = Joint([Scaled(model.module, model.card.mean, model.card.std) for model in models])
        with torch.inference_mode():
            found.append(net.informed(x))
    assert all(torch.equal(found[0], other) for other in found)


def test_mutual_information_is_that_of_the_formula() -> None:
    wanted = softmaxes(MEMBERS)
    information = entropy(wanted.mean(0), 1) - entropy(wanted, 2).mean(0)
    found = predictor(ensemble(MEMBERS)).probabilities(TILES, informed=True)
    assert found.shape == (2, 4, 32, 32)
    assert np.abs(found[:, 3] / 2**24 - information).max() < 1e-6
    assert information.max() > 0.2
    assert (found[:, :3] == predictor(ensemble(MEMBERS)).probabilities(TILES)).all()


def test_with_the_eight_positions_it_is_the_mean_of_all_answers() -> None:
    single = [predictor(ensemble([model], "d4")).probabilities(TILES) for model in MEMBERS]
    found = predictor(ensemble(MEMBERS, "d4")).probabilities(TILES)
    assert np.abs(found - np.mean(single, axis=0)).max() <= 2
    turned = np.ascontiguousarray(np.rot90(TILES, 1, (2, 3)))
    assert (predictor(ensemble(MEMBERS, "d4")).probabilities(turned) == np.rot90(found, 1, (2, 3))).all()


def test_reach_and_stride_are_those_that_suit_all_members() -> None:
    left = nn.Sequential(nn.ZeroPad2d((3, 0, 0, 0)), nn.Conv2d(3, 2, (1, 4)))
    down = nn.Sequential(
        nn.ZeroPad2d((0, 0, 0, 5)), nn.Conv2d(3, 2, (6, 1)), nn.AvgPool2d(2), nn.Upsample(scale_factor=2)
    )
    models = [tp.Model.from_torch(net, tp.ModelCard(bands=3, classes=["a", "b"])) for net in (left, down)]
    both = ensemble(models)
    card, reach = measure_receptive_field(both)
    measured = tp.probe(both)
    assert reach.measured
    assert (card.stride, reach.sides) == (measured.stride, measured.reach) == (2, Sides(0, 6, 3, 0))
    turned, everywhere = measure_receptive_field(ensemble(models, "d4"))
    assert (turned.halo, everywhere.sides) == (6, Sides(6, 6, 6, 6))


def test_an_ensemble_can_be_pickled_and_is_another_model() -> None:
    both = ensemble(MEMBERS[:2])
    again = pickle.loads(pickle.dumps(both))
    assert (predictor(again).labels(TILES) == predictor(both).labels(TILES)).all()
    keys = {
        model_identity(model, "cpu", "fp32") for model in (*MEMBERS, both, ensemble(MEMBERS), ensemble(MEMBERS[1:]))
    }
    assert len(keys) == 6
    assert model_identity(again, "cpu", "fp32") == model_identity(both, "cpu", "fp32")


def test_one_model_is_itself() -> None:
    assert open_models([MEMBERS[0]]) is open_models(MEMBERS[0]) is MEMBERS[0]
    assert open_models("forest").name == "forest"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"classes": ("class 1", "class 0", "class 2")}, r"their classes are .* names and order must agree"),
        ({"resolution": 0.5}, "they work at any pixel size and 0.5 m/px"),
        ({"band_names": ("blue", "green", "red")}, "they read the bands"),
        ({"dtype": "uint16"}, "trained on uint8 and uint16"),
        ({"output": "labels"}, "gives labels and no probabilities"),
    ],
)
def test_models_that_cannot_be_averaged_are_refused(other: dict[str, Any], said: str) -> None:
    one = member(0, dtype="uint8", band_names=("red", "green", "blue"))
    with pytest.raises(ModelError, match=said):
        ensemble([one, member(1, **other)])


def test_other_bands_and_the_same_model_twice_are_refused() -> None:
    with pytest.raises(ModelError, match="they read 3 and 1 bands"):
        ensemble([member(0), Model(codes_model(3).card, codes_model(3).module)])
    with pytest.raises(ModelError, match="a model is given twice"):
        ensemble([member(0), member(1), member(0)])
    with pytest.raises(tp.TilepipeError, match="no model is given"):
        tp.plan(noise(40, 40), [])
