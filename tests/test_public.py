"""The public names: exactly these, sorted, each documented, and cheap to import."""

from __future__ import annotations

import ast
import doctest
import shutil
import subprocess
import sys
from inspect import cleandoc
from pathlib import Path

import pytest

import tilepipe
from tilepipe import testing

ROOT = Path(__file__).parents[1]

PUBLIC = [
    "Box",
    "Model",
    "ModelCard",
    "Settings",
    "Source",
    "TilepipeError",
    "evaluate",
    "fit",
    "labels",
    "load_model",
    "open_labels",
    "open_source",
    "plan",
    "predict",
    "probe",
    "segment",
    "verify",
    "zonal",
]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_exactly_the_public_names() -> None:
    assert tilepipe.__all__ == PUBLIC == sorted(PUBLIC)
    assert len(PUBLIC) <= 18
    assert dir(tilepipe) == sorted([*PUBLIC, "__version__"])


def examples_of(name: str) -> list[doctest.DocTest]:
    """The examples in the docstrings of a public name and of its methods."""
    found = doctest.DocTestFinder().find(getattr(tilepipe, name), name, module=False, globs={})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "pipelines" / "sample", tmp_path / "pipelines" / "sample")
    monkeypatch.chdir(tmp_path)
    examples = examples_of(name)
    assert name in {test.name for test in examples}
    for test in examples:
        assert doctest.DocTestRunner().run(test).failed == 0, capsys.readouterr().out


def test_no_example_stands_where_it_is_not_run() -> None:
    run_here = {cleandoc(test.docstring) for name in PUBLIC for test in examples_of(name)}
    run_here |= {cleandoc(test.docstring) for test in doctest.DocTestFinder().find(testing)}  # by tests/test_testing.py
    for path in Path(tilepipe.__file__).parent.rglob("*.py"):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kinds)]
        for text in filter(None, map(ast.get_docstring, nodes)):
            # The settings are added below the text of a function that takes them.
            assert ">>>" not in text or any(each.startswith(text) for each in run_here), f"{path}: {text[:60]}"


def test_every_public_name_has_a_page() -> None:
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")}
    for name in PUBLIC:
        assert f":: tilepipe.{name}\n" in pages[name]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        tilepipe.segmnt  # noqa: B018


def test_import_is_light() -> None:
    heavy = "{'torch', 'rasterio', 'openslide', 'zarr', 'dask', 'numpy', 'pydantic'}"
    assert run(f"import sys, tilepipe; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_a_plan_does_not_import_torch() -> None:
    code = "import sys\nfrom tilepipe.planning.plan import Plan\nprint('torch' in sys.modules)"
    assert run(code).strip() == "False"


def test_no_room_bears_the_name_of_a_public_function() -> None:
    rooms = {path.stem for path in Path(tilepipe.__file__).parent.iterdir()}
    assert not rooms & set(PUBLIC)


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert tilepipe.__version__ == version("tilepipe")
