"""This module makes what starts a batch at given times: a systemd service and timer, or a line of a crontab."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tilepipe.errors import StorageError, UsageError
from tilepipe.execution.batch.cron import Cron
from tilepipe.storage import write_durably

MARK = "# tilepipe batch "
"""Begin of the remark that stands before a line of a crontab, so that the next installation replaces the line."""

_SERVICE = """\
[Unit]
Description=tilepipe batch {name}

[Service]
Type=oneshot
ExecStart={command}
# Another batch at work (75) and a batch that was stopped (143) are no failures: the next start goes on.
SuccessExitStatus=75 143
# A batch that is stopped ends its block first; what it has finished is kept.
TimeoutStopSec=90
Nice=10
"""
_TIMER = """\
[Unit]
Description=tilepipe batch {name}: {cron}

[Timer]
OnCalendar={calendar}
# Catch up once after the machine was off.
Persistent=true

[Install]
WantedBy=timers.target
"""


def command_of(jobs: Path) -> list[str]:
    """Return the command that runs a batch with this Python from anywhere."""
    return [sys.executable, "-m", "tilepipe", "batch", "run", str(jobs.resolve()), "--progress", "plain"]


def unit_name(jobs: Path) -> str:
    """Return the name of the units of a jobs file, without ending."""
    return "tilepipe-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", jobs.stem)


def systemd_units(jobs: Path, cron: Cron) -> dict[str, str]:
    """Return the text of the service and of the timer, by file name. Raises `UsageError` for times it cannot say."""
    command = " ".join(_unit_word(word) for word in command_of(jobs))
    fields = {"name": _unit_text(jobs.stem), "command": command, "cron": cron.text, "calendar": cron.on_calendar()}
    name = unit_name(jobs)
    return {f"{name}.service": _SERVICE.format(**fields), f"{name}.timer": _TIMER.format(**fields)}


def crontab_lines(jobs: Path, cron: Cron) -> str:
    """Return the remark and the line of a crontab. What the batch says goes to a log beside the jobs file."""
    log = jobs.resolve().with_suffix(".log")
    if "\n" in str(log):
        raise UsageError(f"{jobs} has a line feed in its path, which a crontab cannot hold; rename it")
    line = f"{shlex.join(command_of(jobs))} >>{shlex.quote(str(log))} 2>&1"
    # Cron ends a command at a percent sign.
    return f"{MARK}{jobs.resolve()}\n{cron.text} " + line.replace("%", r"\%") + "\n"


def install_systemd(jobs: Path, cron: Cron) -> list[Path]:
    """Write the units of a user into the folder where systemd looks for them; return their paths.

    Raises `StorageError`. The units are not enabled: the caller says with which commands.
    """
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    written = []
    for name, text in systemd_units(jobs, cron).items():
        home.mkdir(parents=True, exist_ok=True)
        write_durably(home / name, text)
        written.append(home / name)
    return written


def install_crontab(jobs: Path, cron: Cron) -> str:
    """Put the line of a jobs file into the user's crontab, in place of an earlier one; return the new crontab.

    Raises `StorageError` if there is no cron, or if it refuses the crontab.
    """
    program = shutil.which("crontab")
    if program is None:
        raise StorageError("no crontab command is on this machine; install cron, or use systemd")
    known = subprocess.run([program, "-l"], capture_output=True, text=True, check=False)
    # `crontab -l` ends with 1 if the user has no crontab yet.
    lines = known.stdout.splitlines() if known.returncode == 0 else []
    mark = f"{MARK}{jobs.resolve()}"
    kept = [line for k, line in enumerate(lines) if line != mark and not (k and lines[k - 1] == mark)]
    text = "".join(f"{line}\n" for line in kept) + crontab_lines(jobs, cron)
    done = subprocess.run([program, "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(f"crontab refuses the new line: {' '.join(done.stderr.split())[:200]}")
    return text


def _unit_word(word: str) -> str:
    """Return a word of a command as a unit file quotes it."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$").replace("\n", "\\n")
    return plain if re.fullmatch(r"[A-Za-z0-9_./:=@+,-]+", plain) else f'"{plain}"'


def _unit_text(text: str) -> str:
    return " ".join(text.replace("%", "%%").split())
