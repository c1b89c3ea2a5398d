"""tilepipe model: what is measured, what the card says, and other people's models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.onnx_files import pointwise, save, write_card

from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.evaluation.model_check import check_model, write_measured
from tilepipe.models import listing
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import BUNDLED, bundled_models
from tilepipe.models.formats.convert import convert
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.models.probe.certificate_file import certified

NETS = {
    "local": {"name": "unet", "width": 2, "depth": 2},
    "uneven": {"name": "unet", "width": 2, "depth": 1, "up": "deconv3"},
    "global": {"name": "unet", "width": 2, "depth": 2, "norm": "instance"},
}


def make(folder: Path, net: str, **card: int | None) -> Path:
    torch.manual_seed(0)
    module = build(NETS[net], 2, 2)
    fields = {"bands": 2, "classes": ["a", "b"], "arch": NETS[net], "stride": module.stride, **card}
    return save_model(Model.from_torch(module, ModelCard(**fields)), folder / f"{net}.model")


def test_a_card_that_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(tmp_path, "local", halo=24)
    assert main(["model", "check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "stride        4 px" in out
    assert "reach         22 up, 22 down, 22 left, 22 right px" in out
    assert "halo          24 px" in out
    assert "global        none" in out
    assert "checkerboard  nothing found" in out
    assert "in bands      yes" in out
    assert "wrong" not in out


@pytest.mark.long
@pytest.mark.parametrize(
    ("net", "card", "sentence"),
    [
        ("local", {"halo": 16}, "the card says halo 16, measured reach is 22"),
        ("global", {"halo": 32}, "the card says halo 32, but no halo is enough"),
    ],
)
def test_a_card_that_is_wrong_ends_with_5_and_can_be_corrected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], net: str, card: dict[str, int], sentence: str
) -> None:
    path = make(tmp_path, net, **card)
    before = load_model(path).card
    assert main(["model", "check", str(path)]) == 5
    assert f"wrong: {sentence}" in capsys.readouterr().out
    assert main(["model", "check", str(path), "--write"]) == 0
    assert str(path / "model.json") in capsys.readouterr().err
    after = load_model(path).card
    assert after.halo == (24 if net == "local" else None)
    assert after == before.model_copy(update={"halo": after.halo})
    assert main(["model", "check", str(path)]) == 0
    assert sorted(p.name for p in path.iterdir()) == ["certificate.json", "model.json", "weights.safetensors"]
    assert certified(load_model(path)) is not None


def test_a_wrong_stride(tmp_path: Path) -> None:
    """A network of ours refuses a card with a wrong stride; one from Python does not say what it is."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Upsample(scale_factor=4), torch.nn.Conv2d(2, 2, 1))
    found = check_model(Model.from_torch(module, ModelCard(bands=2, classes=["a", "b"], stride=2, halo=8)))
    assert found.probe.stride == 4
    assert [problem[:38] for problem in found.problems] == ["the card says stride 2, measured is 4:"]
    assert found.measured().stride == 4
    with pytest.raises(UsageError, match="python has no card of its own"):
        write_measured(found)


def test_checkerboards_are_explained_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", str(make(tmp_path, "uneven"))]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "transposed" in line]
    assert len(lines) == 1
    assert "with kernel 3: uneven overlap (4:1, imbalance " in lines[0]


def test_global_layers_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", str(make(tmp_path, "global")), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["halo"] is None
    assert ["encoder.stages.0.block.norm1", "instance norm"] in found["probe"]["global_layers"]


def test_a_file_of_another_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_card(save(pointwise(), tmp_path / "p.onnx"), stride=2, halo=2)
    before = path.read_bytes()
    assert main(["model", "check", str(path), "--write"]) == 0
    assert "the layers of the file cannot be seen" in capsys.readouterr().out
    assert load_model(path).card.halo == 0
    assert path.read_bytes() == before


def test_a_bundled_model_is_not_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", "forest", "--write"]) == 2
    assert "forest has no card of its own to write to" in capsys.readouterr().err


def test_card_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(tmp_path, "local", halo=24)
    assert main(["model", "card", str(path)]) == 0
    assert "classes       a, b\n" in capsys.readouterr().out
    assert main(["model", "card", str(path), "--json"]) == 0
    assert capsys.readouterr().out == (path / "model.json").read_text()
    assert main(["model", "card", str(tmp_path / "none.model")]) == 5


def test_convert_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(build(NETS["local"], 2, 2).state_dict(), tmp_path / "w.pt")
    (tmp_path / "card.json").write_text(json.dumps({"bands": 2, "classes": ["a", "b"]}))
    words = [
        "model",
        "convert",
        str(tmp_path / "w.pt"),
        str(tmp_path / "x.model"),
        "--card",
        str(tmp_path / "card.json"),
    ]
    assert main(words) == 5
    assert "needs the name of its network" in capsys.readouterr().err
    assert main([*words, "--arch", "{name: unet, width: 2, depth: 2}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'x.model'}\n"
    assert load_model(tmp_path / "x.model").card.stride == 4
    assert main([*words, "--arch", "{name: unet, width: 2, depth: 2}"]) == 2
    assert "exists" in capsys.readouterr().err
    for arch in ("unet", "{name: [", "3"):
        assert main([*words, "--overwrite", "--arch", arch]) == 2
        assert "is not a network like" in capsys.readouterr().err


def test_writing_keeps_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = convert(write_card(save(pointwise(), tmp_path / "p.onnx")), tmp_path / "p.model")
    found, before = check_model(path), (path / "model.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tilepipe.storage.os.fsync", full)
    from tilepipe.errors import StorageError

    with pytest.raises(StorageError, match="No space left"):
        write_measured(found)
    assert (path / "model.json").read_bytes() == before
    assert sorted(p.name for p in path.iterdir()) == ["certificate.json", "model.json", "weights.onnx"]


def test_the_list_says_what_the_cards_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(listed) == bundled_models()
    for name, one in listed.items():
        card = json.loads((BUNDLED / f"{name}.model" / "model.json").read_text())
        fields = ("description", "resolution", "unit", "bands", "dtype", "classes", "license")
        assert {field: one[field] for field in fields} == {field: card[field] for field in fields}
        assert one["iou"] == card["training"]["scores"]["model"]["iou"]
        assert one["object_f1"] == card["training"]["scores"]["model"]["object_f1"]
        assert one["scored_on"] == card["training"]["scored_images"]
    assert main(["model", "list"]) == 0
    text = capsys.readouterr().out
    assert "IoU other 0.838, forest 0.695" in text
    assert "object F1 nucleus 0.636 (connected pixels, IoU above 0.5)" in text
    assert "NON-COMMERCIAL" in text


def test_a_model_without_a_record_of_training_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make(tmp_path, "local")
    monkeypatch.setattr(listing, "BUNDLED", tmp_path)
    monkeypatch.setattr(listing, "bundled_models", lambda: ["local"])
    text = str(listing.listed_models()[0])
    assert "pixel size  any" in text
    assert "scores      not known" in text


@pytest.mark.parametrize("words", [["--help"], ["segment", "a.tif"], ["model", "card", "nomodel"]])
def test_a_newcomer_finds_the_list(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    said = " ".join("".join(capsys.readouterr()).split())
    assert "tilepipe model list" in said
