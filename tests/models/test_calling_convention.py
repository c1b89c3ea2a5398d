"""What a card says of bands, axes, borders, scaling and threshold, against the same network called by hand in torch."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_files import export
from torch import Tensor, nn
from torch.nn.functional import pad

import tilepipe as tp
from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.models.formats.load import card_path
from tilepipe.models.identity import model_identity
from tilepipe.models.nets.zoo import build
from tilepipe.text import JSON

IMAGE = np.random.default_rng(3).integers(0, 256, (3, 83, 97)).astype(np.uint8)
FIELDS: JSON = {"bands": 3, "classes": ["dark", "bright"], "stride": 1}
IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)


class Net(nn.Module):
    """Two convolutions, with `channels` scores; what goes in and out is of the way that a case asks for."""

    def __init__(self, channels: int = 2, *, padding: int = 1, last: bool = False, sigmoid: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=padding), nn.Conv2d(8, channels, 3, padding=padding)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
            self.second.weight -= self.second.weight.mean((1, 2, 3), keepdim=True)  # both labels occur
        self.last, self.sigmoid = last, sigmoid

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x.permute(0, 3, 1, 2) if self.last else x).relu())
        y = y.sigmoid() if self.sigmoid else y
        return y.permute(0, 2, 3, 1) if self.last else y


def scaled(x: Tensor) -> Tensor:
    mean, std = IMAGENET
    return (x / 255 - mean) / std


CASES: dict[str, tuple[nn.Module, JSON, Any]] = {
    "BGR": (Net(), {"channels": "BGR"}, lambda net, x: net(x[:, [2, 1, 0]]).argmax(1)),
    "NHWC": (Net(last=True), {"layout": "NHWC"}, lambda net, x: net(x.permute(0, 2, 3, 1)).argmax(3)),
    "scale": (Net(), {"scale": 255}, lambda net, x: net(x / 255).argmax(1)),
    "scale and mean": (
        Net(),
        {"scale": 255, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
        lambda net, x: net((x / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1))
                           / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)).argmax(1),
    ),
    "imagenet": (Net(), {"mean": "imagenet"}, lambda net, x: net(scaled(x)).argmax(1)),
    "imagenet in BGR": (
        Net(),
        {"mean": "imagenet", "std": "imagenet", "channels": "BGR"},
        lambda net, x: net(scaled(x).flip(1)).argmax(1),
    ),
    "unpadded": (
        Net(padding=0), {"pad": 2, "mean": "imagenet"}, lambda net, x: net(pad(scaled(x), (2,) * 4)).argmax(1)
    ),
    "padded and cut": (
        Net(), {"pad": 6, "mean": "imagenet"}, lambda net, x: net(pad(scaled(x), (6,) * 4))[..., 6:-6, 6:-6].argmax(1)
    ),
    "threshold of a logit": (
        Net(1), {"threshold": 0.3, "scale": 255, "output": "logits"},
        lambda net, x: (net(x / 255)[:, 0].sigmoid() > 0.3).long(),
    ),
    "threshold of a sigmoid": (
        Net(1, sigmoid=True), {"threshold": 0.8, "scale": 255, "output": "probabilities"},
        lambda net, x: (net(x / 255)[:, 0] > 0.8).long(),
    ),
    "threshold of two scores": (
        Net(), {"threshold": 0.7, "scale": 255}, lambda net, x: (net(x / 255).softmax(1)[:, 1] > 0.7).long()
    ),
    "all": (
        Net(1, padding=0, last=True, sigmoid=True),
        {"mean": "imagenet", "channels": "BGR", "layout": "NHWC", "pad": 2, "threshold": 0.6},
        lambda net, x: (net(pad(scaled(x), (2,) * 4).flip(1).permute(0, 2, 3, 1))[..., 0] > 0.6).long(),
    ),
}  # fmt: skip


def by_hand(name: str) -> np.ndarray:
    """Return the labels of a case away from the image's edge, where its reflection is not seen."""
    net, _, labels = CASES[name]
    with torch.no_grad():
        found: np.ndarray = labels(net, torch.from_numpy(IMAGE[None]).float())[0].numpy()[2:-2, 2:-2]
    assert 0.005 < found.mean() < 0.995  # so that the comparison can fail
    return found


def labelled(model: tp.Model) -> np.ndarray:
    """Return the labels of one tile that is the image."""
    with torch.no_grad():
        found: np.ndarray = (
            model.module(model.normalise(torch.from_numpy(IMAGE[None])))[0].argmax(0).numpy()[2:-2, 2:-2]
        )
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_module_is_called_as_its_card_says(name: str) -> None:
    net, fields, _ = CASES[name]
    model = tp.Model.from_torch(net, ModelCard(**FIELDS, **fields))
    assert (labelled(model) == by_hand(name)).mean() > 0.9995  # only ties may round to the other side


def test_tiles_of_a_network_that_takes_them_in_all_other_ways() -> None:
    net, fields, _ = CASES["all"]
    found = tp.predict(IMAGE, tp.Model.from_torch(net, ModelCard(**FIELDS, **fields)), tile=48)[2:-2, 2:-2]
    assert (found == by_hand("all")).mean() > 0.9995


