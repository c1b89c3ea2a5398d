"""This module defines `tilepipe batch schedule` and `tilepipe batch serve`, which run a batch at given times."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import TALK, with_options
from tilepipe.cli.progress_bar import progress

AT = "15 2 * * *"


@click.command(cls=Command, short_help="Print or install what starts JOBS at given times.")
@click.argument("jobs", type=click.Path())
@option("--systemd", "kind", flag_value="systemd", default=True, help="A service and a timer of systemd (default).")
@option("--cron", "kind", flag_value="cron", help="A line of a crontab.")
@option("--at", default=AT, show_default=True, metavar="TIMES", help="When, as cron writes it.")
@option("--install", is_flag=True, help="Put it where systemd or cron finds it, in place of an earlier one.")
def schedule(jobs: str, kind: str, at: str, install: bool) -> None:
    """Print what starts the batch JOBS at given times, for systemd or cron, or put it in place.

    A timer of systemd catches up once after the machine was off; cron does not.
    """
    from tilepipe.execution.batch.cron import Cron
    from tilepipe.execution.batch.jobs_file import read_jobs
    from tilepipe.execution.batch.schedule import (
        crontab_lines,
        install_crontab,
        install_systemd,
        systemd_units,
        unit_name,
    )

    path, cron = Path(jobs), Cron.of(at)
    read_jobs(path)  # a wrong file is said now and not at night
    if kind == "cron":
        say.out(install_crontab(path, cron) if install else crontab_lines(path, cron), nl=False)
        if not install:
            say.err(f"next: tilepipe batch schedule --cron --install {shlex.quote(jobs)}")
        return
    if not install:
        for name, text in systemd_units(path, cron).items():
            say.out(f"# {name}\n{text}")
        say.err(f"next: tilepipe batch schedule --systemd --install {shlex.quote(jobs)}")
        return
    for file in install_systemd(path, cron):
        say.out_line(file)
    timer = f"{unit_name(path)}.timer"
    say.err(f"next: systemctl --user daemon-reload && systemctl --user enable --now {timer}")
    say.err("a machine on which nobody is logged in at that time needs: loginctl enable-linger")


@click.command(cls=Command, short_help="Stay, and run JOBS at given times or when files arrive.")
@click.argument("jobs", type=click.Path())
@option("--cron", metavar="TIMES", help="When to run, as cron writes it: '0 2 * * *' is every night at two.")
@option("--watch", type=click.Path(), metavar="DIR", help="Run whenever the content of this folder has changed.")
@option("--every", type=click.FloatRange(min=0.1), default=30.0, show_default=True, metavar="SECONDS",
        help="Time between two looks at the folder.")  # fmt: skip
@with_options(*TALK)
def serve(jobs: str, cron: str | None, watch: str | None, every: float, mode: str, quiet: bool) -> None:
    """Stay, and run the batch JOBS at given times or when files arrive, until Ctrl-C. Needs the extra schedule.

    Slots that pass while a batch works, or while nothing serves, are made up for by one run. What became of each slot
    is kept beside the record, in JOBS.slots.jsonl.
    """
    from tilepipe.execution.batch.cron import Cron
    from tilepipe.execution.batch.serve import serve as serve_batch

    times = Cron.of(cron) if cron else None
    with progress("plain" if mode == "auto" else mode, quiet) as listener:
        serve_batch(jobs, times, Path(watch) if watch else None, every=every, listener=listener)
