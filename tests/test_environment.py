"""environment.yml, constraints.txt and pyproject.toml name the same packages."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch", "dask": "dask-core", "matplotlib": "matplotlib-base", "openslide-bin": "openslide"}
EXTRAS = ("dev", "dicom", "docs", "hdf5", "report", "vectors", "view", "xarray")
IMPORT_NAMES = {
    "pil": "pillow",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "openslide": "openslide-python",
    "pydantic-core": "pydantic",
    "bioimageio": "bioimageio-spec",
    "google": "onnx",  # protobuf, which onnx requires, for a type alone
}

GUESTS = {"ipython", "pandas"}
"""Packages of the caller: used in a notebook, or for what is asked of them by name; a sentence says if they lack."""


def project_table() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def requirements() -> dict[str, Requirement]:
    project = project_table()
    lines = list(project["dependencies"])
    for extra in EXTRAS:
        lines += project["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_environment_yml_equals_pyproject() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    *entries, others = entries  # the last entry holds what only pip has
    conda = {re.split(r"[<>=]", entry)[0]: entry for entry in [*entries, *others["pip"]]}
    assert conda.pop("python") == "python>=3.11"
    assert conda.pop("pip") == "pip"
    wanted = {CONDA_NAMES.get(name, name): str(r.specifier) for name, r in requirements().items()}
    assert {name: entry.removeprefix(name) for name, entry in conda.items()} == wanted


def test_constraints_pin_every_requirement_within_its_range() -> None:
    pinned = pins()
    for name, requirement in requirements().items():
        assert requirement.specifier.contains(pinned[name]), f"{requirement} but constraints.txt has {pinned[name]}"


def test_what_is_imported_is_required() -> None:
    """Not through another package; extras are for packages that are imported where they are needed."""
    project = project_table()
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    imported = set()
    for path in (ROOT / "tilepipe").rglob("*.py"):
        if path.name == "segment_in_qgis.py":  # it runs inside QGIS, which brings its own packages
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {canonicalize_name(name.split(".")[0]) for name in names}
    third_party = imported - {canonicalize_name(name) for name in sys.stdlib_module_names} - {"tilepipe"}
    assert {IMPORT_NAMES.get(name, name) for name in third_party} - declared - GUESTS == set()


def test_constraints_name_versions_only() -> None:
    assert all(re.fullmatch(r"[0-9][0-9A-Za-z.]*", version) for version in pins().values())


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="not the environment that make setup makes")
def test_what_is_installed_is_what_is_pinned() -> None:
    installed = {canonicalize_name(d.name): d.version.partition("+")[0] for d in metadata.distributions()}
    for name, version in pins().items():
        assert installed.get(name, version) == version, name
    assert set(requirements()) <= set(installed)
