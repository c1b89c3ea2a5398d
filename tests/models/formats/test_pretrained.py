"""Encoder weights as torchvision and timm keep them; nothing is downloaded here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tilepipe.errors import ModelError
from tilepipe.models.formats.pretrained import pretrained
from tilepipe.models.nets.arch import Body
from tilepipe.models.nets.encoders import load_encoder_weights
from tilepipe.models.nets.resnet import ResNet


@pytest.fixture
def offline(timm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm that draws weights where it would download them."""
    create = timm.create_model

    def drawn(name: str, *, pretrained: bool) -> Any:
        assert pretrained
        torch.manual_seed(3)
        return create(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", drawn)
    return create


@pytest.mark.parametrize("how", ["pth", "safetensors", "timm"])
def test_the_encoder_computes_what_timms_does(offline: Any, tmp_path: Path, how: str) -> None:
    name: Any = "resnet18"
    torch.manual_seed(3)
    theirs = offline(name, pretrained=False).eval()
    path = tmp_path / f"{name}.{how}"
    if how == "pth":
        torch.save(theirs.state_dict(), path)
    elif how == "safetensors":
        save_file(theirs.state_dict(), path)
    state = torch.random.get_rng_state()
    found = pretrained(name if how == "timm" else str(path), name)
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(found.sha256) == 64
    assert found.name == ("timm/" + name if how == "timm" else path.name)
    ours = ResNet(3, Body(encoder=name, depth=5)).eval()
    load_encoder_weights(ours, found.tensors)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x)[-1], theirs.forward_features(x))


@pytest.mark.parametrize("bands", [1, 4])
def test_other_bands_compute_what_timms_does(timm: Any, bands: int) -> None:
    from timm.models import adapt_input_conv

    theirs = timm.create_model("resnet18", pretrained=False, features_only=True).eval()
    weights = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    adapted = timm.create_model("resnet18", pretrained=False, features_only=True, in_chans=bands).eval()
    adapted.load_state_dict({**weights, "conv1.weight": adapt_input_conv(bands, weights["conv1.weight"].clone())})
    ours = ResNet(bands, Body(encoder="resnet18", depth=5)).eval()
    load_encoder_weights(ours, weights)
    x = torch.randn(1, bands, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x)[-1], adapted(x)[-1])


def test_the_hash_is_that_of_the_tensors(offline: Any) -> None:
    first = pretrained("resnet18", "resnet18")
    assert first.sha256 == pretrained("resnet18.a1_in1k", "resnet18").sha256
    offline_weights = first.tensors["conv1.weight"].clone()
    assert torch.equal(offline_weights, pretrained("resnet18", "resnet18").tensors["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet50", "resnet18d", "resnett18", "hf-hub:someone/resnet18"])
def test_names_that_are_not_of_this_encoder(name: str) -> None:
    with pytest.raises(ModelError, match="resnet18") as said:
        pretrained(name, "resnet18")
    assert "\n" not in str(said.value)


def test_no_network_is_one_sentence(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **options: Any) -> Any:
        raise OSError("We couldn't connect\nto the host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        ModelError, match=r"cannot give .*OSError: We couldn't connect\).* resnet18\.safetensors$"
    ) as said:
        pretrained("resnet18.a1_in1k", "resnet18")
    assert "\n" not in str(said.value)


def test_without_timm_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'tilepipe\[timm\]'"):
        pretrained("resnet18", "resnet18")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.pth is missing"):
        pretrained(str(tmp_path / "none.pth"), "resnet18")
    torch.save({"conv1.weight": torch.full((1,), torch.nan)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="holds NaN"):
        pretrained(str(tmp_path / "w.pth"), "resnet18")
    torch.save(torch.nn.Conv2d(1, 1, 1), tmp_path / "whole.pth")
    with pytest.raises(ModelError, match="is not a plain state dict"):
        pretrained(str(tmp_path / "whole.pth"), "resnet18")


def test_a_larger_resnet_does_not_fit() -> None:
    large, small = (ResNet(3, Body(encoder=name, depth=5)) for name in ("resnet34", "resnet18"))
    with pytest.raises(ModelError, match=r"hold 'layer1\.2\.conv1\.weight', which the encoder lacks"):
        load_encoder_weights(small, large.state_dict())
