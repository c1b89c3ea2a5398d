"""The first card of a model file: what the file tells is right, the rest is asked for, and no card is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.onnx_files import pointwise, save
from safetensors.torch import save_file

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.models.card import ModelCard


def test_a_card_of_what_the_file_tells_and_what_is_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(pointwise("Softmax"), tmp_path / "net.onnx")
    command = ["model", "card", str(path), "--init"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "the file tells bands: 3" in said
    assert "the model gives 2 channels. Add --set classes=" in " ".join(said.split())
    assert not path.with_suffix(".json").exists()

    assert main([*command, "--set", "classes=other,thing", "--set", "channels=BGR"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(path.with_suffix(".json"))
    assert "the card has no mean: pixels are not scaled" in err
    card = ModelCard.load(path.with_suffix(".json"))
    assert (card.name, card.bands, card.classes) == ("net", 3, ("other", "thing"))
    assert (card.output, card.channels, card.mean) == ("probabilities", "BGR", ())
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []

    image = np.random.default_rng(1).integers(0, 256, (3, 40, 40)).astype(np.uint8)
    # The file's score of the second class is 10 (x0 - x1): blue less green in BGR. Equal ones are of the first.
    np.testing.assert_array_equal(tp.predict(image, str(path)), (image[2] > image[1]).astype(np.uint8))

    before = path.with_suffix(".json").read_bytes()
    assert main([*command, "--set", "classes=a,b"]) == 2
    assert "exists, and a card is never overwritten" in " ".join(capsys.readouterr().err.split())
    assert path.with_suffix(".json").read_bytes() == before


def test_a_state_dict_tells_its_bands(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(torch.nn.Conv2d(5, 2, 3).state_dict(), path)
    assert main(["model", "card", str(path), "--init", "--set", "classes=[a, b]"]) == 0
    assert json.loads((tmp_path / "weights.json").read_text())["bands"] == 5


def test_a_file_that_sorts_its_layers_by_name_does_not_tell_the_bands(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    network = {"a.decoder": torch.zeros(2, 48, 3, 3), "b.first": torch.zeros(48, 5, 3, 3)}
    save_file(network, path)
    assert main(["model", "card", str(path), "--init", "--set", "classes=[a, b]"]) == 2
    assert not path.with_suffix(".json").exists()
    assert main(["model", "card", str(path), "--init", "--set", "classes=[a, b]", "--set", "bands=5"]) == 0
    assert json.loads((tmp_path / "weights.json").read_text())["bands"] == 5


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--init", "--set", "classes=a,b,c"], "the model gives 2 channels and 3 classes are named"),
        (["--init", "--set", "classes=a,b", "--set", "thresold=0.3"], "did you mean 'threshold'?"),
        (["--init", "--set", "classes"], "is not a field with a value"),
        (["--set", "classes=a,b"], "--set is for --init"),
    ],
)
def test_what_cannot_be_written_is_refused(
    typed: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(pointwise(), tmp_path / "net.onnx")
    assert main(["model", "card", str(path), *typed]) in (2, 5)
    assert words in " ".join(capsys.readouterr().err.split())
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_a_bundled_model_has_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "card", "forest", "--init"]) == 2
    assert "model forest comes with tilepipe and has a card" in capsys.readouterr().err
