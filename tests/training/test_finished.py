"""A finished training given again: complete, or refused with what is something else; never replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_training import discs

from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.events import Event
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.training.config import TrainConfig
from tilepipe.training.finished import TRAINING
from tilepipe.training.loop import fit

Configure = Callable[..., TrainConfig]


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


def test_a_training_given_again_is_complete(small: Configure, tmp_path: Path) -> None:
    events: list[Event] = []
    model = fit(small())
    before = contents(model)
    (tmp_path / ".m.model.training").mkdir()  # as after a kill right before the end
    assert fit(small(checkpoint=3), events.append) == model
    assert [(event.stage, event.message) for event in events] == [("done", "already complete, nothing to do")]
    assert contents(model) == before
    assert not (tmp_path / ".m.model.training").exists()
    assert str(tmp_path) not in (model / TRAINING).read_text(), "models are given away"


def test_the_command_given_again_ends_as_the_first_time(
    small: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(small().model_dump(mode="json", exclude_defaults=True, by_alias=True)))
    codes = [main(["train", str(path)]) for _ in range(2)]
    out, err = capsys.readouterr()
    assert codes == [0, 0]
    assert out.splitlines() == [str(tmp_path / "m.model")] * 2
    assert err.splitlines().count("done already complete, nothing to do") == 1
    assert err.count("next: tilepipe segment ") == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 9, "description": "of town"}, "description, steps"),
        pytest.param({"seed": 1}, "seed", marks=pytest.mark.long),
        pytest.param({"score": []}, "score", marks=pytest.mark.long),
        pytest.param({"colors": ("#000000", "#ffffff")}, "colors", marks=pytest.mark.long),
    ],
)
def test_other_settings_are_named(small: Configure, changes: dict[str, object], named: str) -> None:
    before = contents(fit(small()))
    with pytest.raises(
        UsageError, match=rf"m\.model exists and was trained with other settings \({named}\); delete it"
    ):
        fit(small(**changes))
    assert contents(Path(small().output)) == before


@pytest.mark.parametrize(
    "name", ["0_label.tif", *(pytest.param(name, marks=pytest.mark.long) for name in ("0.tif", "1.tif"))]
)
def test_other_images_labels_or_scores_are_found(
    name: str, small: Configure, write: Callable[..., Path], tmp_path: Path
) -> None:
    fit(small())
    image, label = discs(seed=7)
    write(name, label if "label" in name else image)
    with pytest.raises(UsageError, match=r"trained on images, labels or a start model that are something else now"):
        fit(small())


@pytest.mark.long
def test_another_start_model_is_found(small: Configure, tmp_path: Path) -> None:
    first = fit(small(output=str(tmp_path / "first.model"), seed=3))
    fit(small(start=str(first)))
    assert fit(small(start=str(first)))
    save_model(load_model(fit(small(output=str(tmp_path / "other.model"), seed=4))), first, overwrite=True)
    with pytest.raises(UsageError, match=r"or a start model that are something else now"):
        fit(small(start=str(first)))


@pytest.mark.long
def test_a_model_that_was_changed_or_is_no_training_is_refused(small: Configure, tmp_path: Path) -> None:
    model = fit(small())
    card = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(card | {"description": "corrected by hand"}))
    assert fit(small()) == model
    other = load_model(fit(small(output=str(tmp_path / "other.model"), seed=4)))
    record = (model / TRAINING).read_bytes()
    save_model(other, model, overwrite=True, more={TRAINING: record})
    with pytest.raises(UsageError, match=r"exists and was changed since it was trained; delete it"):
        fit(small())
    (model / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"exists and cannot be loaded"):
        fit(small())
    for damaged in (record[:-9], b""):
        (model / TRAINING).write_bytes(damaged)
        with pytest.raises(UsageError, match=r"m\.model exists; delete it or give another output"):
            fit(small())
