from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilepipe.box import Box
from tilepipe.execution.predict import predict
from tilepipe.models.facts import BUNDLED, WEIGHTS, bundled_models
from tilepipe.models.formats.directory import load_model
from tilepipe.sources.open import open_source
from tilepipe.training.config import TrainConfig
from tilepipe.training.record import configured, judged
from tilepipe.training.scenes import open_scenes

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TILEPIPE_DATA", ROOT / "../shared/data"))


def pipeline(name: str) -> TrainConfig:
    return TrainConfig.load(ROOT / "pipelines" / f"train_{name}.yaml")


def test_there_are_three() -> None:
    assert bundled_models() == ["buildings", "forest", "nuclei"]


@pytest.mark.parametrize("name", bundled_models())
def test_every_bundled_model_is_small_licensed_and_better_than_trivial_answers(name: str) -> None:
    card = load_model(name).card
    assert (BUNDLED / f"{name}.model" / WEIGHTS).stat().st_size <= 4_000_000
    assert card.license
    scores = card.training["scores"]
    for rival in ("majority", "threshold"):
        assert scores["model"]["mean_iou"] > scores[rival]["mean_iou"] + 0.04
        assert scores["model"]["accuracy"] > scores[rival]["accuracy"]
    assert scores["model"]["object_f1"]


@pytest.mark.parametrize("name", bundled_models())
def test_the_card_holds_the_configuration_that_trained_it(name: str) -> None:
    assert load_model(name).card.training["configuration"] == configured(pipeline(name))


@pytest.mark.parametrize(
    ("box", "forest"), [(Box(100, 230, 180, 360), True), (Box(80, 55, 120, 95), False)], ids=["woods", "bare field"]
)
def test_the_forest_model_calls_the_dark_woods_forest(box: Box, forest: bool) -> None:
    """Both are seen at a glance in this scene; values of labels that are taken the wrong way round are seen so too."""
    scene = ROOT / "pipelines" / "sample" / "Amazon_177_46.tif"
    red, _, blue = open_source(scene).read(box).mean((1, 2))
    assert (red < blue) == forest
    assert ((predict(scene, "forest", box) == 1) == forest).mean() > 0.95


@pytest.mark.long
@pytest.mark.parametrize("name", bundled_models())
def test_the_recorded_scores_are_those_of_the_stored_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not DATA.exists():
        pytest.skip("needs the larger data in TILEPIPE_DATA")
    monkeypatch.setenv("TILEPIPE_DATA", str(DATA))
    model, config = load_model(name), pipeline(name)
    found = judged(model, open_scenes(config.train, config), open_scenes(config.score, config))
    for answer, figures in model.card.training["scores"].items():
        again = found["scores"][answer]
        assert again["mean_iou"] == pytest.approx(figures["mean_iou"], abs=2e-3), answer
        assert again.get("object_f1", {}) == pytest.approx(figures.get("object_f1", {}), abs=2e-3), answer
        assert again["accuracy"] == pytest.approx(figures["accuracy"], abs=2e-3), answer
