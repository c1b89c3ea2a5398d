from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from tilepipe.box import Box
from tilepipe.cli.compare import compare as command
from tilepipe.errors import ModelError, StorageError, UsageError
from tilepipe.evaluation.metrics.checkerboard import checkerboard
from tilepipe.events import Event
from tilepipe.models.nets.zoo import build
from tilepipe.models.probe.upsampling_lint import lint
from tilepipe.training.ablation import study as module
from tilepipe.training.ablation.results import Results
from tilepipe.training.ablation.scores import answer, figures_of_model, lines, patches, sheet, speeds
from tilepipe.training.ablation.study import compare
from tilepipe.training.ablation.study_config import CompareConfig, Run
from tilepipe.training.ablation.table import markdown, summary
from tilepipe.training.dataset import Dataset
from tilepipe.training.loop import start
from tilepipe.training.state import snapshot
from tilepipe.training.validation import predicted, score

Write = Callable[..., Path]
Save = Callable[..., Path]
ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "pipelines" / "compare_decoders.yaml"


def discs(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an RGB image of bright discs on noise, and the discs."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    label = np.zeros((height, width), np.uint8)
    for cy, cx in random.integers(8, 56, (12, 2)):
        label[np.hypot(y - cy, x - cx) < 6] = 1
    image = random.normal(90, 30, (3, height, width)) + 60 * label
    return image.clip(0, 255).astype(np.uint8), label


@pytest.fixture(autouse=True)
def small_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time networks on a small tile."""
    monkeypatch.setattr("tilepipe.training.ablation.scores.SIDE", 32)


@pytest.fixture
def known_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the measurement of how far networks see."""
    monkeypatch.setattr(module, "context", lambda network, bands: 24)


@pytest.fixture
def saved(write: Write, tmp_path: Path) -> Save:
    """Write a small comparison of two mechanisms on one set, with changes, and return its path."""
    entries = []
    for seed, shape in enumerate([(64, 96), (72, 80), (64, 64)]):
        image, label = discs(seed, *shape)
        entries.append({"image": str(write(f"{seed}.tif", image)), "label": str(write(f"{seed}_label.tif", label))})

    def _saved(**changes: Any) -> Path:
        values = {
            "name": "small",
            "seeds": [0, 1],
            "early": [10],
            "arch": {"name": "unet", "width": 2, "depth": 2},
            "mechanisms": {"deconv": {"up": "deconv3"}, "nearest": {"up": "nearest_conv"}},
            "common": {"steps": 20, "batch": 2, "crop": 32, "warmup": 2},
            "sets": {"discs": {"classes": ["a", "b"], "train": entries[:1], "score": entries[1:]}},
            **changes,
        }
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return _saved


def untrained(path: Path, mechanism: str = "nearest", halo: int = 32) -> tuple[Any, Dataset]:
    """Return the model of a run before its first step, with a head that says both classes, and its data."""
    training = CompareConfig.load(path).training(Run("discs", mechanism, 0))
    dataset = Dataset(training)
    model = snapshot(start(dataset.scenes, training).average, dataset, halo)
    with torch.no_grad():
        image = torch.from_numpy(dataset.scored[0].source.read(Box(0, 0, 64, 64))[None])
        logits = model.module(model.normalise(image))
        model.module.head.bias[1] += (logits[:, 0] - logits[:, 1]).median()
    return model, dataset


@pytest.mark.long
@pytest.mark.usefixtures("known_halo")
def test_runs_are_measured_once_and_the_table_holds_them_all(saved: Save, tmp_path: Path) -> None:
    path, events = saved(), list[Event]()
    found = compare(path, listener=events.append)
    assert found == tmp_path / "small" / "summary.md"
    assert events[0].message.startswith("discs: class  ")
    assert [event.message for event in events if event.stage != "labels"] == [
        *(f"discs, {name}, seed {seed}" for name in ("deconv", "nearest") for seed in (0, 1)),
        "summary",
    ]
    results = Results(tmp_path / "small")
    runs = [line for line in results.lines if "mechanism" in line]
    assert len(runs) == 4
    assert all(list(line["checkpoints"]) == ["10", "20"] for line in runs)
    by_name = json.loads((tmp_path / "small" / "summary.json").read_text())["sets"]["discs"]["mechanisms"]
    deconv, nearest = by_name["deconv"], by_name["nearest"]
    assert (deconv["overlap"], nearest["overlap"], nearest["imbalance, end"]["mean"]) == (4, 1, 0)
    assert deconv["imbalance, start"]["mean"] > 1
    values = [line["checkpoints"]["20"]["mean_iou"] for line in runs if line["mechanism"] == "deconv"]
    assert deconv["mean IoU"]["values"] == pytest.approx(values, abs=1e-5)
    assert deconv["mean IoU"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert deconv["mean IoU"]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    assert deconv["parameters"] == sum(
        p.numel() for p in build({"name": "unet", "width": 2, "depth": 2, "up": "deconv3"}, 3, 2).parameters()
    )
    pairs = json.loads((tmp_path / "small" / "summary.json").read_text())["pairs"]
    apart = np.subtract(*(by_name[name]["peak dB, step 20"]["values"] for name in ("nearest", "deconv")))
    assert set(pairs) == {"nearest"}
    assert pairs["nearest"]["peak dB, step 20"]["values"] == pytest.approx(list(apart), abs=2e-5)
    text = found.read_text()
    assert "### Run by run against deconv" in text
    assert f"{apart.mean():+.1f} ± {np.std(apart, ddof=1):.1f} ({(apart > 0).sum()}/2)" in text
    assert f"| deconv | {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} |" in text
    assert "| mechanism | peak dB, step 10 | peak dB, step 20 | line dB, step 10 |" in text
    assert "*the truth itself*" in text
    assert "*the best threshold, " in text
    assert (tmp_path / "small" / "discs.png").stat().st_size > 1000


@pytest.mark.usefixtures("known_halo")
@pytest.mark.long
def test_finished_runs_are_not_run_again(saved: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, done = saved(), list[str]()
    real = module.trained
    monkeypatch.setattr(module, "trained", lambda c, run, *rest: done.append(str(run)) or real(c, run, *rest))

    def pulled(event: Event) -> None:
        if event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(path, listener=pulled)
    assert len(done) == 3
    file = tmp_path / "small" / "results.jsonl"
    file.write_text(file.read_text() + '{"set": "discs", "mecha')  # the plug was pulled while a line was written
    whole = compare(path).read_text()
    assert done == [str(run) for run in CompareConfig.load(path).runs]
    assert compare(path).read_text() == whole
    assert len(done) == 4
    with pytest.raises(UsageError, match="holds discs, deconv, 0 of another configuration"):
        compare(saved(width=3))
    file.write_text("nonsense\n")
    with pytest.raises(StorageError, match=r"results\.jsonl cannot be read"):
        compare(path)


@pytest.mark.long
@pytest.mark.usefixtures("known_halo")
def test_the_same_run_gives_the_same_figures(saved: Save, tmp_path: Path) -> None:
    path = saved(seeds=[1], mechanisms={"deconv": {"up": "deconv3"}})
    first, second = (Results(compare(path, tmp_path / name).parent).lines for name in "ab")
    assert [line.get("checkpoints") for line in first] == [line.get("checkpoints") for line in second]


def test_all_mechanisms_start_from_the_same_encoder_and_see_the_same_crops(saved: Save) -> None:
    config = CompareConfig.load(saved())
    states = [start(Dataset(config.training(run)).scenes, config.training(run)) for run in config.runs]
    encoders = [state.module.encoder.state_dict() for state in states]  # deconv 0, deconv 1, nearest 0, nearest 1
    name = next(iter(encoders[0]))
    assert torch.equal(encoders[0][name], encoders[2][name])
    assert not torch.equal(encoders[0][name], encoders[1][name])
    apart = {"arch", "seed"}
    first, second = (config.training(run).model_dump(exclude=apart) for run in (config.runs[0], config.runs[-1]))
    assert first == second


def test_labels_and_scores_are_those_of_the_tiled_path(saved: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    common = {"steps": 20, "crop": 32, "resolution": 0.8}  # the images have 0.5 m
    model, dataset = untrained(saved(common=common))
    monkeypatch.setattr("tilepipe.training.validation.VALIDATED_BLOCK", 24)
    for scene in dataset.scored:
        found = answer(model, scene)
        np.testing.assert_array_equal(found.labels, predicted(model, scene, scene.full))
        assert found.probabilities.shape == (2, *found.area.shape)
        np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-6)
    assert 0 < found.labels.mean() < 1
    confusion = score(model, dataset.scored)
    measured = figures_of_model(model, dataset.scored, 2)
    assert measured["mean_iou"] == pytest.approx(confusion.mean_iou)
    assert measured["iou"] == pytest.approx(confusion.iou[1])


def test_a_sheet_counts_every_scene_and_nothing_between(saved: Save) -> None:
    a, b = np.ones((4, 3), int), np.ones((2, 5), int)
    maps = sheet([a, b], [a, 0 * b], 2)
    assert int(maps.scored().sum()) == a.size + b.size
    from tilepipe.evaluation.metrics.components import components_of

    fragments = components_of(maps)
    assert (fragments.predicted, fragments.true) == (2, 2)


def test_a_checkerboard_is_found_at_its_stride_and_only_there() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.05, (1, 200, 300))
    pattern = 0.1 * (np.indices((200, 300)).sum(0) % 2)
    area = Box(3, 1, 203, 301)
    clean, dirty = (lines([(y, area)], [2, 4]) for y in (noise, noise + pattern))
    assert clean["peak_db"] < 3
    assert dirty["peak_db"] == dirty["strides"]["2"]["peak_db"] > 15
    assert set(dirty["strides"]) == {"2", "4"}
    single = lines([(noise[:, :64, :64], Box(0, 0, 64, 64))], [2])
    assert single["line_db"] == pytest.approx(checkerboard(noise[0, :64, :64], 2).line_db)
    with pytest.raises(UsageError, match="give at least 32 px"):
        lines([(noise[:, :20, :20], Box(0, 0, 20, 20))], [2])


def test_patches_lie_inside_and_start_at_multiples_of_the_stride() -> None:
    areas = [Box(3, 5, 603, 905), Box(0, 0, 70, 300), Box(1237, 0, 1798, 1355)]
    found = list(patches(areas, 8))
    assert {k for k, _ in found} == {0, 1, 2}
    assert {window.shape for _, window in found} == {(70, 70)}
    assert all(areas[k].contains(window) and window.y0 % 8 == window.x0 % 8 == 0 for k, window in found)
    assert max(sum(k == wanted for k, _ in found) for wanted in range(3)) <= 12


def test_speeds_are_the_least_of_turns() -> None:
    ticks = iter([0, 3, 3, 8, 10, 11, 11, 15])  # a 3, b 5, a 1, b 4
    networks = {"a": torch.nn.Conv2d(3, 2, 1), "b": torch.nn.Conv2d(3, 2, 3)}
    found = speeds(networks, 3, rounds=2, clock=lambda: next(ticks))
    assert found == {"a": 1 / (32 * 32 / 1e6), "b": 4 / (32 * 32 / 1e6)}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mechanisms": {}}, "mechanisms: .*at least 1 item"),
        ({"speed": 1}, "speed: Extra inputs are not permitted"),
        ({"early": [15]}, "early step 15: give multiples of 10 below the 20 steps"),
        ({"early": [20]}, "early step 20: "),
        ({"common": {"start": "nuclei"}}, "a comparison starts from no model"),
        ({"common": {"steps": 20, "validate": [{"image": "a", "label": "b"}]}}, "leave out validate"),
        ({"common": {"steps": 20, "crop": 34}}, "crop 34 is not a multiple of the total stride 4"),
        ({"common": {"stepz": 20}}, "discs, deconv, seed 0: .*unknown key 'stepz'; nearest is 'steps'"),
    ],
)
def test_mistakes_cost_no_training(saved: Save, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        compare(saved(**changes))


@pytest.mark.long
def test_networks_that_cannot_be_compared_are_refused(saved: Save) -> None:
    with pytest.raises(ModelError, match="nearest is 'deconv3'"):
        compare(saved(mechanisms={"x": {"up": "deconv33"}}))
    with pytest.raises(UsageError, match="mixes the whole tile"):
        compare(saved(mechanisms={"x": {"norm": "instance"}}))


def test_a_network_that_needs_no_context_can_be_compared() -> None:
    assert module.context(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1)), 3) == 0


