"""Models on a hub: a small server on this machine stands for the Hugging Face hub, and counts what it is asked for."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest

import tilepipe as tp
from tilepipe.errors import ModelError
from tilepipe.models.formats import hub
from tilepipe.models.formats.convert import convert
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.testing import random_unet

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = f"hf:someone/fields@{COMMIT}"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that is used: what a commit holds, and its files."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        path, _, _ = self.path.partition("?")
        known = path.startswith("/api/models/someone/fields")
        content = self.files.get(path.removeprefix(f"/someone/fields/resolve/{COMMIT}/"))
        if known:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.files.items()]
            content = json.dumps({"id": "someone/fields", "sha": COMMIT, "siblings": siblings}).encode()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        if content is not None:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Type", "application/json" if known else "application/octet-stream")
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    constants = pytest.importorskip("huggingface_hub.constants")
    folder = save_model(random_unet(), tmp_path / "unet.model")
    Hub.files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"pytorch_model.bin": b"pickle"}
    Hub.asked = []
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=serving.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{serving.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield Hub
    serving.shutdown()
    serving.server_close()


def test_a_commit_is_fetched_once_and_only_its_data(server: type[Hub], tmp_path: Path) -> None:
    model = load_model(NAME)
    assert model.sha256() == random_unet().sha256()
    assert not any("pytorch_model.bin" in path for path in server.asked)
    server.asked.clear()
    image = np.random.default_rng(0).integers(0, 256, (3, 70, 80)).astype(np.uint8)
    assert np.array_equal(tp.predict(image, NAME), tp.predict(image, random_unet()))
    assert server.asked == []  # no network is needed again
    assert load_model(convert(NAME, tmp_path / "x.model")).sha256() == model.sha256()


@pytest.mark.parametrize("revision", ["", "@main", "@0123456"])
def test_what_can_change_is_refused_with_the_commit(server: type[Hub], revision: str) -> None:
    with pytest.raises(ModelError, match=rf"write hf:someone/fields@{COMMIT}$"):
        load_model(f"hf:someone/fields{revision}")
    assert not any("resolve" in path for path in server.asked)


def test_a_repository_without_a_card(server: type[Hub], tmp_path: Path) -> None:
    card = server.files.pop("model.json")
    with pytest.raises(ModelError, match=rf"has no model\.json.*tilepipe model convert {NAME} OUT\.model --card"):
        load_model(NAME)
    assert card


def test_only_pickles_are_not_fetched(server: type[Hub]) -> None:
    server.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(ModelError, match=r"has none of .*; pytorch_model\.bin can run code and is not fetched"):
        load_model(NAME)


def test_too_large_a_file_is_not_fetched(server: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_BYTES", 1000)
    with pytest.raises(ModelError, match=r"weights\.safetensors has \d+ bytes, at most 1000 are fetched"):
        load_model(NAME)
    assert not any("resolve" in path for path in server.asked)


def test_without_a_network(server: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ModelError, match=rf"cannot be fetched .* hf download someone/fields --revision {COMMIT}$"):
        load_model(NAME)
    with pytest.raises(ModelError, match="with the 40 digits of a commit"):
        load_model("hf:someone/fields")


@pytest.mark.parametrize("name", ["hf:fields", "hf:", "hf:../x@y", "hf:a/b/c@d", f"hf:a/..@{COMMIT}", "hf:a/b@-x y"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ModelError, match="is no model of the hub"):
        load_model(name)


def test_without_the_package_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"huggingface-hub is not installed; run: pip install 'tilepipe\[hub\]'"):
        load_model(NAME)
