"""The recipes of pipelines/schedule: each is read by its own tool, or by the nearest one that installs."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tilepipe.execution.batch.cron import Cron

SCHEDULE = Path(__file__).parents[1] / "pipelines" / "schedule"


@pytest.fixture
def fake_tilepipe(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `tilepipe` writes its words into a file and makes its output."""
    program = tmp_path / "bin" / "tilepipe"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{tmp_path}/words"\n[ "$1" = segment ] && touch "$3"\nexit 0\n'
    )
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for file in SCHEDULE.glob("tilepipe-batch@.*"):
        (tmp_path / file.name.replace("@", "@forest")).write_text(file.read_text())
    units = [str(tmp_path / f"tilepipe-batch@forest.{kind}") for kind in ("service", "timer")]
    words = ["systemd-analyze", "verify", "--user", "--man=no", *units]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stderr
    # The program of the recipe is not installed where the recipe looks for it.
    assert [
        line for line in said.splitlines() if "tilepipe-batch@forest" in line and "is not executable" not in line
    ] == []


def test_the_crontab_is_lines_of_cron() -> None:
    lines = [line for line in (SCHEDULE / "crontab").read_text().splitlines() if not line.startswith("#")]
    assert [Cron.of(" ".join(line.split()[:5])).text for line in lines] == ["15 2 * * *", "45 2 * * *"]


def test_the_cron_job_is_one_of_kubernetes() -> None:
    job = yaml.safe_load((SCHEDULE / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["concurrencyPolicy"]) == ("batch/v1", "CronJob", "Forbid")
    assert Cron.of(job["spec"]["schedule"])
    spec = job["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    # The API takes a policy for failures of pods only with this one for restarts.
    assert pod["restartPolicy"] == "Never"
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert {one["name"] for one in pod["volumes"]} == {one["name"] for one in pod["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("name", ["airflow_dag.py", "prefect_flow.py"])
def test_python_compiles_the_recipes(name: str, tmp_path: Path) -> None:
    py_compile.compile(str(SCHEDULE / name), cfile=str(tmp_path / "x.pyc"), doraise=True)


def test_a_task_of_slurm_takes_its_image(tmp_path: Path, fake_tilepipe: dict[str, str]) -> None:
    script = SCHEDULE / "slurm_array.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    (tmp_path / "list").write_text("scenes/a.tif\nscenes/b c.tif\n")
    words = ["bash", str(script), str(tmp_path / "list"), str(tmp_path / "out"), "forest"]
    subprocess.run(words, check=True, env={**fake_tilepipe, "SLURM_ARRAY_TASK_ID": "1"})
    assert (tmp_path / "words").read_text().splitlines()[:5] == [
        "segment", "scenes/b c.tif", str(tmp_path / "out" / "b c.labels.tif"), "-m", "forest",
    ]  # fmt: skip


def test_pixi_installs_extras_that_exist() -> None:
    recipe = tomllib.loads((SCHEDULE / "pixi.toml").read_text())
    project = tomllib.loads((SCHEDULE.parents[1] / "pyproject.toml").read_text())["project"]
    assert set(recipe["pypi-dependencies"]["tilepipe"]["extras"]) <= project["optional-dependencies"].keys()
    assert recipe["dependencies"]["python"].startswith(project["requires-python"])


def test_the_table_names_each_recipe() -> None:
    told = (SCHEDULE.parent / "README.md").read_text()
    for file in SCHEDULE.iterdir():
        assert f"`{file.name}`" in told or file.suffix == ".timer", file.name


@pytest.mark.long
def test_snakemake_runs_its_recipe(tmp_path: Path, fake_tilepipe: dict[str, str]) -> None:
    """Snakemake gets an environment of its own, since its requirements are many."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    install = [str(tmp_path / "venv" / "bin" / "pip"), "install", "-q", "snakemake-minimal>=8"]
    if subprocess.run(install, check=False).returncode:
        pytest.skip("Snakemake does not install here")
    (tmp_path / "scenes").mkdir()
    for name in ("a", "b c"):
        (tmp_path / "scenes" / f"{name}.tif").touch()
    words = [str(tmp_path / "venv" / "bin" / "snakemake"), "-s", str(SCHEDULE / "Snakefile"), "--cores", "1"]
    environment = {**fake_tilepipe, "HOME": str(tmp_path)}
    subprocess.run(words, cwd=tmp_path, check=True, env=environment)
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["a.labels.tif", "b c.labels.tif"]
    said = subprocess.run(words, cwd=tmp_path, check=True, env=environment, capture_output=True, text=True)
    assert "Nothing to be done" in said.stderr + said.stdout
