"""Training that starts from another model, or from an encoder of others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_files import pointwise, save, write_card

from tilepipe.errors import ModelError, UsageError
from tilepipe.events import Event
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.models.model import Model
from tilepipe.models.nets.arch import Body
from tilepipe.models.nets.encoders import fit_bands
from tilepipe.models.nets.resnet import ResNet
from tilepipe.models.nets.zoo import ARCHITECTURES, build
from tilepipe.training.config import TrainConfig
from tilepipe.training.loop import fit, start
from tilepipe.training.sampling import survey
from tilepipe.training.scenes import open_scenes
from tilepipe.training.transfer import Origin, take_over

Write = Callable[..., Path]
Configure = Callable[..., TrainConfig]

ARCH = {"name": "unet", "width": 2, "depth": 2}
RESNET = {"name": "unet", "encoder": "resnet18", "depth": 2, "width": 2}
RANDOM = np.random.default_rng(0)


def saved(folder: Path, name: str = "s", arch: dict[str, Any] = ARCH, **card: Any) -> Model:
    """Return a model of random weights, saved as `name.model`."""
    fields = {"name": name, "bands": 3, "classes": ("a", "b"), "mean": (9, 8, 7), "std": (3, 2, 1), **card}
    torch.manual_seed(5)
    net = build(arch, fields["bands"], len(fields["classes"]))
    model = Model.from_torch(net, ModelCard(**fields, arch=arch, stride=net.stride))
    return load_model(save_model(model, folder / f"{name}.model"))


@pytest.fixture
def small(write: Write, configure: Configure) -> Configure:
    """Return a configuration of few steps on one image of `bands` bands."""

    def _small(bands: int = 3, dtype: Any = np.uint8, **changes: Any) -> TrainConfig:
        image = write("i.tif", RANDOM.integers(0, 255, (bands, 32, 32)).astype(dtype))
        label = write("l.tif", RANDOM.integers(0, 2, (32, 32), dtype=np.uint8))
        fields = {"train": [{"image": str(image), "label": str(label)}], "steps": 2, "batch": 1, "crop": 16}
        return configure(**{**fields, "augment": {"scale": 1}, "half": False, **changes})

    return _small


def first(config: TrainConfig) -> torch.nn.Module:
    """Return the network before the first step."""
    origin = Origin.of(config)
    config = origin.completed(config)
    return start(open_scenes(config.train, config), config, origin).module


def test_all_weights_network_and_pixel_size_are_those_of_the_start(small: Configure, tmp_path: Path) -> None:
    source = saved(tmp_path, resolution=1.0)
    config = small(start=str(tmp_path / "s.model"), learning_rate=1e-12, ema=0)
    for name, tensor in first(config).state_dict().items():
        assert torch.equal(tensor, source.module.state_dict()[name]), name
    made = load_model(fit(config))
    for name, value in made.module.named_parameters():  # the rate is next to nothing
        assert torch.allclose(value, source.module.get_parameter(name), atol=1e-9), name
    card = made.card
    assert (card.arch, card.resolution, card.mean, card.std) == (ARCH, 1.0, (9, 8, 7), (3, 2, 1))
    said = card.training["start"]
    assert said == {"name": "s", "sha256": source.sha256(), "new": [], "statistics": "start"}
    assert str(tmp_path) not in str(card.training)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_other_classes_get_a_new_head(name: str) -> None:
    arch = {"name": name, "width": 2}
    torch.manual_seed(0)
    old = build(arch, 3, 2)
    source = Model.from_torch(old, ModelCard(bands=3, classes=("a", "b"), arch=arch, stride=old.stride))
    new = build(arch, 3, 4)
    before = {n: t.clone() for n, t in new.state_dict().items()}
    said = take_over(source, new)
    fresh = {line.split()[0] for line in said}
    assert all(" is new, as 2 classes became 4" in line for line in said)
    assert fresh == {n for n, t in new.state_dict().items() if t.shape != old.state_dict()[n].shape}
    assert 0 < len(fresh) < len(before) / 2
    for tensor, wanted in ((t, (before if n in fresh else old.state_dict())[n]) for n, t in new.state_dict().items()):
        assert torch.equal(tensor, wanted)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("bands", [1, 2, 4])
def test_other_bands_get_a_fitted_first_convolution(name: str, bands: int) -> None:
    arch = {"name": name, "width": 2}
    torch.manual_seed(0)
    old = build(arch, 3, 4)
    card = ModelCard(bands=3, classes=tuple("abcd"), arch=arch, stride=old.stride)
    new = build(arch, bands, 4)
    (line,) = take_over(Model.from_torch(old, card), new)
    layer = line.split()[0]
    assert line == f"{layer} made for {bands} bands from 3"
    for key, tensor in new.state_dict().items():
        source = old.state_dict()[key]
        assert torch.equal(tensor, fit_bands(source, bands) if key == layer else source)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        (
            {**ARCH, "width": 4},
            r"encoder\.stages\.0\.block\.conv1\.weight is \(2, 3, 3, 3\) there and is \(4, 3, 3, 3\)",
        ),
        ({**ARCH, "depth": 1}, r"decoder\.0\.block\.conv1\.weight is"),
        ({**ARCH, "depth": 3}, r"encoder\.stages\.3\.block\.conv1\.weight does not exist there and is \(16, 8, 3, 3\)"),
        ({"name": "segnet", "width": 2, "depth": 2}, r"encoder\.0\.conv1\.weight does not exist there"),
    ],
)
def test_another_architecture_is_named_by_its_first_difference(
    small: Configure, tmp_path: Path, arch: dict[str, Any], words: str
) -> None:
    saved(tmp_path)
    with pytest.raises(
        ModelError, match=rf"arch does not fit start .*{words}.* leave arch out to take .*'unet'"
    ) as said:
        fit(small(start=str(tmp_path / "s.model"), arch=arch))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"statistics": "start"}, True),
        ({"statistics": "data"}, False),
        ({"bands": 5}, False),
        ({"dtype": np.uint16}, False),
        ({"dtype": np.uint16, "statistics": "start"}, True),
    ],
)
def test_whose_statistics(small: Configure, tmp_path: Path, changes: dict[str, Any], kept: bool) -> None:
    saved(tmp_path, dtype="uint8")
    config = small(start=str(tmp_path / "s.model"), **changes)
    origin = Origin.of(config)
    scenes = open_scenes(config.train, config)
    state = start(scenes, origin.completed(config), origin)
    found = origin.scaled(survey(scenes, 2), scenes[0].source, config)
    assert state.origin["start"]["statistics"] == ("start" if kept else "data")
    assert (found.mean.tolist() == [9, 8, 7]) == (found.std.tolist() == [3, 2, 1]) == kept
    assert all(kept or 100 < mean < 150 for mean in found.mean)


def test_what_cannot_be_started_from(small: Configure, tmp_path: Path) -> None:
    saved(tmp_path)
    path = str(tmp_path / "s.model")
    with pytest.raises(UsageError, match="are those of 3 bands, the images have 5; use statistics 'data'"):
        fit(small(bands=5, start=path, statistics="start"))
    with pytest.raises(UsageError, match="statistics 'start' needs start"):
        small(statistics="start")
    with pytest.raises(UsageError, match="start and encoder_weights exclude each other"):
        small(start=path, encoder_weights="resnet18")
    with pytest.raises(ModelError, match="there is no model 'bildings': did you mean 'buildings'"):
        fit(small(start="bildings"))
    onnx = write_card(save(pointwise(), tmp_path / "p.onnx"))
    with pytest.raises(ModelError, match=r"p\.onnx is none of tilepipe's own networks"):
        fit(small(start=str(onnx)))


class Stop(Exception):  # noqa: N818 - no error, the plug is pulled
    pass


def stop(event: Event) -> None:
    if event.stage == "train":
        raise Stop


@pytest.mark.long
def test_a_stopped_run_goes_on_from_the_same_start_only(small: Configure, tmp_path: Path) -> None:
    saved(tmp_path)
    saved(tmp_path, "t", mean=(1, 1, 1))
    config = small(start=str(tmp_path / "s.model"), checkpoint=1)
    whole = load_model(fit(config.model_copy(update={"output": str(tmp_path / "whole.model")})))
    with pytest.raises(Stop):
        fit(config, stop)  # after the checkpoint of step 1
    with pytest.raises(UsageError, match="of another configuration"):
        fit(config.model_copy(update={"start": str(tmp_path / "t.model")}))
    (tmp_path / "s.model").rename(tmp_path / "moved.model")
    resumed = load_model(fit(config.model_copy(update={"start": str(tmp_path / "moved.model")})))
    assert resumed.sha256() == whole.sha256()


@pytest.mark.long
def test_encoder_weights_from_a_file(small: Configure, tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = ResNet(3, Body(encoder="resnet18", depth=5)).state_dict()
    path = tmp_path / "resnet18.pth"
    torch.save({**weights, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, path)
    config = small(bands=5, arch=RESNET, encoder_weights=str(path))
    encoder = first(config).get_submodule("encoder").state_dict()
    assert torch.equal(encoder["layer1.1.conv2.weight"], weights["layer1.1.conv2.weight"])
    assert torch.equal(encoder["conv1.weight"], fit_bands(weights["conv1.weight"], 5))
    card = load_model(fit(config)).card
    wanted = {"name": "resnet18.pth", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert card.training["encoder_weights"] == wanted
    assert all(100 < mean < 150 for mean in card.mean)  # of the data, never ImageNet's
    with pytest.raises(ModelError, match=r"are for resnet18, resnet34, resnet50; .* not 'plain'"):
        fit(small(arch=ARCH, encoder_weights=str(path), output=str(tmp_path / "n.model")))
