"""Paths in a training configuration start from its folder, wherever the command is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tilepipe.errors import InputError, UsageError
from tilepipe.training.config import TrainConfig
from tilepipe.training.finished import _settings
from tilepipe.training.scenes import files_read, pairs
from tilepipe.training.transfer import Origin

Write = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> Callable[..., TrainConfig]:
    """Write project/train.yaml beside project/images, and load it from the folder `elsewhere`."""
    for folder in ("project/images", "project/masks", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    image = np.zeros((3, 32, 32), np.uint8)
    for name in ("project/images/a.tif", "project/masks/a.tif", "project/images/a_label.tif"):
        write(name, image if name.endswith("images/a.tif") else image[0])
    monkeypatch.chdir(tmp_path / "elsewhere")

    def load(image: str, label: str, **changes: Any) -> TrainConfig:
        values = {"name": "m", "output": "runs/m.model", "classes": ["a", "b"], **changes}
        values["train"] = [{"image": image, "label": label}]
        (tmp_path / "project" / "train.yaml").write_text(yaml.safe_dump(values))
        return TrainConfig.load("../project/train.yaml")

    return load


def real(*paths: Path) -> list[Path]:
    return [path.resolve() for path in paths]


@pytest.mark.parametrize(
    ("image", "label", "found"),
    [
        ("images/a.tif", "masks/a.tif", "masks/a.tif"),
        ("images/*.tif", "a_label.tif", "images/a_label.tif"),
        ("images/a.tif", "../project/masks/{stem}.tif", "masks/a.tif"),
        ("images/a.tif", "train.yaml", "train.yaml"),  # it is not beside the image, but in the configuration's folder
        ("images/a.tif", "./train.yaml", "train.yaml"),
    ],
)
def test_images_and_labels_are_found(project: Any, tmp_path: Path, image: str, label: str, found: str) -> None:
    config = project(image, label)
    ((one, two),) = pairs(config.train[0], config)
    assert real(one, two) == real(tmp_path / "project/images/a.tif", tmp_path / "project" / found)
    assert real(*files_read(config)) == real(one, two)
    assert config.path(config.output).resolve() == tmp_path / "project/runs/m.model"


def test_absolute_paths_stay_and_python_starts_from_the_working_directory(project: Any, tmp_path: Path) -> None:
    absolute = str(tmp_path / "project/images/a.tif")
    config = project(absolute, "a_label.tif")
    assert pairs(config.train[0], config)[0][0] == Path(absolute)
    assert TrainConfig(**config.model_dump(by_alias=True)).path("x.tif") == Path("x.tif")


def test_a_file_that_only_the_working_directory_has_is_refused_with_both_places(
    project: Any, tmp_path: Path, write: Write
) -> None:
    for name in ("elsewhere/b.tif", "elsewhere/l.tif"):
        write(name, np.zeros((3, 32, 32), np.uint8))
    for image, label, wrong in (("b.tif", "l.tif", "b"), ("*b.tif", "l.tif", r"\*b"), ("images/a.tif", "l.tif", "l")):
        config = project(image, label)
        words = (
            rf"{wrong}\.tif is not in \S*project, where .* working directory \S*elsewhere; write \.\./elsewhere/{wrong}"
        )
        with pytest.raises(InputError, match=words):
            pairs(config.train[0], config)
    with pytest.raises(InputError, match=r"none\.tif does not exist.*configuration's folder, \S*project"):
        pairs(project("none.tif", "l.tif").train[0], project("none.tif", "l.tif"))
    (tmp_path / "elsewhere" / "other.model").mkdir()
    with pytest.raises(UsageError, match=r"other\.model is not in \S*project, .*write \.\./elsewhere/other\.model"):
        Origin.of(project("images/a.tif", "l.tif", start="other.model"))
    (tmp_path / "elsewhere" / "forest").mkdir()
    assert Origin.of(project("images/a.tif", "l.tif", start="forest")).model is not None, "a bundled model's name"


def test_a_folder_that_is_moved_holds_the_same_settings(project: Any, tmp_path: Path) -> None:
    before = _settings(project("images/a.tif", "a_label.tif"))
    (tmp_path / "project").rename(tmp_path / "moved")
    assert _settings(TrainConfig.load(tmp_path / "moved" / "train.yaml")) == before
