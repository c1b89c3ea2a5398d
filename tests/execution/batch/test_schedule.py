"""Times in cron's words, told to systemd and APScheduler; units and crontab lines, checked by systemd itself."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.execution.batch.cron import FIELDS, WORDS, Cron
from tilepipe.execution.batch.schedule import crontab_lines, systemd_units
from tilepipe.execution.batch.slots import trigger_of

JOBS = "images: '*.tif'\nmodel: forest\noutput: out/{stem}.labels.tif\n"
START = datetime(2026, 2, 27, 13, 7, tzinfo=UTC)


def meant(text: str, moment: datetime) -> bool:
    """Whether cron runs at a moment, by the words of its manual."""
    words = [word.replace("sun", "0").replace("mon", "1") for word in text.split()]
    values = (moment.minute, moment.hour, moment.day, moment.month, (moment.weekday() + 1) % 7)

    def holds(word: str, value: int, low: int, high: int) -> bool:
        for part in word.split(","):
            body, _, step = part.partition("/")
            first, _, last = body.partition("-")
            start = low if first == "*" else int(first)
            end = high if first == "*" or (step and not last) else int(last or first)
            if value in range(start, end + 1, int(step or 1)) or (
                high == 7 and value == 0 and 7 in range(start, end + 1, int(step or 1))
            ):
                return True
        return False

    return all(holds(word, value, low, high) for word, value, (_, low, high) in zip(words, values, FIELDS, strict=True))


@st.composite
def times(draw: st.DrawFn) -> str:
    words = []
    for _, low, high in FIELDS:
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        words.append(
            draw(
                st.sampled_from(
                    [
                        "*",
                        "*",
                        f"{first}",
                        f"{first}-{last}",
                        f"{first},{last}",
                        f"*/{max(1, first)}",
                        f"{first}-{last}/2",
                    ]
                )
            )
        )
    if words[2] != "*" and words[4] != "*":
        words[draw(st.sampled_from([2, 4]))] = "*"
    return " ".join(words)


@given(times())
def test_apscheduler_runs_when_cron_does(text: str) -> None:
    trigger = trigger_of(Cron.of(text))
    trigger.timezone = UTC
    found, moment = [], START
    for _ in range(3):
        moment = trigger.get_next_fire_time(moment, moment + timedelta(seconds=1))
        if moment is None or moment > START + timedelta(days=3):
            break
        found.append(moment)
    minutes = (START + timedelta(minutes=k) for k in range(1, 3 * 24 * 60))
    brute = [moment for moment in minutes if meant(text, moment)][: len(found) or 1]
    assert found == brute


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize(
    "text", ["0 2 * * *", "*/15 8-18 * * mon-fri", "30 4 1,15 * *", "0 0 * * 7", "5 0 * 6 *", *WORDS]
)
def test_systemd_runs_when_cron_does(text: str) -> None:
    cron = Cron.of(text)
    base = START.strftime("%Y-%m-%d %H:%M:%S UTC")
    said = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=3", f"--base-time={base}", f"{cron.on_calendar()} UTC"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    found = [
        datetime.strptime(one, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        for one in re.findall(r"(?:elapse|Iteration #\d+|Iter\. #\d+): \w+ (\S+ \S+) UTC", said.stdout)
    ]
    assert found
    trigger, moment = trigger_of(cron), START
    trigger.timezone = UTC
    for one in found:
        moment = trigger.get_next_fire_time(moment, moment + timedelta(seconds=1))
        assert one == moment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 2 * *", "has 4 fields"),
        ("60 2 * * *", "the minute '60' is no number from 0 to 59"),
        ("0 5-2 * * *", "ends before it begins"),
        ("*/0 * * * *", "no step"),
        ("a-b-c * * * *", "cannot be read"),
        ("0 0 * * xyz", "day of week"),
    ],
)
def test_wrong_times_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Cron.of(text)


def test_days_of_month_and_week_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match="give one of the two"):
        Cron.of("0 0 1 * mon").on_calendar()


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    folder = tmp_path / 'a "b" 50% $x'
    folder.mkdir()
    (folder / "my night.yaml").write_text(JOBS)
    return folder / "my night.yaml"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(jobs: Path, tmp_path: Path) -> None:
    for name, text in systemd_units(jobs, Cron.of("15 2 * * *")).items():
        (tmp_path / name).write_text(text)
    units = [str(tmp_path / f"tilepipe-my-night.{kind}") for kind in ("service", "timer")]
    said = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *units], capture_output=True, text=True, check=False
    )
    own = [line for line in said.stderr.splitlines() if "tilepipe-my-night" in line]
    assert own == []


def test_printed_and_installed(
    jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert main(["batch", "schedule", str(jobs)]) == 0
    out, err = capsys.readouterr()
    assert "OnCalendar=*-*-* 02:15:00" in out
    assert "Persistent=true" in out
    assert "--install" in err
    assert not (tmp_path / "config").exists()
    assert main(["batch", "schedule", str(jobs), "--at", "0 3 * * sun", "--install"]) == 0
    assert capsys.readouterr().out.count("tilepipe-my-night.") == 2
    assert "Sun *-*-* 03:00:00" in (tmp_path / "config" / "systemd" / "user" / "tilepipe-my-night.timer").read_text()
    assert main(["batch", "schedule", str(jobs), "--at", "nonsense"]) == 2


def test_a_crontab_gets_one_line_for_a_batch(
    jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table"
    table.write_text("# mine\n0 1 * * * true\n")
    fake = tmp_path / "bin" / "crontab"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nif [ "$1" = -l ]; then cat "{table}"; else cat > "{table}"; fi\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    for at in ("15 2 * * *", "0 4 * * *"):
        assert main(["batch", "schedule", str(jobs), "--cron", "--at", at, "--install"]) == 0
    assert table.read_text() == "# mine\n0 1 * * * true\n" + crontab_lines(jobs, Cron.of("0 4 * * *"))
    # What cron runs: sh gets the line up to a percent sign that is not escaped.
    command = crontab_lines(jobs, Cron.of("0 4 * * *")).splitlines()[1].split(" ", 5)[5].replace(r"\%", "%")
    shown = subprocess.run(
        ["sh", "-c", f'set -- {command.partition(">>")[0]}; echo "$6"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == str(jobs)
    capsys.readouterr()
