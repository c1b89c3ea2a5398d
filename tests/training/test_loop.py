from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from helpers.small_training import Stop, discs, first, stopped_at, weights

from tilepipe.box import Box
from tilepipe.errors import DeviceError, InputError, StorageError, UsageError
from tilepipe.events import Event
from tilepipe.execution.predict import predict
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import load_model
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.training.config import TrainConfig
from tilepipe.training.loop import fit
from tilepipe.training.scenes import open_scenes
from tilepipe.training.state import fingerprint, learning_rate, same_run
from tilepipe.training.threshold_baseline import best_threshold
from tilepipe.training.validation import predicted, score

Configure = Callable[..., TrainConfig]


@pytest.mark.long
def test_overfits_one_crop(small: Configure) -> None:
    how = {"flips": False, "rotate": False, "scale": 1, "color": 0, "bands": 0}
    arch = {"name": "unet", "width": 8, "depth": 3}
    config = small(steps=120, crop=64, batch=1, augment=how, arch=arch, learning_rate=1e-2, ema=0.9, warmup=10)
    config = config.model_copy(update={"score": config.train})
    model = load_model(fit(config))
    scores = model.card.training["scores"]
    assert scores["model"]["mean_iou"] > 0.97
    assert scores["threshold"]["mean_iou"] < 0.9
    assert scores["majority"]["mean_iou"] < 0.5


@pytest.mark.long
def test_the_card_names_which_image_and_plane_of_a_file_was_trained_on(small: Configure, tmp_path: Path) -> None:
    config = small()
    image = discs()[0]
    stack = np.stack([image[::-1], image, image[:, ::-1]])  # (z, c, y, x)
    path = tmp_path / "stack.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for _ in range(2):
            file.write(stack, photometric="minisblack", metadata={"axes": "ZCYX"})
    entry = {"image": str(path), "label": config.train[0].label}
    entries = [{**entry, "scene": 1, "z": 2}, {**entry, "scene": 0, "z": 1}]
    record = load_model(fit(small(train=entries, validate=[{**entry, "scene": 1, "z": 0}]))).card.training
    assert record["images"] == ["stack.ome.tif (scene 1, z 2)", "stack.ome.tif (scene 0, z 1)"]
    height, width = image.shape[1:]
    assert record["validation"]["images"] == [f"stack.ome.tif (scene 1, z 0) [0, 0, {height}, {width}]"]


def test_the_model_directory_says_all_that_a_run_needs(small: Configure, tmp_path: Path) -> None:
    events: list[Event] = []
    config = small(license="L", colors=("#000000", "#ffffff"), tile=96)
    model = load_model(fit(config, events.append))
    card, image = model.card, discs()[0]
    np.testing.assert_allclose(card.mean, image.mean((1, 2)), atol=1e-3)
    np.testing.assert_allclose(card.std, image.std((1, 2)), atol=1e-3)
    assert (card.name, card.bands, card.classes, card.dtype) == ("m", 3, ("a", "b"), "uint8")
    assert (card.stride, card.license, card.colors, card.tile) == (4, "L", ("#000000", "#ffffff"), 96)
    assert card.halo is not None
    assert card.halo % 4 == 0
    record = card.training
    assert record["images"] == ["0.tif"]
    assert record["pixels"] == {"a": int((discs()[1] == 0).sum()), "b": int(discs()[1].sum())}
    assert record["configuration"]["steps"] == 8
    assert set(record["scores"]) == {"model", "majority", "threshold"}
    assert (events[-1].stage, events[-1].done, events[-1].total) == ("train", 8, 8)
    assert not list(tmp_path.glob(".*"))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(small: Configure, tmp_path: Path) -> None:
    first, second, other = (
        fit(small(output=str(tmp_path / f"{k}.model"), seed=seed)) for k, seed in enumerate((0, 0, 1))
    )
    assert weights(first) == weights(second) != weights(other)


