"""No command reaches the network: they run where there is none, and nothing tries to."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "helpers" / "without_network.py"
SAMPLE = ROOT / "pipelines" / "sample" / "Amazon_24_20.tif"


def offline(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "-rn", sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


pytestmark = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], check=False).returncode != 0,
    reason="needs a kernel that gives users networks of their own",
)


def test_a_connection_elsewhere_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "phones.py").write_text("import socket\nsocket.create_connection(('192.0.2.1', 80), 1)\n")
    assert offline("phones", folder=tmp_path).returncode == 99
    (tmp_path / "at_home.py").write_text("import socket\nsocket.create_server(('127.0.0.1', 0))\n")
    assert offline("at_home", folder=tmp_path).returncode == 0
    assert socket.has_ipv6 in (True, False)


@pytest.mark.long
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_and_a_batch_need_no_network(tmp_path: Path, workers: str) -> None:
    run = [
        "tilepipe",
        "segment",
        str(SAMPLE),
        "x.tif",
        "-m",
        "forest",
        "--window",
        "0,0,200,200",
        "--of",
        "cog,report,stac",
    ]
    done = offline(*run, "--workers", workers, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.tif").exists()
    (tmp_path / "night.yaml").write_text(
        f"images: {SAMPLE}\nmodel: forest\noutput: out/{{stem}}.tif\nsettings: {{window: [0, 0, 200, 200]}}\n"
    )
    done = offline("tilepipe", "batch", "run", "night.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
