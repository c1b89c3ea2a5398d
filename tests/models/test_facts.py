"""Facts beside the bundled models: those of their networks, and ignored where they are of something else."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tilepipe.errors import ModelError
from tilepipe.execution.keys import Keys
from tilepipe.inference.device import resolve_device
from tilepipe.inference.profile.footprint import facts_of
from tilepipe.models import facts as module
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import BUNDLED, FACTS, WEIGHTS, bundled_models, facts_text, read_facts
from tilepipe.models.formats.directory import load_model
from tilepipe.models.identity import model_identity
from tilepipe.models.probe.certificate_file import certified
from tilepipe.models.unread import Unread, open_model
from tilepipe.planning.planner import plan
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 1200, 1300), dtype=np.uint8)


@pytest.fixture
def no_torch_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let facts be read as in a process that has not imported torch."""
    monkeypatch.setattr(module, "sys", type("fresh", (), {"modules": {}}))


def unread(folder: Path) -> Unread:
    card = ModelCard.load(folder / "model.json")
    found = read_facts(card, folder / WEIGHTS)
    assert found is not None
    return Unread(card, folder.name, folder, found)


@pytest.mark.parametrize("name", bundled_models())
def test_facts_are_those_of_the_network(name: str) -> None:
    model, folder = load_model(name), BUNDLED / f"{name}.model"
    found = facts_of(model)
    assert found is not None
    assert (folder / FACTS).read_text() == facts_text(found, model.card, folder / WEIGHTS), (
        f"the bundled model {name} has changed: write this text into its {FACTS}"
    )


@pytest.mark.parametrize("name", bundled_models())
@pytest.mark.usefixtures("no_torch_yet")
def test_a_model_that_is_not_read_says_what_the_one_that_is_says(name: str) -> None:
    early, model = open_model(name), load_model(name)
    assert isinstance(early, Unread)
    assert (early.card, early.certificate, early.name) == (model.card, model.certificate, model.name)
    assert (early.sha256(), early.card_sha256()) == (model.sha256(), model.card_sha256())
    assert model_identity(early, "cpu", "fp32") == model_identity(model, "cpu", "fp32")
    assert certified(early) == certified(model) is not None
    assert "module" not in vars(early)
    for mine, theirs in zip(early.module.state_dict().values(), model.module.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("settings", [{}, {"tile": 256, "layers": "margin"}, {"precision": "fp64"}, {"overlap": 128}])
@pytest.mark.usefixtures("no_torch_yet")
def test_plans_and_keys_are_the_same(settings: dict[str, object]) -> None:
    image, models = ArraySource(IMAGE, name="array"), (open_model("buildings"), load_model("buildings"))
    plans = [plan(image, model, pixel_size=0.3, **settings) for model in models]  # type: ignore[arg-type]
    assert plans[0] == plans[1]
    steady = [[row for row in made.fit_table if row.name not in ("memory", "disk")] for made in plans]
    assert steady[0] == steady[1]
    models = open_model("buildings"), load_model("buildings")
    early, late = (Keys.of(image, model, Request.of(settings)) for model in models)
    assert early == late


@pytest.mark.parametrize("what", ["weights", "card", "version", "torch", "torn", "list", "none"])
@pytest.mark.usefixtures("no_torch_yet")
def test_facts_of_something_else_are_ignored(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(BUNDLED / "forest.model", tmp_path / "forest.model")
    card, path = ModelCard.load(folder / "model.json"), folder / FACTS
    assert read_facts(card, folder / WEIGHTS) is not None
    if what == "weights":
        content = bytearray((folder / WEIGHTS).read_bytes())
        content[-1] ^= 1
        (folder / WEIGHTS).write_bytes(content)
    if what == "card":
        card = card.model_copy(update={"mean": (1.0, 2.0, 3.0)})
    if what in ("version", "torch"):
        values = json.loads(path.read_text())
        values["versions"]["tilepipe" if what == "version" else "torch"] = "0.0.1"
        path.write_text(json.dumps(values))
    if what in ("torn", "list"):
        path.write_text(path.read_text()[:100] if what == "torn" else "[]")
    if what == "none":
        path.unlink()
    assert read_facts(card, folder / WEIGHTS) is None


def test_where_torch_is_imported_the_network_is_read() -> None:
    assert "torch" in sys.modules
    assert not isinstance(open_model("forest"), Unread)


@pytest.mark.usefixtures("no_torch_yet")
def test_weights_that_change_meanwhile_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLED / "forest.model", tmp_path / "forest.model")
    early = unread(folder)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-2:] = b"\x00\x00"
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="changed while it was used; run the command again"):
        early.module  # noqa: B018 - reading it is what is tested


@pytest.mark.usefixtures("no_torch_yet")
def test_other_processes_get_the_network() -> None:
    sent = pickle.loads(pickle.dumps(open_model("forest")))
    assert sent.sha256() == load_model("forest").sha256()
    assert "module" in vars(sent)


def test_a_device_is_resolved_as_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr("tilepipe.inference.device.runpy.run_path", lambda _: {"cuda": None, "hip": None})
    assert resolve_device("auto") == "cpu"
    assert "torch" not in sys.modules
