"""Progress: lines for people and machines."""

from __future__ import annotations

import json

import pytest

from tilepipe.cli.progress_bar import PlainLines, json_lines, on_terminal, progress, sentence
from tilepipe.events import Event, silent


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = PlainLines(clock=lambda: now[0])
    for done in range(101):
        lines(Event("predict", done, 100))
        now[0] += 0.125
    lines(Event("publish", message="labels.tif"))
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "predict 0/100 (0 %)"
    assert err[-2:] == ["predict 100/100 (100 %)", "publish labels.tif"]
    assert len(err) == 5  # first, two in twelve seconds, last, the next stage


def test_json_lines_are_parsed_by_machines(capsys: pytest.CaptureFixture[str]) -> None:
    json_lines(Event("predict", 1, 2, "half", {"tiles": 4}))
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {"stage": "predict", "done": 1, "total": 2, "message": "half", "data": {"tiles": 4}}


def test_a_sentence_leaves_out_what_is_unknown() -> None:
    assert sentence(Event("done")) == "done"
    assert sentence(Event("train", 3, 0, "loss 0.4")) == "train loss 0.4"


@pytest.mark.parametrize(
    ("mode", "quiet", "kind"),
    [("none", False, "silent"), ("auto", True, "silent"), ("json", True, "json"), ("auto", False, "plain")],
)
def test_the_mode_decides(mode: str, quiet: bool, kind: str) -> None:
    with progress(mode, quiet) as listener:
        found = {silent: "silent", json_lines: "json"}.get(listener, "plain")  # type: ignore[call-overload]
    assert found == kind


def test_a_terminal_gets_a_line_that_is_drawn_and_a_dumb_one_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert on_terminal("auto")
    assert not any(on_terminal(mode) for mode in ("plain", "json", "none"))
    assert not on_terminal("auto", quiet=True)
    monkeypatch.setenv("TERM", "dumb")
    with progress("auto") as listener:
        assert isinstance(listener, PlainLines)
