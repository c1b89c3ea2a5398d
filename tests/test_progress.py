"""Reports in Python: the logger, a bar in a terminal, a bar in a notebook, and the caller's listener."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from tilepipe import progress
from tilepipe.events import Event

EVENTS = [
    Event("plan", message="the fit"),
    Event("plan", message="warning: pixels are large"),
    Event("predict", 1, 4, "2 tiles/s"),
    Event("predict", 4, 4),
    Event("done"),
]


def tell_all(**how: Any) -> list[Event]:
    heard: list[Event] = []
    with progress.reported(heard.append, **how) as tell:
        for event in EVENTS:
            tell(event)
    return heard


def test_the_logger_has_levels_and_the_listener_hears_all(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "tilepipe"):
        assert tell_all() == EVENTS
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "plan: the fit"),
        ("WARNING", "plan: warning: pixels are large"),
        ("DEBUG", "predict 1/4: 2 tiles/s"),
        ("DEBUG", "predict 4/4"),
        ("DEBUG", "done"),
    ]


def test_nothing_is_shown_unless_it_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    tell_all()
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_line_per_stage(capfd: pytest.CaptureFixture[str]) -> None:
    tell_all(progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "predict" in shown.err
    assert "4/4" in shown.err


def test_a_notebook_gets_a_bar_that_needs_no_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []

    class ZMQInteractiveShell:
        pass

    class Place:
        def update(self, page: str) -> None:
            pages.append(page)

    def display(page: str, display_id: bool) -> Place:
        pages.append(page)
        return Place()

    shell, shown = ModuleType("IPython"), ModuleType("IPython.display")
    shell.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    shell.display = shown  # type: ignore[attr-defined]
    shown.HTML, shown.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    tell_all(progress=True)
    assert "<progress value='1' max='4'>" in pages[0]
    assert "4 / 4" in pages[-1]


def test_a_program_that_sets_up_no_logging_sees_no_log() -> None:
    code = "from tilepipe import progress, events; progress.log(events.Event('plan', message='warning: x'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
