"""segmentation-models-pytorch: its own directory, or architecture and weights in ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tilepipe as tp
from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats import smp as adapter
from tilepipe.models.formats.convert import convert
from tilepipe.models.formats.directory import load_model
from tilepipe.models.model import Model
from tilepipe.models.probe.upsampling_lint import lint

SMALL = {"encoder_name": "tu-resnet18", "encoder_depth": 3, "decoder_channels": [16, 8, 4]}
CARD = {"bands": 3, "classes": ["other", "thing"], "mean": [127] * 3, "std": [60] * 3, "stride": 8}


@pytest.fixture(scope="module")
def network(smp: Any) -> Any:
    torch.manual_seed(1)
    net = smp.Unet(encoder_weights=None, classes=2, **SMALL).eval()
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    return net


@pytest.fixture
def saved(network: Any, tmp_path: Path) -> Path:
    network.save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "model.json").write_text(json.dumps(CARD))
    return tmp_path / "net"


def edit(saved: Path, **config: Any) -> None:
    old = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**old, **config}))


@pytest.mark.long
def test_its_directory_gives_its_answers(network: Any, saved: Path) -> None:
    model = load_model(saved)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model.module(x), network(x))
    image = np.random.default_rng(0).integers(0, 256, (3, 130, 90)).astype(np.uint8)
    whole = tp.predict(image, model, tile=64, overlap=32)
    same = Model.from_torch(network, ModelCard(**CARD))
    assert np.array_equal(whole, tp.predict(image, same, tile=64, overlap=32))
    part = tp.predict(image, model, tp.Box(9, 20, 100, 71), tile=64, overlap=32)
    assert np.array_equal(part, whole[9:100, 20:71])


@pytest.mark.long
def test_converted_it_is_a_model_directory_of_ours(network: Any, saved: Path, tmp_path: Path) -> None:
    (saved / "model.json").write_text(json.dumps({k: v for k, v in CARD.items() if k != "stride"}))
    model = load_model(convert(saved, tmp_path / "x.model", card=saved / "model.json"))
    assert model.card.arch["name"] == "smp.Unet"  # type: ignore[index]
    assert model.card.stride == 8
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.module(x), network(x))
    again = load_model(convert(tmp_path / "x.model", tmp_path / "y.model"))
    assert again.sha256() == model.sha256()


def test_a_state_dict_with_its_architecture(network: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    arch = {"name": "smp.Unet", **SMALL}
    model = load_model(convert(tmp_path / "weights.pth", tmp_path / "x.model", card=tmp_path / "card.json", arch=arch))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.module(x), network(x))


def test_one_channel_is_the_second_class(smp: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    single = smp.Unet(encoder_weights=None, classes=1, **SMALL).eval()
    single.save_pretrained(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(CARD))
    model, x = load_model(tmp_path), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.module(x), torch.cat((torch.zeros(1, 1, 32, 32), single(x)), 1))
        assert torch.allclose(model.module(x).softmax(1)[:, 1:], single(x).sigmoid(), atol=1e-6)


def test_its_up_sampling_layers_are_seen(smp: Any, tmp_path: Path) -> None:
    smp.Linknet("tu-resnet18", encoder_weights=None, classes=2).save_pretrained(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**CARD, "stride": 32}))
    findings = lint(load_model(tmp_path).module)
    assert findings
    assert {f.kind for f in findings} == {"transposed convolution"}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"_model_class": "Unett"}, "nearest is 'Unet'"),
        ({"_model_class": "os.system"}, "unknown segmentation-models-pytorch network"),
        ({"encoder_name": "tu-hf-hub:someone/something"}, "names a place to load from"),
        ({"encoder_name": "tu-local-dir:/tmp/x"}, "names a place to load from"),
        ({"encoder_name": "resnet_18"}, "cannot make Unet"),
        ({"decoder_chanels": [1]}, "decoder_chanels|missing|extra"),
        ({"activation": "sigmoid"}, "reads logits"),
        ({"classes": 5}, "gives 5 channels, the card names 2 classes"),
        ({"encoder_depth": 4, "decoder_channels": [16, 8, 4, 4]}, "missing|is \\("),
    ],
)
def test_wrong_configurations_are_sentences(saved: Path, config: dict[str, Any], sentence: str) -> None:
    edit(saved, **config)
    with pytest.raises(ModelError, match=sentence):
        load_model(saved)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"_model_class": 3}'])
def test_damaged_configurations(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config|network"):
        load_model(saved)


def test_wrong_tensors_are_sentences(saved: Path) -> None:
    tensors = load_file(saved / adapter.WEIGHTS)
    name = "segmentation_head.0.weight"
    for change, sentence in (
        ({name: torch.zeros(2, 4, 1, 1)}, "segmentation_head.0.weight is"),
        ({name: tensors[name] * float("nan")}, "NaN"),
        ({"more": torch.zeros(1)}, "1 extra: more"),
    ):
        save_file({**tensors, **change}, saved / adapter.WEIGHTS)
        with pytest.raises(ModelError, match=sentence):
            load_model(saved)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        pytest.param(
            "segmentation_models_pytorch", "segmentation-models-pytorch is not installed", marks=pytest.mark.long
        ),
        ("torchvision", "segmentation-models-pytorch needs torchvision, which is not installed"),
    ],
)
def test_what_is_missing_is_named(missing: str, said: str, saved: Path) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from tilepipe.models.formats.directory import load_model\nfrom tilepipe.errors import ModelError\n"
        f"try:\n    load_model({str(saved)!r})\nexcept ModelError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{said}; run: pip install 'tilepipe[smp]'\n"


@pytest.mark.long
def test_a_torchvision_of_another_build_is_named(tmp_path: Path, saved: Path) -> None:
    """It fails with a RuntimeError when it is imported, since its operators are compiled for another torch."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms is missing")')
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from tilepipe.models.formats.directory import load_model\nfrom tilepipe.errors import ModelError\n"
        f"try:\n    load_model({str(saved)!r})\nexcept ModelError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torchvision::nms is missing): torch and torchvision are of different builds" in done.stdout
