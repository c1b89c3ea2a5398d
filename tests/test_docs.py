"""The examples of README and docs run, in a folder that holds nothing but the sample data."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest

from tilepipe.cli.help import OTHER_WORDS
from tilepipe.cli.main import main, root

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]
SLOW = {"cli.md", "inputs.md", "models.md", "objects.md", "programs.md", "python.md", "seams.md", "testing.md"}
"""Pages whose examples take longest; they are long tests."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    assert all(line.startswith("$ tilepipe ") for line in lines), f"{page}: only commands in console blocks"
    return [line.removeprefix("$ ") for line in lines]


def with_examples(examples: Callable[[Path], list[str]]) -> list[Any]:
    """Return the pages that have examples."""
    found = [page for page in PAGES if examples(page)]
    return [pytest.param(page, id=page.name, marks=[pytest.mark.long] if page.name in SLOW else []) for page in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines")
    monkeypatch.chdir(tmp_path)
    # An example that shows something in the browser ends as if the user had closed it.
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    monkeypatch.setattr("tilepipe.view.viewer.Viewer.wait", lambda viewer: None)
    return tmp_path


@pytest.mark.parametrize("page", with_examples(lambda page: blocks(page, "python")))
def test_python_examples_run(page: Path, folder: Path) -> None:
    exec(compile("\n".join(blocks(page, "python")), page.name, "exec"), {"__name__": "__example__"})


@pytest.mark.parametrize("page", with_examples(commands))
def test_shell_examples_run_one_after_the_other(page: Path, folder: Path) -> None:
    for command in commands(page):
        assert main(shlex.split(command)[1:]) == 0, command


def test_no_two_pages_write_the_same_file() -> None:
    """Who tries the examples of several pages in one folder is not told that an output exists."""
    written = re.compile(r"(?<![\w./-])[\w.-]+\.(?:tif|ome\.zarr|geojson|gpkg|fgb|png|html|model)\b")
    pages: dict[str, set[str]] = {}
    for page in PAGES:
        for name in written.findall("\n".join([*commands(page), *blocks(page, "python")])):
            pages.setdefault(name, set()).add(page.name)
    assert len(pages) > 10
    assert {name: found for name, found in pages.items() if len(found) > 1} == {}


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def options_of(command: click.Command) -> set[str]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(options_of, below))


def test_options_that_documents_and_messages_name_exist() -> None:
    others = {"--no-deps", "--dtype", "--calc", "--type", "--outfile", "--revision"}  # of pip, rio, gdal_calc.py, hf
    others |= {"--format", "--user", "--now"}  # of aws, systemctl
    others |= {*OTHER_WORDS}  # of programs like this one
    known = options_of(root) | others | {"--help", "--help-all", "--version", "--debug"}
    for page in (*PAGES, *sorted((ROOT / "tilepipe").rglob("*.py"))):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w(-])", page.read_text()))
        assert named <= known, f"{page.name}: {named - known}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/decisions"])
def test_files_that_the_map_of_the_code_names_are_there(page: str) -> None:
    pages = [ROOT / page] if page.endswith(".md") else sorted((ROOT / page).glob("*.md"))
    pattern = r"`((?:tests/|tilepipe/|docs/)?[a-z_]+(?:/[a-z_]+)*(?:/|\.py|\.md))(?:::\w+)?`"
    named = {name for each in pages for name in re.findall(pattern, each.read_text())}
    assert len(named) > 20
    places = (ROOT, ROOT / "tilepipe", *(path for path in (ROOT / "tilepipe").iterdir() if path.is_dir()))
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_citation_names_this_version() -> None:
    import tilepipe

    assert f"version: {tilepipe.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.long  # what `make docs` does, which CI calls
@pytest.mark.skipif(find_spec("sphinx") is None, reason="sphinx is not installed")
def test_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    # In a process of its own: autodoc adds to the annotations of classes that it documents, which pydantic reads.
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "dummy", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_option_of_segment_is_explained() -> None:
    from tilepipe.cli.segment import segment

    text = (ROOT / "docs" / "cli.md").read_text()
    talk = {"--model", "--of", "--verbose", "--quiet", "--dry-run", "--block"}
    options = {name for parameter in segment.params for name in parameter.opts if name.startswith("--")}
    assert {name for name in options - talk if name not in text} == set()


def test_every_field_that_info_prints_of_a_run_is_explained(tmp_path: Path) -> None:
    import tilepipe as tp
    from tilepipe.cli.info import describe

    result = tp.segment(ROOT / "pipelines" / "sample" / "Amazon_24_20.tif", "forest", tmp_path / "o.tif", tile=256)
    facts = describe(str(result.paths[0].with_name(".o.tif.tilepipe")))
    text = (ROOT / "docs" / "cli.md").read_text()
    section = text[text.index("## What `tilepipe info` says of a run") : text.index("## Exit codes")]
    assert {name for name in (*facts, *facts["plan"]) if f"`{name}`" not in section} == set()
