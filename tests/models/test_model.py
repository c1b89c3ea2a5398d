from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tilepipe as tp
from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import load_model
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.models.unread import open_models
from tilepipe.testing import random_unet

ARCH = {"name": "unet", "width": 2, "depth": 2}


class Constant(nn.Module):
    def __init__(self, chosen: int) -> None:
        super().__init__()
        self.chosen = chosen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full(x[:, 0].shape, self.chosen), 2).movedim(-1, 1).float()


def small(seed: int = 0, **card: object) -> Model:
    torch.manual_seed(seed)
    fields = {"bands": 3, "classes": ("a", "b"), "stride": 4, "arch": ARCH, **card}
    return Model.from_torch(build(ARCH, 3, 2), ModelCard(**fields))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_normalise_is_what_numpy_says(dtype: type) -> None:
    mean, std = (10.5, 0.0, -3.25), (2.0, 7.5, 0.125)
    model = small(mean=mean, std=std)
    tiles = np.random.default_rng(1).integers(0, 99, (2, 3, 4, 8)).astype(dtype)
    wanted = (tiles.astype(np.float32) - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]
    found = model.normalise(torch.from_numpy(tiles))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_normalise_without_mean_and_std_only_converts() -> None:
    tiles = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    assert torch.equal(small().normalise(tiles), tiles.float())


def test_from_torch_gives_eval_mode_and_float32() -> None:
    module = build(ARCH, 3, 2).double().train()
    model = Model.from_torch(module, small().card)
    assert not model.module.training
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert model.parameters == sum(p.numel() for p in module.parameters()) > 0


def test_sha256_sees_weights_network_and_what_decides_labels() -> None:
    model, other = small(), small()
    assert model.sha256() == other.sha256()
    next(other.module.parameters()).data.view(-1)[0] += 1e-6
    card = ModelCard(bands=1, classes=("a", "b"))
    hashes = [
        model.sha256(),
        other.sha256(),
        small(mean=(1, 2, 3)).sha256(),
        small(classes=("a", "c")).sha256(),
        small(resolution=0.5).sha256(),
        *(Model.from_torch(module, card).sha256() for module in (Constant(0), Constant(1), nn.Conv2d(1, 2, 1))),
    ]
    assert len(set(hashes)) == len(hashes)
    told = small(description="x", training={"y": 1}, license="z", tile=64, name="n")
    assert told.sha256() == model.sha256()


def test_pickles() -> None:
    model = small()
    again = pickle.loads(pickle.dumps(model))
    x = torch.rand(1, 3, 8, 8)
    assert again.sha256() == model.sha256()
    assert torch.equal(again.module(x), model.module(x))


def test_refuses_what_is_no_module_and_a_stride_that_does_not_fit() -> None:
    with pytest.raises(ModelError, match="function is not a torch"):
        Model.from_torch(lambda x: x, ModelCard(bands=1, classes=("a",)))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="card says stride 6, the network subsamples by 4; give the card stride=4"):
        small(stride=6)


def test_a_card_without_a_stride_gets_that_of_the_network() -> None:
    network = tp.load_model("buildings").module
    card = tp.ModelCard(bands=3, classes=["other", "building"])
    for model in (tp.Model.from_torch(network, card), tp.Model.from_torch(network, card, output="logits")):
        assert model.card.stride == network.stride > 1
    with pytest.raises(ModelError, match=f"card says stride 1, the network subsamples by {network.stride}"):
        tp.Model.from_torch(network, tp.ModelCard(bands=3, classes=["other", "building"], stride=1))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classess": ["a", "b"]}, "field 'classess' is unknown; did you mean 'classes'?"),
        ({"classes": ["a", "b"], "zzz": [1]}, "field 'zzz' is unknown; known are arch, band_names"),
    ],
)
def test_an_unknown_field_of_a_card_names_the_nearest(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=re.escape(words)):
        tp.ModelCard(bands=3, **fields)
    with pytest.raises(ModelError, match=re.escape(words)):
        ModelCard.from_json(json.dumps({"bands": 3, **fields}), "m.json")


@pytest.mark.parametrize("thing", [nn.Conv2d(3, 2, 1), 5, {"bands": 3}])
def test_what_is_no_model_is_refused_with_what_to_type(thing: Any) -> None:
    with pytest.raises(ModelError, match=r"is no model; give a name, a path or a tp.Model.*from_torch"):
        open_models(thing)


def test_a_card_may_be_a_dict() -> None:
    model = Model.from_torch(nn.Conv2d(3, 2, 1), {"bands": 3, "classes": ["a", "b"]})
    assert model.card == ModelCard(bands=3, classes=("a", "b"))
    with pytest.raises(ModelError, match="did you mean 'bands'"):
        Model.from_torch(nn.Conv2d(3, 2, 1), {"bnds": 3, "classes": ["a", "b"]})


def test_a_model_becomes_a_module_with_or_without_its_scaling() -> None:
    module = nn.Conv2d(3, 2, 3, padding=1)
    model = Model.from_torch(module, {"bands": 3, "classes": ["a", "b"], "mean": [9, 8, 7], "std": [2, 3, 4]})
    pixels = torch.randint(0, 255, (1, 3, 20, 30), dtype=torch.uint8)
    scaled = model.normalise(pixels)
    with torch.no_grad():
        wanted = module(scaled)
        assert torch.equal(model.to_torch()(scaled), wanted)
        assert torch.equal(model.to_torch(scaled=True)(pixels), wanted)
    mine = model.to_torch()
    nn.init.zeros_(mine.weight)  # type: ignore[arg-type]
    assert not torch.equal(model.module.weight, mine.weight)  # type: ignore[arg-type]


def test_a_model_is_saved_and_read_again(tmp_path: Path) -> None:
    model = random_unet()
    saved = load_model(model.save(tmp_path / "mine.model"))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(saved.module(x), model.module(x))
    with pytest.raises(ModelError, match="not one of tilepipe's architectures"):
        Model.from_torch(nn.Conv2d(3, 2, 1), {"bands": 3, "classes": ["a", "b"]}).save(tmp_path / "other.model")


def test_one_sigmoid_channel_is_the_second_class() -> None:
    module = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid()).train().double()
    model = Model.from_torch(module, {"bands": 3, "classes": ["a", "b"]}, output="probabilities")
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        wanted = module(x.double()) > 0.5
        assert torch.equal(model.module(x).argmax(1).bool(), wanted[:, 0])
    # The caller's module keeps its mode, device and type.
    assert module.training
    assert next(module.parameters()).dtype == torch.float64


def test_a_model_becomes_onnx_and_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = Model.from_torch(nn.Conv2d(3, 2, 3, padding=1), {"bands": 3, "classes": ["a", "b"], "mean": [9, 8, 7]})
    back = load_model(model.to_onnx(tmp_path / "mine"))
    image = np.random.default_rng(0).integers(0, 99, (3, 40, 50), dtype=np.uint8)
    assert (tp.predict(image, back) == tp.predict(image, model)).all()
