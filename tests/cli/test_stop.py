"""SIGTERM and Ctrl-C end a run cleanly, and the same command goes on; a log that cannot be written ends none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers.cli_files import TRANSFORM

from tilepipe.cli.main import main

CHILD = """
import signal, sys
from tilepipe.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
sys.exit(main())
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Large enough that a run takes some seconds in blocks of 64 pixels."""
    pixels = np.random.default_rng(2).integers(0, 255, (3, 400, 400)).astype("uint8")
    profile = {"crs": "EPSG:32633", "transform": TRANSFORM, "tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(tmp_path / "large.tif", "w", "GTiff", 400, 400, 3, dtype="uint8", **profile) as file:
        file.write(pixels)
    return tmp_path / "large.tif"


@pytest.mark.parametrize(
    ("workers", "sent", "code"),
    [
        (0, signal.SIGINT, 130),
        pytest.param(0, signal.SIGTERM, 143, marks=pytest.mark.long),
        pytest.param(2, signal.SIGINT, 130, marks=pytest.mark.long),
        pytest.param(2, signal.SIGTERM, 143, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_goes_on(large: Path, model: Path, sent: signal.Signals, code: int, workers: int) -> None:
    """A terminal sends Ctrl-C to all processes of a command: one sentence comes all the same."""
    words = ["-m", str(model), "--block", "64", "--tile", "96"]
    output = large.with_name("out.tif")
    command = [sys.executable, "-c", CHILD]
    command += ["segment", str(large), str(output), *words, "--progress", "json"]
    command += ["--workers", str(workers)] if workers else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert run.stderr is not None
    for line in run.stderr:
        if '"predict"' in line and '"done": 0,' not in line:
            break
    os.killpg(run.pid, sent)
    rest = run.stderr.read()
    assert run.wait(timeout=60) == code
    said = [line for line in rest.splitlines() if not line.startswith('{"data"')]
    assert said == ["tilepipe: stopped; the same command goes on from here"]
    assert not output.exists()
    assert main(["segment", str(large), str(output), *words, "-q"]) == 0
    whole = large.with_name("whole.tif")
    assert main(["segment", str(large), str(whole), *words, "-q"]) == 0
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&-"])
@pytest.mark.long
def test_a_log_that_cannot_be_written_ends_no_run(image: Path, model: Path, closed: str) -> None:
    if "full" in closed and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    output = image.with_name("out.tif")
    command = [sys.executable, "-m", "tilepipe", "segment", str(image), str(output), "-m", str(model)]
    script = f'exec "$@" {closed}'
    run = subprocess.run(["sh", "-c", script, "sh", *command], check=False, stdout=subprocess.PIPE, text=True)
    assert (run.returncode, run.stdout) == (0, f"{output}\n")
    assert main(["verify", str(output), "-q"]) == 0
    command[4] = "missing.tif"
    run = subprocess.run(["sh", "-c", script, "sh", *command], check=False, stdout=subprocess.PIPE, text=True)
    assert (run.returncode, run.stdout) == (4, ""), "the code says why, where no log can"


def test_what_libraries_print_never_gets_into_a_file_that_took_the_place_of_standard_error(image: Path) -> None:
    code = (
        "import os, sys; from tilepipe.cli.main import main; main(); file = open(sys.argv[2], 'w'); "
        "os.write(2, b'remark'); print('lost', file=sys.stderr)"
    )
    script = 'exec "$@" 2>&-'
    target = image.with_name("text")
    subprocess.run(["sh", "-c", script, "sh", sys.executable, "-c", code, "--version", str(target)], check=True)
    assert target.read_bytes() == b""


INTERRUPTED = """
import os, runpy, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
sys.meta_path.insert(0, Interrupts())
if sys.argv[2] == "module":
    runpy.run_module("tilepipe", run_name="__main__")
module, name = sys.argv[2].split(":")
sys.exit(getattr(__import__(module, fromlist=[name]), name)())
"""


@pytest.mark.parametrize("imported", ["tilepipe.cli", "click", "tilepipe.errors", "tilepipe.cli.main"])
@pytest.mark.parametrize("start", ["module", "script"])
def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback(imported: str, start: str) -> None:
    """The script is the one that pyproject.toml names."""
    if start == "script":
        start = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]["tilepipe"]
    command = [sys.executable, "-c", INTERRUPTED, imported, start]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")