@pytest.mark.parametrize("stop", [5, *(pytest.param(stop, marks=pytest.mark.long) for stop in (1, 3, 7))])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    small: Configure, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.training.loop.LOG_EVERY", 1)
    whole = fit(small(output=str(tmp_path / "whole.model")))
    config = small()
    with pytest.raises(Stop):
        fit(config, stopped_at(stop))
    assert not Path(config.output).exists()
    torch.rand(3)  # what others draw in between must not matter
    resumed = fit(config)
    assert weights(resumed) == weights(whole)
    cards = [json.loads((d / "model.json").read_text()) for d in (resumed, whole)]
    assert cards[0] == cards[1]


def test_the_log_is_kept_and_goes_on(small: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilepipe.training.loop.LOG_EVERY", 2)
    config = small()
    for stop in (5, 8):
        with pytest.raises(Stop):
            fit(config, stopped_at(stop))
    rows = (tmp_path / ".m.model.training" / "log.csv").read_text().splitlines()
    assert rows[0] == "step,learning_rate,loss"
    assert [int(row.split(",")[0]) for row in rows[1:]] == [2, 4, 6]


def test_a_checkpoint_of_another_configuration_is_refused(small: Configure) -> None:
    with pytest.raises(Stop):
        fit(small(), stopped_at(8))
    with pytest.raises(UsageError, match="of another configuration"):
        fit(small(learning_rate=1e-4))


@pytest.mark.parametrize(
    "damaged", [b"nonsense", pytest.param(b"", marks=pytest.mark.long), pytest.param(None, marks=pytest.mark.long)]
)
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    small: Configure, tmp_path: Path, damaged: bytes | None
) -> None:
    whole = fit(small(output=str(tmp_path / "whole.model")))
    with pytest.raises(Stop):
        fit(small(), stopped_at(8))
    folder, events = tmp_path / ".m.model.training", list[Event]()
    newest, older = folder / "checkpoint.pt", folder / "checkpoint.older.pt"
    newest.write_bytes(newest.read_bytes()[:5000] if damaged is None else damaged)
    kept = older.read_bytes()
    older.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(StorageError, match=r"checkpoint\.pt cannot be read \(.*\); delete .*training to start anew"):
        fit(small())
    older.write_bytes(kept)
    resumed = fit(small(), events.append)
    assert "checkpoint.pt cannot be read" in first(events)
    assert first(events).endswith("going on from step 3")
    assert weights(resumed) == weights(whole)


@pytest.mark.long
def test_a_checkpoint_lost_between_two_renames_is_not_missed(small: Configure, tmp_path: Path) -> None:
    whole = fit(small(output=str(tmp_path / "whole.model")))
    with pytest.raises(Stop):
        fit(small(), stopped_at(8))
    (tmp_path / ".m.model.training" / "checkpoint.pt").unlink()
    assert weights(fit(small(), lambda event: None)) == weights(whole)


def test_settings_that_are_younger_than_a_checkpoint_have_their_defaults(small: Configure) -> None:
    config = small(steps=9)
    before = json.loads(fingerprint(config, {}))
    del before["precision"], before["validation"]
    assert same_run(json.dumps(before), config, {})
    assert not same_run(json.dumps(before), small(steps=9, precision="bf16"), {})
    assert not same_run(json.dumps(before), config, {"start": {"sha256": "0"}})
    assert not same_run(json.dumps(before | {"steps": 10}), config, {})
    assert not same_run(json.dumps(before | {"gone": 1}), config, {})


