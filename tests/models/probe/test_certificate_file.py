"""certificate.json of a model directory: believed while the weights are those, measured again otherwise."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tilepipe.box import Sides
from tilepipe.errors import ModelError
from tilepipe.events import Event
from tilepipe.models.card import ModelCard
from tilepipe.models.contents import Contents, network_sha256
from tilepipe.models.facts import CARD, CERTIFICATE, bundled_models
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.models.model import Model
from tilepipe.models.probe.certificate_file import certificate_text, certified, with_certificate
from tilepipe.models.probe.procedure import probe_once
from tilepipe.models.probe.result import Probe
from tilepipe.planning import receptive_field
from tilepipe.testing import random_unet

MEASURED = Probe(4, Sides(1, 2, 3, 4), evidence={"window": 96}, seconds=3.0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the probes that are run; each finds a reach of 5 px. None is kept."""
    monkeypatch.setenv("TILEPIPE_CACHE", "")
    calls: list[int] = []
    answer = Probe(4, Sides(5, 5, 5, 5))
    monkeypatch.setattr(sys.modules["tilepipe.models.probe.procedure"], "_run", lambda *_: calls.append(1) or answer)
    monkeypatch.setattr(sys.modules["tilepipe.models.probe.procedure"], "_SEEN", {})
    return calls


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = random_unet()
    card = model.card.model_copy(update={"arch": {"name": "unet", "width": 4, "depth": 2}})
    text = certificate_text(MEASURED, network_sha256(model.module), 3)
    return save_model(replace(model, card=card, certificate=text), tmp_path / "net.model")


def test_a_directory_says_the_reach_per_side(directory: Path, measured: list[int]) -> None:
    card, found = receptive_field.measure_receptive_field(load_model(directory))
    assert found == receptive_field.Reach(Sides(1, 2, 3, 4), "measured")
    assert (card.stride, card.halo) == (4, 4), "what was measured, not the card's 24"
    assert not measured
    kept = json.loads((directory / CERTIFICATE).read_text())
    assert kept["halo"] == {"top": 4, "bottom": 4, "left": 4, "right": 4}
    assert kept["probe"]["seconds"] == 0, "the same network gives the same file"


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "no JSON": lambda path: path.write_text("{"),
    "a list": lambda path: path.write_text("[1]"),
    "a number": lambda path: path.write_text("1"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "too long": lambda path: path.write_text(path.read_text() + " " * (1 << 20)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "other weights": lambda path: path.write_text(path.read_text().replace('"weights": "', '"weights": "0')),
    "another procedure": lambda path: path.write_text(path.read_text().replace('"procedure": ', '"procedure": 9')),
    "no probe": lambda path: path.write_text(path.read_text().replace('"probe"', '"prob"')),
    "no stride": lambda path: path.write_text(path.read_text().replace('"stride"', '"strid"')),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_or_stale_is_measured_again(
    damage: Callable[[Path], object], directory: Path, measured: list[int]
) -> None:
    damage(directory / CERTIFICATE)
    model = load_model(directory)
    assert certified(model) is None
    assert receptive_field.measure_receptive_field(model)[1].sides == Sides(5, 5, 5, 5)
    assert measured == [1]
    assert certified(with_certificate(model)) == Probe(4, Sides(5, 5, 5, 5))


def test_without_one_it_is_measured(directory: Path, measured: list[int]) -> None:
    (directory / CERTIFICATE).unlink()
    card, found = receptive_field.measure_receptive_field(load_model(directory))
    assert (card.halo, found) == (8, receptive_field.Reach(Sides(5, 5, 5, 5), "measured")), "not the card's 24"
    assert measured == [1]


def test_a_card_that_contradicts_its_certificate_is_refused(directory: Path, measured: list[int]) -> None:
    card = json.loads((directory / CARD).read_text())
    (directory / CARD).write_text(json.dumps({**card, "halo": 0}))
    command = f"right are stride 4 and halo 4, which `tilepipe model check {directory} --write` writes"
    with pytest.raises(ModelError, match=re.escape(command)):
        receptive_field.measure_receptive_field(load_model(directory))
    assert not measured


def test_a_stride_that_the_card_does_not_allow_is_stale(directory: Path) -> None:
    card = json.loads((directory / CARD).read_text())
    (directory / CARD).write_text(json.dumps({**card, "stride": 24}))
    assert certified(load_model(directory)) is None


def test_a_model_that_cannot_be_measured_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Probe:
        raise RuntimeError("no")

    monkeypatch.setattr(sys.modules["tilepipe.models.probe.procedure"], "_run", fails)
    monkeypatch.setenv("TILEPIPE_CACHE", "")
    monkeypatch.setattr(sys.modules["tilepipe.models.probe.procedure"], "_SEEN", {})
    stale = replace(random_unet(seed=3), certificate="{}")
    assert with_certificate(stale).certificate is None
    card, found = receptive_field.measure_receptive_field(stale)
    assert (card, found.sides, found.measured) == (stale.card, Sides(24, 24, 24, 24), False)
    assert found.known == "as far as the model's card says that it sees, not measured (RuntimeError in the model)"


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_are_certified(name: str) -> None:
    model = load_model(name)
    found = certified(model)
    assert found is not None
    assert found.stride == model.card.stride
    assert found.halo is not None
    assert max(found.halo) == model.card.halo


def tiny(bias: float = 0.0) -> Model:
    net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1))
    torch.nn.init.constant_(net[0].bias, bias)  # type: ignore[arg-type]
    return Model.from_torch(net, ModelCard(bands=3, classes=["a", "b"]))


def test_probes_are_kept_between_processes(
    measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path))
    net = tiny().module
    first = probe_once(net, 3, 1)
    twin = tiny().module
    twin.load_state_dict(net.state_dict())
    assert probe_once(twin, 3, 1) == first, "another object with the same weights, as in another process"
    assert len(measured) == 1
    told: list[Event] = []
    probe_once(tiny(1.0).module, 3, 1, told.append)
    assert len(measured) == 1, "other weights in the same layers"
    assert "follow from the model's layers" in told[0].message
    for file in tmp_path.iterdir():
        file.write_text("{")
    sys.modules["tilepipe.models.probe.procedure"]._SEEN.clear()
    again = tiny().module
    again.load_state_dict(net.state_dict())
    assert probe_once(again, 3, 1) == first
    assert len(measured) == 2, "a damaged file is measured again"


class Own(nn.Conv2d):
    """Code of a user's: a function that it calls may change."""


def test_code_of_the_user_is_kept_by_what_it_answers(
    tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path))
    hooked = tiny().module
    hooked[0].register_forward_hook(lambda *_: None)
    for net in (nn.Sequential(Own(3, 2, 3, padding=1)), hooked, torch.fx.symbolic_trace(tiny().module)):
        assert not Contents(net).known
    assert Contents(random_unet().module).known
    weights = tiny().module.state_dict()
    for count in (1, 1, 2):
        net = nn.Sequential(Own(3, 2, 3, padding=1)).eval()
        net.load_state_dict(weights)
        if count == 2:
            net[0].register_forward_hook(lambda *args: args[2] * 2)
        probe_once(net, 3, 1)
        assert len(measured) == len(list(tmp_path.iterdir())) == count
