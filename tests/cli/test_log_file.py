"""The log of a command: one JSON object a line, few lines, no password, and a full disk ends nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilepipe.cli.log_file import LogLines, logged
from tilepipe.cli.main import main
from tilepipe.cli.progress_bar import json_lines
from tilepipe.errors import UsageError
from tilepipe.events import Event, silent

SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample" / "Amazon_24_20.tif"
FIELDS = {"stage", "done", "total", "message", "data"}
STAGES = {"", "plan", "statistics", "predict", "export", "publish", "done"}


def test_events_become_few_lines() -> None:
    now, lines = [0.0], list[str]()
    log = LogLines(lines.append, lambda: None, lambda: now[0])
    for done in range(101):
        log(Event("predict", done, 100))
        now[0] += 0.125
    log(Event("plan", message="no answer at tls://me:secret@host:1"))
    found = [json.loads(line) for line in lines]
    assert len(found) == 5
    assert all(line.keys() == FIELDS | {"time", "pid"} for line in found)
    assert "secret" not in "".join(lines)
    assert "tls://***@host:1" in lines[-1]


def test_a_full_disk_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    log = LogLines(full, lambda: None)
    for _ in range(3):
        log(Event("plan", message="x"))
    assert capsys.readouterr().err.count("cannot be written any more") == 1


def test_a_log_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"), logged(str(tmp_path / "no" / "log"), silent):
        pass


def test_a_run_has_a_log_and_stable_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["segment", str(SAMPLE), str(tmp_path / "x.tif"), "-m", "forest", "--window", "0,0,64,64"]
    log = tmp_path / "log"
    assert main([*words, "--progress", "json", "--log", str(log)]) == 0
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    for line in said:
        assert line.keys() == FIELDS
        assert [type(line[name]) for name in ("stage", "done", "total", "message", "data")] == [
            str,
            int,
            int,
            str,
            dict,
        ]
    assert {line["stage"] for line in said} <= STAGES
    assert said[-1]["stage"] == "done"
    assert {line["stage"] for line in kept} == {line["stage"] for line in said}
    json_lines(Event("plan", message="https://u:p@host"))
    assert "u:p" not in capsys.readouterr().err
