from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tilepipe.errors import UsageError
from tilepipe.training.config import TrainConfig

SMALLEST: dict[str, Any] = {
    "name": "m",
    "output": "m.model",
    "classes": ["a", "b"],
    "train": [{"image": "a.tif", "label": "b.tif"}],
}


def write(path: Path, values: object) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stepps": 3}, r"unknown key 'stepps'; nearest is 'steps'"),
        ({"augment": {"flip": True}}, r"unknown key 'flip'; nearest is 'flips'"),
        ({"train": [{"image": "a", "labels": "b", "label": "c"}]}, r"unknown key 'labels'; nearest is 'label'"),
        ({"losses": {"dise": 1}}, r"losses\.dise"),
        ({"losses": {"dice": 0}}, r"at least one with a weight above 0"),
        ({"steps": 0}, r"steps: .*greater than or equal to 1"),
        ({"values": {1: 2}}, r"class 2 is not one of the 2 classes"),
        ({"other": -1}, r"class -1 is not one of the 2 classes"),
        ({"class_weights": [1]}, r"class_weights has 1 values for 2 classes"),
        ({"classes": ["a", "a"]}, r"class names must differ"),
        ({"train": []}, r"train: "),
        ({"validat": []}, r"unknown key 'validat'; nearest is 'validate'"),
        ({"validation": [{"image": "a", "label": "b"}]}, r"unknown key 'validation'; nearest is 'validate'"),
        ({"validate": [{"image": "a", "lable": "b"}]}, r"validate\.0\.label|unknown key 'lable'; nearest is 'label'"),
        ({"patience": 3}, r"patience counts validations; name images under validate"),
        ({"class_weights": "equal"}, r"'equal' is not known; give 'balanced' or a number per class"),
        ({"class_weights": ["a", "b"]}, r"class_weights.* needs a number"),
        ({"precision": "fp8"}, r"precision: "),
    ],
)
def test_each_mistake_is_one_sentence(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = write(tmp_path / "c.yaml", SMALLEST | change)
    with pytest.raises(UsageError, match=words) as caught:
        TrainConfig.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "1: 2", "just words"])
def test_what_is_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=str(path)):
        TrainConfig.load(path)


def test_a_missing_file_and_other_bytes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        TrainConfig.load(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        TrainConfig.load(tmp_path / "c.yaml")


def test_the_data_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "c.yaml", SMALLEST | {"train": [{"image": "${TILEPIPE_DATA}/a.tif", "label": "${HOME}"}]})
    monkeypatch.delenv("TILEPIPE_DATA", raising=False)
    assert TrainConfig.load(path).train[0].image == "../../shared/data/a.tif"
    monkeypatch.setenv("TILEPIPE_DATA", "/data")
    assert TrainConfig.load(path).train[0].image == "/data/a.tif"
    monkeypatch.setenv("TILEPIPE_DATA", "data")  # a shell's paths start from the working directory
    assert TrainConfig.load(path).train[0].image == str(Path("data/a.tif").absolute())
    assert TrainConfig.load(path).train[0].label == "${HOME}"  # nothing else of the environment gets in


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"name: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    with pytest.raises(UsageError, match="is not YAML"):
        TrainConfig.load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "pipelines").glob("train_*.yaml")), ids=lambda p: p.stem
)
def test_the_pipelines_are_configurations(path: Path) -> None:
    config = TrainConfig.load(path)
    assert config.output == f"{config.name}.model"
    assert config.score
    assert config.license
