"""The wheel holds what an installed tilepipe needs; `tilepipe demo` runs from it and its requirements alone."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import rasterio
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tilepipe as tp
from tilepipe.cli.demo import DEMOS, SAMPLES
from tilepipe.cli.main import main

ROOT = Path(__file__).parents[1]
MIB = 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("tilepipe-*.whl"))


def test_the_wheel_holds_the_package_and_what_the_demo_reads(wheel: Path) -> None:
    package = [path for path in (ROOT / "tilepipe").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    masks = [Path(str(demo.settings["mask"])) for demo in DEMOS if "mask" in demo.settings]
    samples = [*(SAMPLES / demo.image for demo in DEMOS), *masks]
    wanted = {path.relative_to(ROOT).as_posix(): path for path in package}
    wanted |= {f"tilepipe/sample/{path.name}": path for path in samples}
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
        assert found == set(wanted)
        assert all(file.read(f"tilepipe/sample/{path.name}") == path.read_bytes() for path in samples)
        licences = {Path(name).name for name in file.namelist() if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}
    assert wheel.stat().st_size < 25 * MIB


def test_the_notice_names_every_sample_in_the_wheel() -> None:
    notice = (ROOT / "NOTICE").read_text()
    assert "tilepipe/sample/" in notice
    assert all(demo.image in notice for demo in DEMOS)


@pytest.mark.long
def test_the_demo_of_an_installed_wheel_makes_the_same_labels(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python, empty = tmp_path / "venv" / "bin" / "python", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    link(required(metadata.distribution("tilepipe").requires or ()), site)

    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python.with_name("tilepipe"), "demo"],
        cwd=empty, env={**environment, "TILEPIPE_CACHE": str(tmp_path / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in empty.iterdir()} == {"demo-output"}
    printed = [empty / line for line in done.stdout.splitlines()]
    assert {path.name for path in printed if path.exists()} >= {"aerial.png", "slide.png", "aerial.labels.tif"}

    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    for path in printed:
        if path.suffix in {".tif", ".zarr"}:
            labels = np.asarray(tp.open_labels(path))
            assert np.array_equal(labels, tp.open_labels(tmp_path / path.relative_to(empty))), path
            assert (labels == 1).any(), path
    with (
        rasterio.open(empty / "demo-output" / "aerial.labels.tif") as written,
        rasterio.open(SAMPLES / DEMOS[0].image) as image,
    ):
        assert (written.shape, written.transform, written.crs) == (image.shape, image.transform, image.crs)


def required(lines: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions that requirements name, and all that those require, without extras."""
    found: dict[str, metadata.Distribution] = {}
    left = [Requirement(line) for line in lines]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = metadata.distribution(name)
        for line in found[name].requires or ():
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                inner.marker = None
                left.append(inner)
    return found


def link(distributions: dict[str, metadata.Distribution], site: Path) -> None:
    """Put distributions into another environment by links: as if pip had installed them, without a download."""
    for distribution in distributions.values():
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(distribution.locate_file(top)))
