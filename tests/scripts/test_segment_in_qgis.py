"""The script for QGIS without QGIS: how it runs tilepipe. `tests/promises/test_qgis_toolbox.py` runs it in QGIS."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

from tilepipe.scripts.install import QGIS_SCRIPT, script


class Feedback:
    """What a tool of QGIS tells the user, and whether the user has pressed Cancel."""

    def __init__(self) -> None:
        self.progress: list[float] = []
        self.info: list[str] = []
        self.cancelled = threading.Event()

    def setProgress(self, value: float) -> None:  # noqa: N802
        self.progress.append(value)

    def pushInfo(self, text: str) -> None:  # noqa: N802
        self.info.append(text)

    def isCanceled(self) -> bool:  # noqa: N802
        return self.cancelled.is_set()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names of the script, run with a QGIS that does nothing."""
    core = ModuleType("qgis.core")
    for name in ("Algorithm", "LayerPostProcessorInterface", "Exception"):
        setattr(core, f"QgsProcessing{name}", type(name, (Exception,) if name == "Exception" else (), {}))
    core.__getattr__ = lambda name: MagicMock()  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "qgis", ModuleType("qgis"))
    monkeypatch.setitem(sys.modules, "qgis.core", core)
    names: dict[str, Any] = {"__name__": "segment_in_qgis"}
    exec(compile(script(QGIS_SCRIPT), QGIS_SCRIPT, "exec"), names)
    return names


def program(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(f"import json, os, signal, sys, time\n{body}")
    return [sys.executable, str(path)]


def test_progress_and_messages_are_shown(loaded: dict[str, Any], tmp_path: Path) -> None:
    events = [
        {"stage": "plan", "done": 0, "total": 1, "message": "it fits"},
        {"stage": "predict", "done": 1, "total": 4, "message": ""},
        {"stage": "predict", "done": 4, "total": 4, "message": ""},
        {"stage": "done", "done": 1, "total": 1, "message": "long"},
    ]
    lines = [*map(json.dumps, events), "a note", "tilepipe: the disk is full"]
    words = program(tmp_path, f"print({chr(10).join(lines)!r}, file=sys.stderr)\nsys.exit(6)")
    feedback = Feedback()
    assert loaded["run"](words, feedback) == (6, "tilepipe: the disk is full")
    assert feedback.progress == [25, 100]
    assert feedback.info == ["plan: it fits", "a note", "tilepipe: the disk is full"]


@pytest.mark.parametrize("obeys", [True, False])
def test_cancel_stops_tilepipe(loaded: dict[str, Any], tmp_path: Path, obeys: bool) -> None:
    handler = "lambda *_: sys.exit(143)" if obeys else "signal.SIG_IGN"
    words = program(
        tmp_path,
        f"signal.signal(signal.SIGTERM, {handler})\nprint('ready', file=sys.stderr, flush=True)\ntime.sleep(60)",
    )
    loaded["PATIENCE"], feedback = 0.5, Feedback()
    feedback.pushInfo = lambda text: feedback.cancelled.set()  # type: ignore[method-assign]
    before = time.monotonic()
    assert loaded["run"](words, feedback)[0] == (143 if obeys else -9)
    assert time.monotonic() - before < 50


def test_libraries_of_qgis_are_not_those_of_tilepipe(
    loaded: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROJ_LIB", "GDAL_DATA", "PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/of/qgis")
    monkeypatch.setenv("HOME_OF_USER", "kept")
    words = program(
        tmp_path,
        "print(*[n for n in os.environ if '/of/qgis' in os.environ[n] or n == 'HOME_OF_USER'], file=sys.stderr)",
    )
    assert loaded["run"](words, Feedback()) == (0, "HOME_OF_USER")


def test_a_program_that_is_not_there_is_said(loaded: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"cannot be started .* run 'tilepipe qgis install' again"):
        loaded["run"]([str(tmp_path / "nothing")], Feedback())