def test_networks_are_timed_with_the_classes_that_they_have(saved: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CompareConfig.load(saved())
    (name,) = config.sets
    training = config.training(Run(name, "nearest", 0)).model_copy(update={"classes": list("abcde")})
    image = torch.zeros(1, 3, 32, 32)
    monkeypatch.setattr(
        module, "speeds", lambda networks, _bands: {k: len(net(image)[0]) for k, net in networks.items()}
    )
    assert module.timed(config, {name: Dataset(training)}) == {"deconv": 5, "nearest": 5}


def test_files_that_hold_no_comparison_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for text, sentence in (("[1]", "holds no comparison"), ("a: [", "is not YAML")):
        path.write_text(text)
        with pytest.raises(UsageError, match=sentence):
            compare(path)
    with pytest.raises(UsageError, match="does not exist"):
        compare(tmp_path / "none.yaml")


def test_the_command_prints_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "compare", lambda config, out, listener: f"{config} {out}")
    result = CliRunner().invoke(command, ["c.yaml", "--out", "there", "-q"])
    assert (result.exit_code, result.output) == (0, "c.yaml there\n")


def test_the_published_comparison_can_be_run() -> None:
    config = CompareConfig.load(PUBLISHED)
    config.check()
    assert len(config.seeds) >= 3
    assert len(config.sets) == 2
    torch.manual_seed(0)
    first = build(config.training(Run("nuclei", "nearest + conv", 0)).arch, 3, 2).encoder
    for mechanism in config.mechanisms:
        torch.manual_seed(0)
        other = build(config.training(Run("nuclei", mechanism, 0)).arch, 3, 2).encoder.parameters()
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other, strict=False)), mechanism
    uneven = {m: lint(build(config.training(Run("nuclei", m, 0)).arch, 3, 2)) for m in config.mechanisms}
    assert {m for m, found in uneven.items() if any(f.overlap > 1 for f in found)} == {"deconv 3", "LinkNet, deconv 3"}


def test_the_page_shows_what_was_measured() -> None:
    config = CompareConfig.load(PUBLISHED)
    results = Results(PUBLISHED.with_suffix(""))
    assert all(results.run((run.set, run.mechanism, run.seed)) for run in config.runs)
    results.check({(run.set, run.mechanism, run.seed): config.fingerprint(run) for run in config.runs})
    text = markdown(summary(config, results))
    assert (PUBLISHED.with_suffix("") / "summary.md").read_text() == text
    assert text in (ROOT / "docs" / "decoders.md").read_text()
