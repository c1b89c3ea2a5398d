"""A model directory is read once; afterwards its facts say what the network says, or it is read again."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from tilepipe.cache import cache_directory
from tilepipe.errors import ModelError
from tilepipe.inference.profile.known_models import open_known
from tilepipe.models import kept_facts as module
from tilepipe.models.facts import CARD, CERTIFICATE, WEIGHTS
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.models.formats.tensors import read_safetensors
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.models.unread import Unread
from tilepipe.planning.memory import needs_of

ARCH = {"name": "unet", "width": 2, "depth": 2}


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what lets facts be read as in a process that has not imported torch."""
    return lambda: monkeypatch.setattr(module, "sys", type("fresh", (), {"modules": {}}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model directory whose card leaves the stride to the network, beside an empty cache."""
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    card = {"bands": 3, "classes": ["a", "b"], "mean": [9, 8, 7], "arch": ARCH, "name": "mine"}
    return save_model(Model.from_torch(build(ARCH, 3, 2), card), tmp_path / "mine.model")


def test_a_directory_is_read_once(folder: Path, new_process: Callable[[], None]) -> None:
    (folder / CARD).write_text(load_model(folder).card.model_copy().to_json().replace('"stride": 4', '"license": ""'))
    model = open_known(folder)
    assert not isinstance(model, Unread)
    new_process()
    for asked in (folder, str(folder), [str(folder)]):
        known = open_known(asked)
        assert isinstance(known, Unread)
        assert (known.card, known.certificate, known.name) == (model.card, model.certificate, model.name)
        assert known.card.stride == 4
        assert (known.sha256(), known.card_sha256()) == (model.sha256(), model.card_sha256())
        assert model_identity(known, "cpu", "fp32") == model_identity(model, "cpu", "fp32")
        assert needs_of(known, "float32", None, (64, 64), 4) == needs_of(model, "float32", None, (64, 64), 4)
        assert "module" not in vars(known)
        for mine, theirs in zip(known.module.state_dict().values(), model.module.state_dict().values(), strict=True):
            assert torch.equal(mine, theirs)


def _other_weight(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-2] ^= 1
    known = os.stat(folder / WEIGHTS)
    (folder / WEIGHTS).write_bytes(content)
    os.utime(folder / WEIGHTS, ns=(known.st_atime_ns, known.st_mtime_ns))


def _other_card(folder: Path) -> None:
    text = (folder / CARD).read_text()
    (folder / CARD).write_text(text.replace("7.0", "6.0"))
    assert (folder / CARD).read_text() != text


def _damaged_entry(_: Path) -> None:
    directory = cache_directory()
    assert directory is not None
    (entry,) = directory.glob("facts-*.json")
    entry.write_text(entry.read_text().replace("peak", "paek"))


def _planted_entry(_: Path) -> None:
    directory = cache_directory()
    assert directory is not None
    (entry,) = directory.glob("facts-*.json")
    entry.chmod(0o666)


CHANGES = {
    "weights": _other_weight,
    "card": _other_card,
    "a further file": lambda folder: (folder / "rdf.yaml").write_text("type: model"),
    "damaged entry": _damaged_entry,
    "planted entry": _planted_entry,
}


@pytest.mark.parametrize("what", [*CHANGES, "version", "torch", "code", "no cache"])
def test_facts_of_something_else_are_not_used(
    folder: Path, what: str, new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_known(folder)
    new_process()
    assert module.kept_facts(str(folder)) is not None
    if what in CHANGES:
        CHANGES[what](folder)
    elif what == "code":
        monkeypatch.setattr(module, "_code", lambda: "changed")
    elif what == "no cache":
        monkeypatch.setenv("TILEPIPE_CACHE", "")
    else:
        package = "tilepipe" if what == "version" else what
        monkeypatch.setattr(
            "tilepipe.models.kept_facts.version", lambda name: "0.0.1" if name == package else version(name)
        )
    assert module.kept_facts(str(folder)) is None


def test_where_torch_is_imported_the_network_is_read(folder: Path) -> None:
    open_known(folder)
    assert "torch" in sys.modules
    assert not isinstance(open_known(folder), Unread)


def test_weights_that_change_while_they_are_used_are_refused(folder: Path, new_process: Callable[[], None]) -> None:
    open_known(folder)
    new_process()
    known = open_known(folder)
    _other_weight(folder)
    with pytest.raises(ModelError, match="was changed while it was used; run the command again"):
        known.module  # noqa: B018 - reading it is what is tested


def test_files_that_change_while_they_are_read_leave_no_facts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = read_safetensors(path, wanted)
        _other_weight(folder)
        return found

    monkeypatch.setattr("tilepipe.models.formats.directory.read_safetensors", read)
    open_known(folder)
    assert not list((folder.parent / "cache").glob("facts-*"))


@pytest.mark.parametrize("what", ["name of the hub", "pipe", "missing", "other program"])
def test_what_is_no_directory_of_ours_has_no_facts(
    folder: Path, what: str, new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    named = folder
    if what == "name of the hub":
        named = Path("hf:some") / "one"
        named.parent.mkdir()
        folder.rename(named)
    elif what == "other program":
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
        with pytest.raises(ModelError):
            open_known(folder)
    else:
        (folder / WEIGHTS).unlink()
        if what == "pipe":
            os.mkfifo(folder / WEIGHTS)
    new_process()
    assert module.kept_facts(str(named)) is None
    assert (module.directory_sha256(str(named)) is None) == (what != "other program")


def test_a_certificate_may_be_missing_or_no_file(folder: Path, new_process: Callable[[], None]) -> None:
    (folder / CERTIFICATE).unlink(missing_ok=True)
    open_known(folder)
    new_process()
    assert open_known(folder).certificate is None
    moved = shutil.copytree(folder, folder.with_name("moved.model"))
    assert isinstance(open_known(moved), Unread), "facts belong to the content, wherever it lies"
