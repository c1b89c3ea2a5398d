"""The example notebooks run, and what is stored in them is small and speaks of no machine."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 300_000
"""Bytes of a notebook with its outputs."""


def module() -> Any:
    """Return docs/notebooks/execute.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_there_is_one_for_each_kind_of_user() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["buildings", "nuclei", "own_model", "researcher"]


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_as_much_as_is_stored(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    shutil.copytree(ROOT / "pipelines" / "sample", tmp_path / "pipelines" / "sample")
    place = tmp_path / "docs" / "notebooks"
    place.mkdir(parents=True)
    executed = module().execute(Path(shutil.copy(path, place)))
    stored = json.loads(path.read_text())
    for new, old in zip(executed.cells, stored["cells"], strict=True):
        assert set(map(kind, new.get("outputs", []))) == set(map(kind, old.get("outputs", [])))
    assert [one.name for one in place.iterdir() if one != place / path.name] == ["output"]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in ("buildings", "researcher") else pytest.mark.long)
        for path in NOTEBOOKS
    ],
)
def test_the_cells_of_a_notebook_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, without a kernel: the same cells, one after the other, with the pictures drawn and not shown."""
    pytest.importorskip("matplotlib").use("Agg")
    shutil.copytree(ROOT / "pipelines" / "sample", tmp_path / "pipelines" / "sample")
    place = tmp_path / "docs" / "notebooks"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    names: dict[str, Any] = {"__name__": "__notebook__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pictures are not shown by Agg
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{path.stem} {cell['id']}", "exec"), names)


def kind(output: dict[str, Any]) -> tuple[str, str]:
    """Return what an output is; its figures may differ in the last digits on another machine."""
    return output["output_type"], output.get("name", "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_small_and_clean(path: Path) -> None:
    text = path.read_text()
    assert len(text) < LARGEST
    assert "image/jpeg" in text
    cells = json.loads(text)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert all(kind(output) in {("stream", "stdout"), ("display_data", "")} for output in outputs)
    words = json.dumps([cell["source"] for cell in cells] + [output.get("text", "") for output in outputs])
    assert not re.search(r"(?<![\w.:/])/\w+/\w", words), "an absolute path"
