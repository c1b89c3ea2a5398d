"""The tables of the docs: the commands that print them, on a small made-up set, and on the real ones."""

from __future__ import annotations

import os
import re
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from PIL import Image

import tilepipe as tp

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("TILEPIPE_DATA", ROOT / "../shared/data"))


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def town(folder: Path, name: str, seed: int) -> dict[str, str]:
    """Bright squares on dark ground, 160 x 192 px, and their labels; return the entry of a configuration."""
    random = np.random.default_rng(seed)
    truth = np.zeros((160, 192), np.uint8)
    for y, x in random.integers(0, (140, 170), (25, 2)):
        truth[y : y + 16, x : x + 16] = 1
    image = np.where(truth, 180, 70)[..., None] + random.normal(0, 12, (*truth.shape, 3))
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(truth).save(folder / f"{name}_label.png")
    return {"image": str(folder / f"{name}.png"), "label": f"{name}_label.png"}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    config = {
        "name": "town", "output": "unused.model", "classes": ["ground", "building"],
        "arch": {"name": "unet", "width": 4, "depth": 2}, "train": [town(folder, "a", 0)],
        "score": [town(folder, "b", 1), town(folder, "c", 2)], "steps": 12, "batch": 2, "crop": 32, "warmup": 2,
    }  # fmt: skip
    (folder / "train_town.yaml").write_text(yaml.safe_dump(config))
    return folder


def rows(text: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.long
def test_the_tables_hold_every_answer_and_every_setting(
    pipelines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learning, seams = loaded("learning", monkeypatch), loaded("seams", monkeypatch)
    monkeypatch.setattr(learning, "PIPELINES", pipelines)
    monkeypatch.setattr(seams, "PIPELINES", pipelines)

    monkeypatch.setattr(sys, "argv", ["learning.py", "town", "--runs", str(pipelines), "--seeds", "1"])
    learning.main()
    table = rows(capsys.readouterr().out)
    assert table.pop("town") == ["ground", "building", "mean IoU", "accuracy"]
    figures = {name.split()[0].strip(","): values[2] for name, values in table.items() if name[0] != "-"}
    assert list(figures) == ["network", "commonest", "best", *learning.METHODS]
    assert float(figures["kmeans"]) > 0.9 > float(figures["commonest"])
    assert float(figures["best"]) > 0.7

    monkeypatch.setattr(sys, "argv", ["seams.py", f"town={pipelines / 'town-1.model'}:96"])
    seams.main()
    table = rows(capsys.readouterr().out)
    assert len(table) == 2 + 7
    for name in ("auto", "auto, tile 96"):
        assert table[name][1] == "EXACT"
        assert table[name][3:5] == ["0", "0"]
    assert table["no overlap"][1] == "UNCERTIFIED"
    assert table["no overlap"][3] != "0"
    assert float(table["no overlap"][2]) < float(table["50 % Hann"][2])


def test_the_page_names_every_script_and_options_that_exist() -> None:
    folder = ROOT / "benchmarks"
    page, scripts = (folder / "README.md").read_text(), {path.name: path.read_text() for path in folder.glob("*.py")}
    for name, code in scripts.items():
        part = page.split(f"## `{name}`")[1].split("\n## ")[0]
        options = set(re.findall(r"(?<![\w-])--[a-z]+", part))
        assert options or '"--' not in code
        assert options <= set(re.findall(r'"(--[a-z]+)"', code))
    assert set(re.findall(r"`(\w+\.py)`", page)) == set(scripts)
    for link in re.findall(r"\]\(([^)#]+)", page):
        assert (folder / link).exists(), link


def test_several_seeds_are_given_as_mean_and_range(monkeypatch: pytest.MonkeyPatch) -> None:
    script = loaded("learning", monkeypatch)
    found = [script.Confusion(((n, 4 - n), (0, 4))) for n in (2, 4)]
    cells = ["0.750 (0.500 to 1.000)", "0.833 (0.667 to 1.000)", "0.792 (0.583 to 1.000)", "0.875 (0.750 to 1.000)"]
    assert script.row("network", found) == f"| network | {' | '.join(cells)} |"


@pytest.mark.long
@pytest.mark.parametrize("name", ["buildings", "forest", "nuclei"])
def test_no_classical_answer_comes_near_a_bundled_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not DATA.exists():
        pytest.skip("needs the larger data in TILEPIPE_DATA")
    monkeypatch.setenv("TILEPIPE_DATA", str(DATA))
    script, model = loaded("learning", monkeypatch), tp.load_model(name)
    config = script.TrainConfig.load(ROOT / "pipelines" / f"train_{name}.yaml")
    scored = script.open_scenes(config.score, config)
    network = script.score(model, scored).mean_iou
    assert network == pytest.approx(model.card.training["scores"]["model"]["mean_iou"], abs=2e-3)
    taken = script.sample(script.open_scenes(config.train, config))
    for method in ("threshold", "watershed", "kmeans", "region_growing"):
        found, _ = script.classical(method, taken, config.classes)
        assert script.score(found, scored).mean_iou < network - 0.05, method


@pytest.mark.long
def test_memory_of_polygons_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = loaded("vectors", monkeypatch)
    monkeypatch.setattr(
        sys, "argv", ["vectors.py", "--cells", "8", "--work", str(tmp_path), "--only", "GeoPackage, right"]
    )
    module.main()
    features, memory, *_ = rows(capsys.readouterr().out)["GeoPackage, right angles"]
    assert features == "64"
    assert int(memory.removesuffix(" MiB").replace(",", "")) > 60


@pytest.mark.long
def test_objects_of_the_samples_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = loaded("objects", monkeypatch)
    monkeypatch.setattr(module, "IMAGES", tmp_path)
    module.pictures()
    for name in ("buildings_clean.png", "nuclei_split.png"):
        with Image.open(tmp_path / name) as drawn:
            colours = np.asarray(drawn.convert("RGB")).astype(int)
            assert (np.abs(colours - (255, 225, 0)).sum(-1) < 20).mean() > 0.01
