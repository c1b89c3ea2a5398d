"""`tilepipe train` killed at random moments and started again: the same files, byte for byte."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tilepipe.training.config import TrainConfig

Configure = Callable[..., TrainConfig]
FILES = ("weights.safetensors", "model.json", "log.csv", "log.jsonl", "curves.png")
WAIT = 0.6
"""Most seconds that a process trains before it is killed."""


def train(path: Path, ready: Any) -> None:
    """What the killed process does: `tilepipe train`, first step to come."""
    from tilepipe.cli.main import main

    ready.set()
    code = main(["train", str(path), "--progress", "none"])
    os._exit(code)


def written(config: TrainConfig, path: Path) -> Path:
    values = config.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    path.write_text(yaml.safe_dump(values))
    assert TrainConfig.load(path).model_dump() == config.model_dump()
    return path


@pytest.fixture
def short(small: Configure, tmp_path: Path) -> Callable[..., Path]:
    """Write the configuration of a training with checkpoints and validations, and return its path."""
    entry = {"image": str(tmp_path / "2.tif"), "label": str(tmp_path / "2_label.tif")}

    def _short(name: str, **changes: Any) -> Path:
        values = {"steps": 24, "validate": [entry], "validate_every": 4, "patience": 4, "checkpoint": 2, **changes}
        return written(small(**values, output=str(tmp_path / f"{name}.model")), tmp_path / f"{name}.yaml")

    return _short


def same(tmp_path: Path, first: str, second: str) -> None:
    for name in FILES:
        a, b = (tmp_path / f"{folder}.model" / name for folder in (first, second))
        assert a.read_bytes() == b.read_bytes(), name
    assert not list(tmp_path.glob(f".{second}.model*"))


@pytest.mark.long
def test_killed_at_random_moments(short: Callable[..., Path], tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tilepipe.training.loop", "tilepipe.cli.main", "hypothesis"])
    assert _killed(context, short("whole"), None) == 0
    rng, kills, path = random.Random(2026), 0, short("killed")
    while kills < 3 and _killed(context, path, rng.uniform(0.05, WAIT)) == -signal.SIGKILL:
        kills += 1
    if not (tmp_path / "killed.model").exists():
        assert _killed(context, path, None) == 0
    assert kills > 0
    same(tmp_path, "whole", "killed")


def _killed(context: Any, path: Path, after: float | None) -> int:
    """Train in a process, kill it so many seconds after its start; return its exit code."""
    ready = context.Event()
    child = context.Process(target=train, args=(path, ready))
    child.start()
    assert ready.wait(timeout=120)
    child.join(after)
    if child.exitcode is None:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    return int(child.exitcode)


@pytest.mark.long
def test_a_real_command_killed_many_times(short: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from tilepipe.cli import main; sys.exit(main(sys.argv[1:]))", "train"]
    longer = {"steps": 120, "validate_every": 10, "patience": 20, "checkpoint": 5}
    subprocess.run([*command, str(short("whole", **longer)), "-q"], check=True)
    rng, kills = random.Random(7), 0
    path = short("killed", **longer)
    while not (tmp_path / "killed.model").exists():
        child = subprocess.Popen([*command, str(path), "--progress", "json"], stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        for line in child.stderr:
            if json.loads(line)["stage"] == "train":  # training has begun
                break
        time.sleep(rng.uniform(0, 1.5))
        if kills < 20 and child.poll() is None:
            child.kill()
            kills += 1
        child.communicate()
    assert kills >= 5
    same(tmp_path, "whole", "killed")
