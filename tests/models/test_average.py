"""The average over positions of a tile, against numpy and torch called by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.box import Box, Sides
from tilepipe.errors import ModelError
from tilepipe.inference.device import Compute
from tilepipe.inference.predictor import Predictor
from tilepipe.models.average import POSITIONS, Average, averaged
from tilepipe.models.probe.certificate_file import known_probe
from tilepipe.testing import noise, random_unet


def tiles() -> NDArray[np.uint8]:
    return np.stack([noise(32, 32, seed=seed).read(Box(0, 0, 32, 32)) for seed in (0, 1)])


def by_hand(network: nn.Module, x: Tensor) -> NDArray[np.float64]:
    """Mean of eight softmaxes in numpy; turns and mirrors are numpy's."""
    found = []
    for turns, mirrored in itertools.product(range(4), (False, True)):
        turned = np.rot90(x.numpy(), turns, (2, 3))
        turned = turned[..., ::-1] if mirrored else turned
        with torch.no_grad():
            p = network(torch.from_numpy(turned.copy())).double().softmax(1).numpy()
        found.append(np.rot90(p[..., ::-1] if mirrored else p, -turns, (2, 3)))
    return np.mean(found, axis=0)


@pytest.mark.parametrize("shape", [(32, 32), (16, 40)])
def test_the_mean_is_that_of_eight_calls(shape: tuple[int, int]) -> None:
    network = random_unet(depth=1).module
    x = torch.randn(2, 3, *shape)
    with torch.no_grad():
        found, logits = Average(network, "d4").probabilities(x), Average(network, "d4")(x)
    wanted = by_hand(network, x)
    assert np.abs(found.numpy() - wanted).max() < 1e-6
    assert np.abs(logits.softmax(1).numpy() - wanted).max() < 1e-6
    assert np.abs(wanted - network(x).detach().softmax(1).numpy()).max() > 1e-3, "one position says something else"


def test_positions_are_the_eight_of_a_square() -> None:
    square = torch.arange(4.0).reshape(1, 1, 2, 2)
    seen = {tuple(position.put(square).flatten().tolist()) for position in POSITIONS["d4"]}
    assert len(seen) == 8
    wide = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert all(torch.equal(position.back(position.put(wide)), wide) for position in POSITIONS["d4"])


def test_a_turned_tile_gets_exactly_the_turned_labels() -> None:
    model = averaged(random_unet(depth=1), "d4")
    predictor = Predictor(model, (32, 32), Compute("cpu", "fp32", 2))
    batch = tiles()
    labels, sums = predictor.labels(batch), predictor.probabilities(batch)
    assert len(np.unique(labels)) > 1
    for turns in range(4):
        turned = np.ascontiguousarray(np.rot90(batch, turns, (2, 3))[..., ::-1])
        assert (predictor.labels(turned) == np.rot90(labels, turns, (1, 2))[..., ::-1]).all()
        assert (predictor.probabilities(turned) == np.rot90(sums, turns, (2, 3))[..., ::-1]).all()


def test_labels_are_the_largest_of_the_probabilities_that_are_blended() -> None:
    predictor = Predictor(averaged(random_unet(depth=1), "d4"), (32, 32), Compute("cpu", "fp32", 2))
    batch = tiles()
    sums = predictor.probabilities(batch)
    assert (predictor.labels(batch) == sums.argmax(1)).all()
    assert np.abs(sums.sum(1) - (1 << 24)).max() <= 3


def test_a_reach_that_leans_to_one_side_is_that_of_all_sides() -> None:
    """The network sees 3 pixels to the left only; turned and mirrored it sees as far to every side."""
    network = nn.Sequential(nn.ZeroPad2d((3, 0, 0, 0)), nn.Conv2d(3, 2, (1, 4)))
    card = tp.ModelCard(bands=3, classes=["a", "b"])
    model = tp.Model.from_torch(network, card)
    assert tuple(tp.probe(model).reach or ()) == (0, 0, 3, 0)
    assert tuple(tp.probe(averaged(model, "d4")).reach or ()) == (3, 3, 3, 3), "measured"
    known = known_probe(averaged(model, "d4"))
    assert (known.stride, known.reach) == (1, Sides(3, 3, 3, 3)), "known from the network alone"


def test_an_average_is_another_model_and_labels_have_none() -> None:
    model = random_unet(depth=1)
    assert averaged(model, "none") is model
    assert averaged(model, "d4").sha256() != model.sha256()
    labels = tp.Model(model.card.model_copy(update={"output": "labels"}), model.module)
    with pytest.raises(ModelError, match=r"labels and no probabilities.*leave `tta` out"):
        averaged(labels, "d4")
