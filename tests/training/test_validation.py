from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.banded_runs import small_bands
from helpers.small_training import SMALL, Stop, discs, stopped_at
from safetensors.torch import load_file
from scipy import ndimage
from skimage.measure import label
from sklearn.metrics import jaccard_score

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.evaluation.metrics.confusion import Confusion
from tilepipe.evaluation.metrics.objects import object_scores
from tilepipe.events import Event
from tilepipe.models.formats.directory import load_model, stored
from tilepipe.testing import constant_model
from tilepipe.training import loop, validation
from tilepipe.training.config import TrainConfig
from tilepipe.training.loop import fit
from tilepipe.training.validation import best, waited

Configure = Callable[..., TrainConfig]
Write = Callable[..., Path]
FILES = ("weights.safetensors", "model.json", "log.csv", "log.jsonl", "curves.png")


@pytest.fixture(autouse=True)
def known_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the measurement of how far the network sees: 22 pixels, see tests/models."""
    monkeypatch.setattr(loop, "halo", lambda module, bands: 24)


@pytest.fixture
def validated(small: Configure, tmp_path: Path) -> Configure:
    """Return a configuration that validates on a third image every two steps."""
    entry = {"image": str(tmp_path / "2.tif"), "label": str(tmp_path / "2_label.tif")}
    return lambda **changes: small(**{"validate": [entry], "validate_every": 2, **changes})


def scripted(monkeypatch: pytest.MonkeyPatch, ious: list[float]) -> list[dict[str, Any]]:
    """Let validations, then the score at the end, say these IoUs; return the weights that were validated."""
    answers: Iterator[float] = iter([*ious, 0.5])
    seen: list[dict[str, Any]] = []
    real = loop.snapshot

    def snapshot(weights: Any, *rest: Any) -> Any:
        seen.append({k: stored(t, half=True).clone() for k, t in weights.items()})
        return real(weights, *rest)

    def score(*_: Any) -> Confusion:
        right = round(next(answers) * 1000)
        return Confusion(((right, 1000 - right), (0, 0)))  # mean IoU is half of right / 1000, class b never true

    monkeypatch.setattr(loop, "snapshot", snapshot)
    monkeypatch.setattr(loop, "score", score)
    return seen


def test_the_best_validated_weights_are_saved_and_training_ends_when_nothing_gets_better(
    validated: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = scripted(monkeypatch, [0.2, 0.6, 0.61, 0.3, 0.4])
    events: list[Event] = []
    directory = fit(validated(steps=40, patience=2, min_gain=0.01), events.append)
    record = load_model(directory).card.training["validation"]
    assert (record["best_step"], record["stopped_at"], record["mean_iou"]) == (6, 8, 0.305)
    assert any("stopped at step 8" in event.message for event in events)
    assert record["images"] == ["2.tif [0, 0, 64, 64]"]
    saved = load_file(directory / "weights.safetensors")
    assert all((saved[name] == tensor).all() for name, tensor in seen[3].items())  # 0 only gave the halo
    assert any((saved[name] != tensor).any() for name, tensor in seen[4].items())
    assert "validation mean IoU 0.150, best 0.305 at step 6" in events[-2].message


@pytest.mark.long
def test_without_patience_all_steps_are_taken(validated: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.9, 0.1, 0.1, 0.1])
    record = load_model(fit(validated(steps=7))).card.training["validation"]  # 2, 4, 6 and the last
    assert (record["best_step"], record["stopped_at"]) == (2, 7)


@pytest.mark.long
def test_what_is_validated_is_what_users_get(validated: Configure, tmp_path: Path) -> None:
    config = validated(steps=30, learning_rate=0.02, ema=0.5, checkpoint=100)
    directory = fit(config)
    record = load_model(directory).card.training["validation"]
    labels = tp.predict(tmp_path / "2.tif", directory, device="cpu")
    wanted = jaccard_score(discs(seed=2)[1].ravel(), labels.ravel(), average=None, labels=[0, 1])
    assert record["iou"] == {"a": round(wanted[0], 4), "b": round(wanted[1], 4)}
    rows = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["mean_iou"] for row in rows if "mean_iou" in row}
    assert list(scores) == list(range(2, 31, 2))
    assert record["mean_iou"] == pytest.approx(max(scores.values()), abs=1e-4)
    assert record["best_step"] == next(step for step, value in scores.items() if value == max(scores.values()))


def test_large_images_are_validated_in_bands(
    validated: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_bands(monkeypatch)
    real, seen = validation.region_labels, []

    def region_labels(job: Any, source: Any) -> Any:
        seen.append(job.plan)
        return real(job, source)

    monkeypatch.setattr(validation, "region_labels", region_labels)
    directory = fit(validated(steps=4, ema=0.5))
    assert len(seen) >= 2
    assert all(plan.tiling.bands and plan.exact for plan in seen)
    record = load_model(directory).card.training["validation"]
    labels = tp.predict(tmp_path / "2.tif", directory, device="cpu", tile=256)
    wanted = jaccard_score(discs(seed=2)[1].ravel(), labels.ravel(), average=None, labels=[0, 1])
    assert record["iou"] == {"a": round(wanted[0], 4), "b": round(wanted[1], 4)}


@pytest.mark.parametrize("stop", [pytest.param(3, marks=pytest.mark.long), 6, pytest.param(9, marks=pytest.mark.long)])
def test_a_run_stopped_between_validations_goes_on_bit_for_bit(validated: Configure, tmp_path: Path, stop: int) -> None:
    changes = {"steps": 12, "patience": 2, "learning_rate": 0.02, "class_weights": "balanced"}
    whole = fit(validated(**changes, output=str(tmp_path / "whole.model")))
    config = validated(**changes)
    with pytest.raises(Stop):
        fit(config, stopped_at(stop))
    resumed = fit(config)
    for name in FILES:
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


def test_images_and_rows_are_validated_or_trained_on_or_scored_never_two(validated: Configure, tmp_path: Path) -> None:
    def entry(name: str, *rows: int) -> dict[str, Any]:
        found = {"image": str(tmp_path / f"{name}.tif"), "label": str(tmp_path / f"{name}_label.tif")}
        return found | ({"rows": rows} if rows else {})

    upper, lower = entry("0", 0, 40), entry("0", 40, 64)
    with pytest.raises(UsageError, match=r"validate and train share rows 40 to 64 of .*0\.tif.* trained on"):
        fit(validated(validate=[lower], train=[entry("0")]))
    with pytest.raises(UsageError, match=r"validate and score share rows 30 to 40 .* scored on"):
        fit(validated(validate=[upper], train=[entry("1")], score=[entry("0", 30, 64)]))
    (tmp_path / "same.tif").symlink_to(tmp_path / "0.tif")
    with pytest.raises(UsageError, match="validate and train share"):
        fit(validated(validate=[entry("0")], train=[upper | {"image": str(tmp_path / "same.tif")}]))
    fit(validated(validate=[lower], train=[upper], steps=2))


def test_images_to_validate_on_must_be_labelled(validated: Configure, write: Write) -> None:
    write("2_label.tif", np.full(discs()[1].shape, 9, np.uint8))
    with pytest.raises(InputError, match=r"2\.tif and the other images to validate on hold no labelled pixel"):
        fit(validated(ignore=(9,)))


def test_without_validation_nothing_is_chosen(small: Configure) -> None:
    card = load_model(fit(small(steps=2))).card
    assert "validation" not in card.training
    assert SMALL["steps"] == 8


def test_best_and_waited_follow_their_words() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        values = random.choice([0.1, 0.2, 0.21, 0.3, 0.5], size=random.integers(1, 9))
        gain = float(random.choice([0.0, 0.05, 0.15]))
        rows = [[float(k), float(v)] for k, v in enumerate(values)]
        assert best(rows) == int(values.argmax())
        last = 0  # of the validations that beat the last one that counted by more than the gain
        for k, value in enumerate(values):
            if value > values[last] + gain:
                last = k
        assert waited(rows, gain) == len(rows) - 1 - last
    assert (best([]), waited([], 0.0)) == (-1, 0)


def test_objects_are_those_of_the_whole_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and rows that are read at once cut no object; ignored pixels count in neither map."""
    rng = np.random.default_rng(0)
    maps = [ndimage.zoom(rng.integers(0, 3, (9, 12)), 5, order=0) for _ in range(2)]
    mixed = np.where(rng.random(maps[0].shape) < 0.97, maps[1], maps[0]).astype(np.uint8)
    mixed[3:9, 4:30] = 255
    true = np.where(rng.random(maps[0].shape) < 0.05, -1, maps[1]).astype(np.int64)
    whole_box = Box.of_shape(*mixed.shape)
    monkeypatch.setattr(validation, "VALIDATED_BLOCK", 17)
    monkeypatch.setattr(validation, "COUNTED_PIXELS", 150)
    monkeypatch.setattr(
        validation, "predicted", lambda _model, _scene, box, _device: mixed[box.y0 : box.y1, box.x0 : box.x1]
    )
    monkeypatch.setattr(validation, "truth", lambda _scene, box: true[box.slices_in(whole_box)])
    scenes: Any = [SimpleNamespace(full=whole_box)] * 2
    confusion, objects = validation.judge(constant_model(0.1, 0.2, 0.7), scenes)
    seen = (true >= 0) & (mixed != 255)
    whole = validation.compared(mixed, true, 3, 255)
    assert confusion == whole + whole
    for k, found in enumerate(objects):
        one = object_scores(*(label((m == k) & seen, connectivity=1) for m in (mixed, true)))
        assert (found.matched, found.predicted, found.true) == (2 * one.matched, 2 * one.predicted, 2 * one.true)
        assert found.matched
