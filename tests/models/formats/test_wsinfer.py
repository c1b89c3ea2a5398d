"""Folders of WSInfer: one class per patch, as its own steps give it (Pillow's resize, one patch after the other)."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import ModelError
from tilepipe.models.formats.convert import convert
from tilepipe.models.formats.directory import load_model
from tilepipe.models.model import Model

PATCH, SIZE = 40, 24
TENSOR = {"name": "ToTensor"}
MEAN, STD = (0.7238, 0.5716, 0.6779), (0.112, 0.1459, 0.1089)
CONFIG = {
    "spec_version": "1.0", "architecture": "resnet34", "num_classes": 2, "class_names": ["notumor", "tumor"],
    "patch_size_pixels": PATCH, "spacing_um_px": 0.5,
    "transform": [
        {"name": "Resize", "arguments": {"size": SIZE}}, {"name": "ToTensor"},
        {"name": "Normalize", "arguments": {"mean": MEAN, "std": STD}},
    ],
}  # fmt: skip


def classifier(channels: int = 2) -> nn.Sequential:
    torch.manual_seed(4)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, channels),
    )  # fmt: skip
    net[5].weight.data *= 20
    net[5].bias.data[0] += 4.5 * (channels > 1)  # so that either class is found on `image`
    return net.eval()


def folder_of(net: nn.Module, folder: Path, **config: Any) -> Path:
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on TorchScript
        torch.jit.trace(net, torch.zeros(2, 3, SIZE, SIZE)).save(str(folder / "torchscript_model.pt"))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def digest(folder: Path) -> str:
    return f"sha256:{hashlib.sha256((folder / 'torchscript_model.pt').read_bytes()).hexdigest()}"


def opened(folder: Path) -> Model:
    return load_model(folder, trust_model=digest(folder))


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    return classifier()


@pytest.fixture(scope="module")
def folder(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(net, tmp_path_factory.mktemp("zoo") / "breast-tumor")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Blotches of the colours of a stain, whose patches differ."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(90, 250, (7, 9, 3)).astype(np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((9 * PATCH, 7 * PATCH), Image.Resampling.BICUBIC))
    return np.moveaxis(large, 2, 0)[:, : 6 * PATCH + 13, : 8 * PATCH + 30].copy()


def by_hand(net: nn.Module, image: np.ndarray) -> np.ndarray:
    """Return scores (classes, rows, columns) of all whole patches: Resize, ToTensor, Normalize as torchvision does."""
    rows, columns = image.shape[1] // PATCH, image.shape[2] // PATCH
    found = []
    for y in range(rows):
        for x in range(columns):
            cut = image[:, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH]
            picture = Image.fromarray(np.moveaxis(cut, 0, 2)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
            tensor = (tensor - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
            with torch.no_grad():
                found.append(net(tensor[None])[0].numpy())
    return np.stack(found, 1).reshape(-1, rows, columns)


def test_each_patch_has_the_class_that_wsinfers_steps_give(folder: Path, net: nn.Module, image: np.ndarray) -> None:
    theirs = by_hand(net, image)
    model = opened(folder)
    labels = tp.predict(image, model)
    assert 0.2 < theirs.argmax(0).mean() < 0.8
    assert np.abs(theirs[1] - theirs[0]).min() > 0.05
    rows, columns = theirs.shape[1:]
    expected = theirs.argmax(0).repeat(PATCH, 0).repeat(PATCH, 1)
    np.testing.assert_array_equal(labels[: rows * PATCH, : columns * PATCH], expected)
    logits = tp.predict(image, model, returns="logits")
    # Pillow rounds each resized pixel to a whole number; tilepipe does not.
    np.testing.assert_allclose(logits[:, : rows * PATCH : PATCH, : columns * PATCH : PATCH], theirs, atol=0.05)


def test_labels_depend_on_no_tile_and_a_region_is_a_crop(folder: Path, image: np.ndarray) -> None:
    model = opened(folder)
    whole = tp.predict(image, model)
    plan = tp.plan(image, model)
    assert "labels equal whole-image inference" in str(plan)
    for tile in (PATCH, 3 * PATCH):
        assert np.array_equal(tp.predict(image, model, tile=tile), whole)
    part = tp.predict(image, pickle.loads(pickle.dumps(model)), tp.Box(13, 30, 200, 301))
    assert np.array_equal(part, whole[13:200, 30:301])
    with pytest.raises(tp.TilepipeError, match=f"{PATCH}"):
        tp.predict(image, model, tile=64)


def test_the_configuration_is_the_card(folder: Path) -> None:
    card = opened(folder).card
    assert (card.name, card.classes, card.bands) == ("breast-tumor", ("notumor", "tumor"), 3)
    assert (card.resolution, card.unit, card.stride, card.halo) == (0.5, "um", PATCH, 0)
    assert card.mean == pytest.approx([255 * m for m in MEAN])
    assert card.std == pytest.approx([255 * s for s in STD])


def test_it_is_trusted_by_its_hash_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=rf"torchscript_model\.pt is refused: .*{digest(folder)}"):
        load_model(folder)
    assert main(["model", "check", str(folder), "--trust-model", digest(folder)]) == 0
    assert "classified alone" in capsys.readouterr().out


def test_converted_it_gives_the_same(folder: Path, image: np.ndarray, tmp_path: Path) -> None:
    made = convert(folder, tmp_path / "tumor.model", trust_model=digest(folder))
    with pytest.raises(ModelError, match="is refused"):
        load_model(made)
    again = load_model(made, trust_model=digest(folder))
    assert np.array_equal(tp.predict(image, again), tp.predict(image, opened(folder)))


def test_a_first_card_is_what_the_configuration_says(net: nn.Module, tmp_path: Path) -> None:
    folder = folder_of(net, tmp_path / "zoo")
    assert main(["model", "card", str(folder), "--init", "--set", "classes=[rest, tumour]"]) == 0
    assert opened(folder).card.classes == ("rest", "tumour")
    assert opened(folder).card.arch == {"name": "patches", "patch": PATCH, "size": SIZE}


def test_one_score_is_that_of_the_class_beside_all_others(image: np.ndarray, tmp_path: Path) -> None:
    net = classifier(1)
    folder = folder_of(net, tmp_path / "one", num_classes=1, class_names=["tumor"])
    assert opened(folder).card.classes == ("not tumor", "tumor")
    theirs = (by_hand(net, image)[0] > 0).repeat(PATCH, 0).repeat(PATCH, 1)
    labels = tp.predict(image, opened(folder))
    assert np.array_equal(labels[: theirs.shape[0], : theirs.shape[1]], theirs)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"class_names": ["tumor"]}, "num_classes is 2 and class_names are"),
        ({"patch_size_pixels": 0}, "patch_size_pixels is 0"),
        ({"patch_size_pixels": 10**9}, "patch_size_pixels is 1000000000"),
        ({"spacing_um_px": "fine"}, r"config\.json: .*resolution"),
        ({"spacing_um_px": -1}, r"config\.json: .*resolution"),
        ({"transform": [{"name": "ToTensor"}, {"name": "ColorJitter"}]}, "transforms ToTensor, ColorJitter"),
        ({"transform": [{"name": "Normalize"}, {"name": "Resize"}]}, "transforms Normalize, Resize"),
        ({"transform": [{"name": "Resize", "arguments": {"size": [24, 30]}}, TENSOR]}, "resizes to a square"),
        (
            {"transform": [{"name": "Resize", "arguments": {"size": 24, "interpolation": "nearest"}}, TENSOR]},
            "to a square",
        ),
        (
            {"transform": [TENSOR, {"name": "Normalize", "arguments": {"mean": [1, 2], "std": [1, 2]}}]},
            "2 values for 3 bands",
        ),
        ({"transform": [TENSOR, {"name": "Normalize", "arguments": [1]}]}, "arguments"),
        ({"transform": {}}, "transforms none"),
    ],
)
def test_configurations_that_cannot_be_read(
    net: nn.Module, tmp_path: Path, config: dict[str, Any], sentence: str
) -> None:
    folder = folder_of(net, tmp_path / "zoo", **config)
    with pytest.raises(ModelError, match=sentence):
        opened(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"num_classes": 2}', "x" * (1 << 21)])
def test_damaged_configurations(folder: Path, tmp_path: Path, text: str) -> None:
    other = tmp_path / "zoo"
    other.mkdir()
    (other / "torchscript_model.pt").write_bytes((folder / "torchscript_model.pt").read_bytes())
    (other / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        opened(other)


def test_a_network_that_classifies_no_patches(tmp_path: Path) -> None:
    folder = folder_of(nn.Sequential(nn.Conv2d(3, 2, 1)), tmp_path / "map")
    with pytest.raises(ModelError, match=r"gives \(1, 2, 24, 24\) for .*, and a classifier of patches gives \(1, 2\)"):
        opened(folder)
    folder = folder_of(classifier(5), tmp_path / "five")
    with pytest.raises(ModelError, match=r"gives \(1, 5\)"):
        opened(folder)


def test_a_card_that_contradicts_the_patch(net: nn.Module, tmp_path: Path) -> None:
    folder = folder_of(net, tmp_path / "zoo")
    for fields, sentence in (
        ({"stride": 30}, "stride 30 and patches of 40 px"),
        ({"stride": PATCH, "arch": {"name": "patches", "patch": "x"}}, "does not fit"),
    ):
        card = tp.ModelCard(**{**opened(folder).card.model_dump(), "halo": None, **fields})
        (folder / "model.json").write_text(card.to_json())
        with pytest.raises(ModelError, match=sentence):
            opened(folder)
        (folder / "model.json").unlink()