def test_a_checkpoint_that_would_run_code_is_refused(small: Configure, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    folder = tmp_path / ".m.model.training"
    folder.mkdir()
    torch.save({"config": Evil()}, folder / "checkpoint.pt")
    with pytest.raises(StorageError):
        fit(small())
    assert not (tmp_path / "ran").exists()


def test_nothing_is_overwritten_and_mistakes_cost_no_training(small: Configure, tmp_path: Path) -> None:
    (tmp_path / "m.model").mkdir()
    with pytest.raises(UsageError, match="exists; delete it or give another output"):
        fit(small())
    with pytest.raises(UsageError, match="crop 30 is not a multiple of the network's total stride 4; use 32"):
        fit(small(crop=30, output=str(tmp_path / "n.model")))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda is not there"):
            fit(small(device="cuda", output=str(tmp_path / "n.model")))
    with pytest.raises(InputError, match="does not exist"):
        fit(small(score=[{"image": "none.tif", "label": "l.tif"}], output=str(tmp_path / "n.model")))


def test_scores_are_those_of_the_whole_image(small: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small()
    model = load_model(fit(config))
    (scene,) = open_scenes(config.score, config)
    whole = Box(0, 0, 64, 64)
    with torch.no_grad():
        logits = model.module(model.normalise(torch.from_numpy(scene.source.read(whole)[None])))
    labels = logits[0].argmax(0).numpy()
    np.testing.assert_array_equal(predicted(model, scene, whole), labels)
    monkeypatch.setattr("tilepipe.training.validation.VALIDATED_BLOCK", 27)
    confusion = score(model, [scene])
    truth = discs(seed=1)[1]
    wanted = [[int(((truth == t) & (labels == p)).sum()) for p in (0, 1)] for t in (0, 1)]
    assert confusion.matrix.tolist() == wanted


def test_the_best_threshold_is_found_by_trying_them_all(small: Configure) -> None:
    config = small()
    train, other = open_scenes(config.train, config), open_scenes(config.score, config)
    confusion, rule = best_threshold(train, other)
    image, truth = discs(seed=0)
    best = 0.0
    for band in image:
        for cut in range(256):
            for labels in (band > cut, band <= cut):
                pairs = [(labels == k, truth == k) for k in (0, 1)]
                best = max(best, float(np.mean([(a & b).sum() / max(1, (a | b).sum()) for a, b in pairs])))
    found, _ = best_threshold(train, train)
    assert found.mean_iou >= best - 0.02
    assert confusion.pixels == 64 * 64
    assert ">" in rule or "<=" in rule


def test_the_learning_rate_rises_then_falls_to_zero(configure: Configure) -> None:
    config = configure(train=[{"image": "i", "label": "l"}], steps=100, warmup=10, learning_rate=0.5)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == pytest.approx(0.5) == rates[9] == rates[10]
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("resolution", [None, 0.8, 0.3])
def test_what_is_scored_is_what_users_get(small: Configure, resolution: float | None) -> None:
    config = small(resolution=resolution)  # the images have 0.5 m
    arch = {"name": "unet", "width": 2, "depth": 2}
    torch.manual_seed(0)
    card = ModelCard(
        bands=3, classes=("a", "b"), mean=(90,) * 3, std=(40,) * 3, resolution=resolution, stride=4, halo=24, arch=arch
    )
    model = Model.from_torch(build(arch, 3, 2), card)
    (scene,) = open_scenes(config.score, config)
    with torch.no_grad():  # move the head so that both classes occur
        logits = model.module(model.normalise(torch.from_numpy(scene.source.read(Box(0, 0, 32, 32))[None])))
        model.module.head.bias[1] += (logits[:, 0] - logits[:, 1]).median()
    for box in (Box(0, 0, 64, 64), Box(13, 5, 50, 64)):
        labels = predict(scene.name, model, box, tile=64, tolerance=0, device="cpu")
        assert 0 < labels.mean() < 1
        np.testing.assert_array_equal(predicted(model, scene, box), labels)


@pytest.mark.parametrize("room", [100, pytest.param(20_000, marks=pytest.mark.long)])
def test_a_full_disk_is_no_bug_of_a_checkpoint(small: Configure, tmp_path: Path, room: int) -> None:
    """A limit on the size of files stands for a full disk; torch speaks of an unexpected position there."""
    config = small()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(StorageError, match=r"m\.model.*free some space.*the same command goes on"):
            fit(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.rglob("*.part"))
    assert fit(config).exists()
