"""The screen: head, live line, and end of a run on a terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
from helpers.cli_files import write_image
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tilepipe.cli.main import main
from tilepipe.cli.memory_use import MemoryUse
from tilepipe.cli.rate import Rate
from tilepipe.cli.screen import LiveLine, lasting, screen
from tilepipe.cli.summary import next_command
from tilepipe.events import Event
from tilepipe.execution.result import Result
from tilepipe.paths import work_directory

Out = pytest.CaptureFixture[str]
SIZES = {"pixels": 40_000_000, "memory": 2 << 30}
ROWS = [
    {"name": "bands", "state": "ok", "text": "3 of 3"},
    {"name": "values", "state": "warning", "text": "0 to 1"},
    {"name": "memory", "state": "ok", "text": "at most 2 GiB"},
]
FIT = Event(
    "plan", message="fit: bands ok", data={"image": "a.tif", "model": "m", "shape": [2, 3], "bands": 3, "fit": ROWS}
)


def shown(what: object) -> list[str]:
    """What rich makes of something on a terminal of 60 characters."""
    console = Console(width=60)
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_live_line_says_blocks_speed_time_and_memory() -> None:
    now = [100.0]
    line = LiveLine(clock=lambda: now[0], used=lambda: 1 << 30)
    assert line.text() == "starting"
    line.update(Event("predict", 4, 20, data=SIZES))
    assert line.text() == "predict 4 of 20 blocks, memory 1.0 GiB of 2.0 GiB"
    now[0] += 10
    line.update(Event("predict", 8, 20, data=SIZES))  # 4 blocks of 2 Mpx in 10 s; an earlier run has done the others
    assert line.text() == "predict 8 of 20 blocks, 0.8 Mpx/s, 30 s left, memory 1.0 GiB of 2.0 GiB"
    now[0] += 5  # no event
    assert ", 25 s left," in line.text()
    assert shown(line.drawn())[0][0] in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "a narrow terminal cuts the text and not the spinner"
    assert shown(line.drawn())[0].endswith("…")
    assert len(shown(line.drawn())) == 1
    line.update(Event("export", 0, 2, "writing a.tif"))
    assert line.text() == "export 0 of 2 files, writing a.tif, memory 1.0 GiB of 2.0 GiB"


def test_the_live_line_of_a_batch_says_images_first() -> None:
    now = [0.0]
    line = LiveLine(clock=lambda: now[0], used=lambda: 1 << 30)
    line.update(Event("batch", 0, 6, "/in/a.tif", {"failed": 0, "skipped": 0}))
    line.update(Event("batch", 1, 6, "a: unchanged", {"failed": 0, "skipped": 1, "note": "a: unchanged"}))
    line.update(Event("batch", 1, 6, "/in/b.tif", {"failed": 0, "skipped": 1}))
    now[0] += 60
    line.update(Event("predict", 1, 4, data=SIZES))
    line.update(Event("batch", 2, 6, "b: failed", {"failed": 1, "skipped": 1, "note": "b: failed"}))
    line.update(Event("batch", 2, 6, "/in/c.tif", {"failed": 1, "skipped": 1}))
    assert line.text() == (
        "2 of 6 images, 1 failed, 60 an hour, 4 min left, memory 1.0 GiB of 2.0 GiB, c.tif predict 1 of 4 blocks"
    )


def test_the_line_fits_the_terminal() -> None:
    line = LiveLine(used=lambda: 1 << 30)
    line.update(Event("export", 1, 3, "writing " + 80 * "x", SIZES))
    assert len(shown(line.drawn())) == 1
    assert "export 1 of 3 files" in shown(line.drawn())[0]


def test_head_notes_and_messages_stay() -> None:
    head = shown(lasting(FIT, ""))
    assert head == [
        "image   a.tif, 2 x 3 px, 3 bands", "model   m", "fits    bands", "memory  at most 2 GiB",
    ]  # fmt: skip
    assert lasting(FIT, "b.tif") is None
    assert shown(lasting(Event("plan", message="warning: [bold]x[/]\x1b[2J"), "")) == ["warning: [bold]x[/]\\u001b[2J"]
    assert shown(lasting(Event("plan", message="note: y"), "b.tif")) == ["b.tif: note: y"]
    assert shown(lasting(Event("predict", 1, 2, "lost", {"note": "lost"}), "")) == ["lost"]
    assert lasting(Event("train", 1, 2, "loss 0.4"), "") is None


@given(first=st.integers(0, 50), steps=st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_the_rate_is_that_of_this_attempt(first: int, steps: list[int]) -> None:
    now = [7.0]
    rate = Rate(lambda: now[0])
    done = first
    rate.update(done)
    for step in steps:
        now[0] += 0.5 * step
        done += step
        rate.update(done)
    assert rate.rate == pytest.approx(2)
    assert rate.left(done + 10) == pytest.approx(5)
    now[0] += 100
    assert rate.left(done + 10) == 0


def test_memory_is_that_of_all_processes() -> None:
    now = [0.0]
    use = MemoryUse(clock=lambda: now[0])
    alone = use()
    assert alone == pytest.approx(psutil.Process().memory_info().rss, rel=0.3)
    command = [sys.executable, "-c", "x = b'x' * (200 << 20); print(len(x), flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert use() == alone  # it is not measured again within a second
        now[0] += 1
        assert use() > alone + (150 << 20)
        child.communicate(b"\n")


def test_the_screen_keeps_the_head_and_removes_the_line(capsys: Out) -> None:
    with screen() as listener:
        listener(FIT)
        listener(Event("predict", 1, 2, data=SIZES))
    err = capsys.readouterr().err
    assert "a.tif, 2 x 3 px, 3 bands" in err
    assert "memory" in err


def as_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both streams, as they are inside a test, a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)


def test_the_end_of_a_run_on_a_terminal(image: Path, model: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    as_terminal(monkeypatch)
    labels = image.with_name("scene.labels.tif")
    assert main(["segment", str(image), "-m", str(model), "--window", "0,0,64,64"]) == 0
    out, err = capsys.readouterr()
    assert out == ""  # the path stands above the next command, with its size
    last = err.splitlines()[-3:]
    assert last[0].startswith("Labels do not depend on tiling")
    assert last[1].startswith(f"{labels}  ")
    assert last[1].endswith(" KiB")
    assert last[2] == f"next: tilepipe export {labels} {image.with_name('scene.labels.gpkg')}"
    assert main(last[2].split()[2:]) == 0


@pytest.mark.parametrize(
    ("files", "command"),
    [
        (["my a.tif", "my a.geojson"], "tilepipe report 'my a.tif'"),
        (["my a.tif", "my a.geojson", "my a.html"], "tilepipe verify 'my a.tif'"),
        (["a.geojson"], "tilepipe verify a.geojson"),
    ],
)
def test_the_next_command_is_what_is_not_there_yet(
    files: list[str], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cast(Result, SimpleNamespace(paths=tuple(map(Path, files))))
    if len(files) > 1:
        assert next_command(result) == "next: tilepipe info 'my a.tif'", "a run without a record"
    work_directory(Path(files[0])).mkdir()
    assert next_command(result) == f"next: {command}"


@pytest.mark.parametrize("name", ["x.tiff", "X.TIF", "x.TIFF", "x.ome.zarr"])
def test_the_next_command_names_one_ending(name: str) -> None:
    said = next_command(cast(Result, SimpleNamespace(paths=(Path(name),))))
    assert said == f"next: tilepipe export {name} {name[0]}.gpkg"


def test_the_end_of_a_batch_on_a_terminal(
    model: Path, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_terminal(monkeypatch)
    write_image(tmp_path / "a.tif", 3)
    (tmp_path / "b.tif").write_text("words")
    jobs = tmp_path / "night.yaml"
    jobs.write_text(f"images: '*.tif'\nmodel: {model}\noutput: out/{{stem}}.labels.tif\n")
    assert main(["batch", "run", str(jobs)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    failed, counts, *classes, seams, table, following = lines[lines.index("1 done, 1 failed") - 1 :]
    assert f"tilepipe: {tmp_path / 'b.tif'}: failed: " in failed
    assert counts == "1 done, 1 failed"
    assert classes, "one line for each class, of all images together"
    assert all(re.search(r"\d %", line) for line in classes)
    assert seams.startswith("Labels do not depend on tiling")
    assert re.fullmatch(rf"{tmp_path}/out/night.numbers.csv  \d+ B", table)
    assert following == f"next, to try the failed images again: tilepipe batch retry {jobs}"


def test_a_batch_with_reports_names_its_page(
    model: Path, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_terminal(monkeypatch)
    write_image(tmp_path / "a.tif", 3)
    jobs = tmp_path / "night.yaml"
    jobs.write_text(f"images: '*.tif'\nmodel: {model}\noutput: out/{{stem}}.labels.tif\nof: [cog, report]\n")
    assert main(["batch", "run", str(jobs)]) == 0
    page, following = capsys.readouterr().err.splitlines()[-2:]
    assert page.startswith(f"{tmp_path / 'out' / 'night.report.html'}  ")
    assert following == f"next: open {tmp_path / 'out' / 'night.report.html'} in a browser"
