"""TorchScript and .pt2: refused before anything of them is run, unless exactly the file is named."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_files import write_card
from torch import nn

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import ModelError
from tilepipe.models.formats.directory import load_model
from tilepipe.models.model import Model
from tilepipe.testing import noise, random_unet, whole_image


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def unet() -> Model:
    return random_unet()


@pytest.fixture(scope="module")
def files(unet: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trusted")
    found = {kind: folder / f"unet{kind}" for kind in (".ts", ".pt", ".pt2")}
    tile = torch.zeros(2, 3, 64, 64)
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(unet.module, tile)
        torch.jit.save(script, found[".ts"])
        torch.jit.save(script, found[".pt"])
        torch.export.save(torch.export.export(unet.module, (tile,), dynamic_shapes={"x": free}), found[".pt2"])
    (folder / "model.json").write_text(unet.card.model_copy(update={"arch": {}}).to_json())
    return found


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("kind", [".ts", *(pytest.param(kind, marks=pytest.mark.long) for kind in (".pt", ".pt2"))])
def test_the_named_file_gives_torchs_labels(unet: Model, files: dict[str, Path], kind: str) -> None:
    image = np.random.default_rng(5).integers(0, 256, (3, 100, 131)).astype(np.uint8)
    model = load_model(files[kind], trust_model=digest(files[kind]))
    labels = tp.predict(image, model, tile=96)
    assert (labels == tp.predict(image, unet, tile=96)).mean() > 0.9999
    part = tp.predict(image, pickle.loads(pickle.dumps(model)), tp.Box(10, 20, 90, 120), tile=96)
    assert np.array_equal(part, labels[10:90, 20:120])


@pytest.mark.long
def test_fp64_where_the_file_can(unet: Model, files: dict[str, Path]) -> None:
    image = noise(100, 131)
    model = load_model(files[".ts"], trust_model=digest(files[".ts"]))
    labels = tp.predict(image, model, tile=96, tolerance=0, precision="fp64")
    assert np.array_equal(labels, whole_image(unet, image, torch.float64))
    assert model.module(torch.zeros(1, 3, 32, 32)).dtype == torch.float32
    model = load_model(files[".pt2"], trust_model=digest(files[".pt2"]))
    with pytest.raises(ModelError, match=r"fp64 is not available for \.pt2 models"):
        tp.predict(image, model, tile=96, precision="fp64")


def test_a_file_with_float32_inside_is_one_sentence(unet: Model, tmp_path: Path) -> None:
    class Single(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(x, torch.ones(3, 3, 1, 1))

    path = tmp_path / "single.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Single(), torch.zeros(1, 3, 8, 8)), path)
    path.with_suffix(".json").write_text(unet.card.model_copy(update={"arch": {}}).to_json())
    with pytest.raises(ModelError, match=r"single\.ts fails on tiles of shape"):
        tp.predict(noise(60, 60), load_model(path, trust_model=digest(path)), tile=96, precision="fp64")


@pytest.mark.parametrize("kind", [".ts", *(pytest.param(kind, marks=pytest.mark.long) for kind in (".pt", ".pt2"))])
def test_other_files_are_refused_with_the_flag_to_type(files: dict[str, Path], kind: str) -> None:
    with pytest.raises(ModelError, match=f"can run code when they are loaded.*`trust_model='{digest(files[kind])}'`"):
        load_model(files[kind])
    with pytest.raises(ModelError, match=f"names another file than this one, which is {digest(files[kind])}"):
        load_model(files[kind], trust_model="sha256:" + "0" * 64)
    with pytest.raises(ModelError, match="names another file"):
        load_model(files[kind], trust_model=digest(files[kind]).removeprefix("sha256:"))


def poisoned(source: Path, target: Path, mark: Path) -> Path:
    """Copy an archive with a pickle in it that makes `mark`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            harmful = name.endswith(("sample_inputs/model.pt", "data.pkl"))
            new.writestr(name, pickle.dumps(Touch(mark)) if harmful else old.read(name))
    return target


@pytest.mark.parametrize("kind", [".ts", ".pt2"])
def test_a_poisoned_archive_runs_nothing(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    bad = poisoned(files[kind], tmp_path / f"bad{kind}", tmp_path / "ran")
    write_card(bad)
    with pytest.raises(ModelError, match="is refused"):
        load_model(bad)
    with pytest.raises(ModelError, match="is refused"):
        load_model(bad, trust_model=digest(files[kind]))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl", ".bin"])
def test_pickles_run_nothing_with_or_without_trust(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    for trust in (None, digest(path)):
        with pytest.raises(ModelError, match="tilepipe model convert"):
            load_model(path, trust_model=trust)
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_no_torchscript(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "whole.pt")
    with pytest.raises(ModelError, match="pickles of whole networks can run code"):
        load_model(tmp_path / "whole.pt", trust_model=digest(tmp_path / "whole.pt"))


def test_a_trusted_file_needs_a_card_and_must_load(files: dict[str, Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare.ts"
    bare.write_bytes(files[".ts"].read_bytes())
    with pytest.raises(ModelError, match=r"has no card: write one as .*bare\.json"):
        load_model(bare, trust_model=digest(bare))
    broken = write_card(tmp_path / "broken.ts")
    broken.write_bytes(b"no archive at all")
    with pytest.raises(ModelError, match=r"broken\.ts cannot be opened"):
        load_model(broken, trust_model=digest(broken))


def test_the_command_line_takes_the_flag(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from helpers.cli_files import write_image

    image, path = str(write_image(tmp_path / "scene.tif")), str(files[".ts"])
    assert main(["plan", image, "-m", path]) == 5
    assert digest(files[".ts"]) in capsys.readouterr().err
    words = ["segment", image, str(tmp_path / "out.tif"), "-m", path, "--trust-model", digest(files[".ts"]), "-q"]
    assert main(words) == 0
