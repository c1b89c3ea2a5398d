"""Models exported as ONNX: onnxruntime and tilepipe give torch's labels from the one file, and a hub reads the text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import ModelError, UsageError
from tilepipe.models.formats.directory import load_model
from tilepipe.models.formats.onnx import load_onnx
from tilepipe.models.formats.onnx_export import compare, export_onnx, onnx_of
from tilepipe.models.hub_text import hub_text
from tilepipe.models.nets.zoo import ARCHITECTURES, build

SAMPLE = Path(__file__).parents[3] / "pipelines" / "sample"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx("forest", tmp_path_factory.mktemp("export") / "forest-onnx")


@pytest.mark.long
def test_the_file_alone_gives_the_labels_of_the_model(exported: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(exported / "weights.onnx", tmp_path / "alone.onnx"))
    image, box = SAMPLE / "Amazon_24_20.tif", tp.Box(0, 0, 200, 180)
    ours, model = tp.predict(image, "forest", box), load_model(alone)
    assert len(np.unique(ours)) == 2
    assert (tp.predict(image, model, box) == ours).all()
    before = load_model("forest").card
    for field in ("bands", "classes", "mean", "std", "resolution", "unit", "stride", "halo", "license", "training"):
        assert getattr(model.card, field) == getattr(before, field), field


@pytest.mark.long
def test_onnxruntime_itself_gives_torchs_labels(exported: Path) -> None:
    model = load_model("forest")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 96, 128)).astype(np.float32))
    with torch.no_grad():
        labels = model.module(model.normalise(pixels)).argmax(1).numpy()
    session = onnxruntime.InferenceSession((exported / "weights.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    scores = session.run(None, {"image": model.normalise(pixels).numpy()})[0]
    assert (scores.argmax(1) == labels).mean() > 0.9999


def test_deepness_finds_its_words_in_the_file(exported: Path) -> None:
    found = {one.key: one.value for one in onnx.load(exported / "weights.onnx").metadata_props}
    card = load_model("forest").card
    assert json.loads(found["class_names"]) == {"0": "other", "1": "forest"}
    assert json.loads(found["resolution"]) == 1000  # centimetres
    assert json.loads(found["standardization_mean"]) == pytest.approx([m / 255 for m in card.mean])


def test_a_hub_reads_the_head_of_the_text(exported: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = load_model("forest").card
    text = hub.ModelCard((exported / "README.md").read_text(encoding="utf-8"))
    head = text.data.to_dict()
    assert head["pipeline_tag"] == "image-segmentation"
    assert {"tilepipe", "onnx", "remote-sensing"} <= set(head["tags"])
    (first, *rest) = text.data.eval_results
    assert (first.metric_type, first.metric_value) == ("mean_iou", card.training["scores"]["model"]["mean_iou"])
    assert {one.metric_name for one in rest} == {"IoU of other", "IoU of forest"}
    assert "tilepipe segment image.tif labels.tif -m forest-onnx" in text.text


@pytest.mark.parametrize(
    ("words", "head"),
    [
        ("MIT", {"license": "mit"}),
        ("CC BY-NC-SA 4.0, NON-COMMERCIAL, as the data", {"license": "cc-by-nc-sa-4.0"}),
        (
            "Image CC-BY-4.0; footprints ODbL.",
            {"license": "other", "license_name": "Image CC-BY-4.0; footprints ODbL."},
        ),
        ("", {"license": "other", "license_name": "not stated"}),
    ],
)
def test_one_known_licence_is_named_as_the_hub_does(words: str, head: dict[str, str]) -> None:
    import yaml

    card = tp.ModelCard(bands=1, classes=["a", "b"], license=words, description="---\nevil: true")
    found = yaml.safe_load(hub_text(card, "x").split("---\n")[1])
    assert {key: found[key] for key in head} == head
    assert "evil" not in found


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_network_of_ours_gives_the_same_in_onnxruntime(name: str) -> None:
    torch.manual_seed(1)
    card = tp.ModelCard(bands=3, classes=["a", "b", "c"], arch={"name": name, "width": 4})
    model = tp.Model.owning(build(card.arch or {}, 3, 3), card)
    compare(model, load_onnx(onnx_of(model), Path("net.onnx"), None, "net"))


def test_what_a_card_says_of_tiles_is_part_of_the_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    fields = {"channels": "BGR", "pad": 2, "threshold": 0.3, "output": "logits", "mean": [100, 110, 120]}
    card = tp.ModelCard(bands=3, classes=["dark", "bright"], **fields)
    model = tp.Model.from_torch(nn.Conv2d(3, 1, 5), card)
    folder = export_onnx(model, tmp_path / "odd")
    x = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        assert torch.allclose(load_model(folder).module(x), model.module(x), atol=1e-5)
    assert (load_model(folder).card.channels, load_model(folder).card.threshold) == (None, None)


def test_the_command_writes_a_folder_that_segment_takes_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["model", "export", "forest", "out"]) == 0
    assert capsys.readouterr().out.strip() == "out"
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "README.md", "certificate.json", "item.json", "model.json", "weights.onnx"
    ]  # fmt: skip
    with pytest.raises(UsageError, match="exists"):
        export_onnx("forest", "out")


def test_files_that_run_code_are_not_exported(tmp_path: Path) -> None:
    model = tp.Model.from_torch(nn.Conv2d(3, 2, 1), tp.ModelCard(bands=3, classes=["a", "b"]))
    from tilepipe.models.unread import open_models

    both = open_models([model, tp.Model.from_torch(nn.Conv2d(3, 2, 3, padding=1), model.card)])
    with pytest.raises(ModelError, match="mean of several answers"):
        onnx_of(both)
