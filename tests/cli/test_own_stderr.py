"""Standard error holds what tilepipe says and nothing else, however a library speaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOUD = """
import logging, os, subprocess, sys, warnings
from tilepipe.cli import info, main
whole = info.describe

def describe(*words):
    os.write(2, b"from C")
    subprocess.run([sys.executable, "-c", "import sys; print('from a child', file=sys.stderr)"])
    logging.getLogger("library").warning("logged")
    warnings.warn("warned")
    return whole(*words)

info.describe = describe
code = main()
os.write(2, b"afterwards")
sys.exit(code)
"""


def run(*words: str, **environment: str) -> tuple[int, str]:
    """Return exit code and standard error of a command whose libraries remark on everything."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", LOUD, *words], capture_output=True, text=True, check=False, env={**clean, **environment}
    )
    return done.returncode, done.stderr


def test_no_remark_of_a_library_reaches_standard_error(image: Path) -> None:
    assert run("info", str(image)) == (0, "afterwards")
    code, err = run("info", str(image.with_name("none.tif")))
    assert code == 4
    assert err.startswith("tilepipe: ")
    assert err.endswith("afterwards")
    assert err.count("\n") == 1


@pytest.mark.parametrize("said", ["from C", "from a child", "logged", "warned"])
def test_who_asks_for_warnings_sees_them(image: Path, said: str) -> None:
    code, err = run("info", str(image), PYTHONWARNINGS="default")
    assert code == 0
    assert said in err


def test_a_closed_standard_error_is_no_trouble(image: Path) -> None:
    command = f"{sys.executable} -m tilepipe info {image} 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, "height: 150" in done.stdout) == (0, True)