@pytest.mark.parametrize("name", ["BGR", "unpadded", "threshold of a sigmoid", "all"])
@pytest.mark.parametrize("kind", ["onnx", "ts"])
def test_files_are_called_as_their_card_says(name: str, kind: str, tmp_path: Path) -> None:
    net, fields, _ = CASES[name]
    path = tmp_path / f"net.{kind}"
    if kind == "ts":
        tile = torch.zeros(1, 3, 16, 16)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on TorchScript
            torch.jit.trace(net.eval(), tile.permute(0, 2, 3, 1) if name == "all" else tile).save(str(path))
    elif name == "all":
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on this exporter
            torch.onnx.export(
                net.eval(), (torch.zeros(1, 64, 64, 3),), str(path), dynamo=False, input_names=["x"],
                output_names=["y"], dynamic_axes={k: {0: "b", 1: "h", 2: "w"} for k in ("x", "y")},
            )  # fmt: skip
    else:
        export(net, path)
    card_path(path).write_text(json.dumps({**FIELDS, **fields}))
    more = {}
    if kind == "ts":
        more["trust_model"] = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    model = load_model(path, **more)
    assert (labelled(model) == by_hand(name)).mean() > 0.999  # another runtime rounds differently


def test_a_model_directory_is_called_as_its_card_says(tmp_path: Path) -> None:
    arch: JSON = {"name": "unet", "width": 2, "depth": 1}
    torch.manual_seed(1)
    net = build(arch, 3, 2).eval()
    card = ModelCard(bands=3, classes=["a", "b"], arch=arch, mean="imagenet", channels="BGR", threshold=0.4)
    folder = save_model(tp.Model.from_torch(net, card), tmp_path / "net.model")
    with torch.no_grad():
        x = scaled(torch.from_numpy(IMAGE[None, :, :80, :96]).float()).flip(1)
        truth = (net(x).softmax(1)[0, 1] > 0.4).numpy()
    model = load_model(folder)
    with torch.no_grad():
        found = model.module(model.normalise(torch.from_numpy(IMAGE[None, :, :80, :96])))[0].argmax(0).numpy()
    assert 0.005 < truth.mean() < 0.995
    assert (found == truth).mean() > 0.999
    assert model.card == card.model_copy(update={"stride": net.stride})


def test_the_run_key_tells_cards_apart_and_a_preset_is_its_numbers() -> None:
    net = Net()
    cards: list[JSON] = [
        {}, {"threshold": 0.3}, {"threshold": 0.4}, {"channels": "BGR"}, {"pad": 2}, {"pad": 4}, {"scale": 255},
        {"mean": "imagenet"},
    ]  # fmt: skip
    keys = [model_identity(tp.Model.from_torch(net, ModelCard(**FIELDS, **fields)), "cpu", "fp32") for fields in cards]
    assert len(set(keys)) == len(cards)
    preset = ModelCard(**FIELDS, mean="imagenet")
    assert preset.mean == (0.485 * 255, 0.456 * 255, 0.406 * 255)
    assert preset.std == (0.229 * 255, 0.224 * 255, 0.225 * 255)
    assert preset.scale is None
    assert ModelCard.from_json(preset.to_json()) == preset
    assert ModelCard(**FIELDS, scale=100).std == (100.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"channels": "BGR", "bands": 4}, "channels: BGR is of three bands, and the card says bands 4"),
        ({"channels": "bgr"}, "channels: Input should be 'RGB' or 'BGR'"),
        ({"layout": "HWC"}, "layout: Input should be 'NCHW' or 'NHWC'"),
        ({"mean": "imagenet", "bands": 4}, "mean: imagenet is of red, green and blue, and the card says bands 4"),
        ({"mean": "imagenet", "std": [58, 57, 57]}, "write imagenet for both, or numbers for both"),
        ({"mean": "imagenet", "dtype": "uint16"}, "mean: imagenet is of pixels from 0 to 1; for uint16 add scale"),
        ({"mean": "imagenette"}, "mean needs a list, like [a, b]; it is 'imagenette'"),
        ({"scale": 0}, "scale: Input should be greater than or equal to 0.000001"),
        ({"threshold": 1}, "threshold: Input should be less than 1"),
        ({"threshold": 0.5, "classes": ["a"]}, "the card has 1 class and output logits"),
        ({"threshold": 0.5, "output": "labels"}, "the card has 2 classes and output labels"),
        ({"pad": -1}, "pad: Input should be greater than or equal to 0"),
    ],
)
def test_what_a_card_cannot_mean_is_refused_with_the_name_of_its_file(fields: JSON, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**FIELDS, **fields}))
    with pytest.raises(ModelError, match=re.escape(words)) as refused:
        ModelCard.load(path)
    assert str(refused.value).startswith(f"{path}: ")
    with pytest.raises(ModelError, match=re.escape(words)) as refused:
        ModelCard(**{**FIELDS, **fields})
    assert str(refused.value).startswith("model card: ")


def test_an_output_that_pad_does_not_mend_is_refused() -> None:
    with pytest.raises(ModelError, match="px for tiles of"):
        tp.predict(IMAGE, tp.Model.from_torch(Net(padding=0), ModelCard(**FIELDS, pad=1)), tile=48, overlap=0)


def test_a_network_of_bands_last_without_a_word_of_it_is_told_what_to_write() -> None:
    with pytest.raises(ModelError, match="write layout: NHWC in its card"):
        tp.predict(IMAGE, tp.Model.from_torch(Net(last=True), ModelCard(**FIELDS)))
