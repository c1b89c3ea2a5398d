"""The command line as a user meets it: exit codes, one message per error, data and talk apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tilepipe import errors
from tilepipe.cli.main import Terminated, explain, main

ROOT = Path(__file__).parents[2]
COMMANDS = ["segment", "plan", "info", "export", "evaluate", "model", "demo", "train", "compare", "batch"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("u"), 2),
        (errors.InputError("i"), 4),
        (errors.ModelError("m"), 5),
        (errors.StorageError("s"), 6),
        (errors.DeviceError("d"), 7),
        (errors.LockedError("l"), 75),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
        (OSError(28, "No space left on device", "/out"), 6),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_every_error_has_its_code_and_one_message(error: BaseException, code: int) -> None:
    message, found = explain(error)
    assert found == code
    assert message
    assert "\n" not in message


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def raise_it(config: str, listener: Any, **options: Any) -> Path:
        raise error

    monkeypatch.setattr("tilepipe.training.loop.fit", raise_it)


@pytest.mark.parametrize("error", [errors.InputError("x.tif is truncated"), ZeroDivisionError("by zero")])
def test_a_traceback_only_with_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    fail_with(monkeypatch, error)
    assert main(["train", "c.yaml"]) == getattr(error, "exit_code", 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert str(error) in err
    main(["train", "c.yaml", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_ends_with_143_and_the_old_handler_comes_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def wait(config: str, listener: Any, **options: Any) -> Path:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("still here")

    monkeypatch.setattr("tilepipe.training.loop.fit", wait)
    assert main(["train", "c.yaml"]) == 143
    assert capsys.readouterr().err == "tilepipe: stopped; the same command goes on from here\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["train", "c.yaml"]) == 130


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["segment"], "Missing argument 'INPUT'"),
        (["segment", "x.tif"], "Missing option '-m'"),
        (
            ["segment", "x.tif", "-m", "buildings", "--tille", "3"],
            "Did you mean one of: '--fill-holes', '--runtime', '--tile'?",
        ),
        (["sgment"], "No such command 'sgment'"),
        (["batch", "run"], "Missing argument 'JOBS'"),
    ],
)
def test_usage_errors(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_help_lists_the_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [c for c in COMMANDS if c not in out] == []
    assert "75 locked" in out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tilepipe.cli import main; main(['segment', '--help'])\n"
        "print([m for m in ('torch', 'numpy', 'rasterio', 'zarr', 'dask', 'rich', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -c 'from tilepipe.cli import main; import sys; sys.exit(main())' info buildings --json"
    script = f"set -o pipefail; {command} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode in (0, 141), done.stderr) == (True, "")


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "tilepipe", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tilepipe ")


def test_an_image_that_does_not_say_its_pixel_size_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "scene.png"
    Image.new("RGB", (300, 200)).save(picture)
    assert main(["plan", str(picture), "-m", "nuclei"]) == 4
    assert "--pixel-size" in capsys.readouterr().err
    assert main(["plan", str(picture), "-m", "nuclei", "--pixel-size", "0.25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
