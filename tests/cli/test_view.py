"""tilepipe view: prints the address, serves until Ctrl-C, and says in a sentence what is missing."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tilepipe.cli.main import main
from tilepipe.view import viewer

# A shell lets what it runs in the background ignore Ctrl-C, and its children with it.
RUN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from tilepipe.cli.main import main; sys.exit(main())"
)
SAMPLE = str(Path(__file__).parents[2] / "pipelines" / "sample" / "Amazon_24_20.tif")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(end: signal.Signals) -> None:
    words = [sys.executable, "-c", RUN, "view", SAMPLE, "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert answer.status == 200
            process.send_signal(end)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "the viewer runs until Ctrl-C" in said
    assert said.endswith("the viewer has ended\n")


def test_without_its_package_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(viewer, "LEAFLET", "no_such_package")
    assert main(["view", SAMPLE, "--no-browser"]) == 2
    assert "run: pip install 'tilepipe[view]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no.tif"], 4, "no.tif does not exist"),
        ([SAMPLE, "no.tif"], 4, "no.tif does not exist"),
        ([SAMPLE, "--truth", SAMPLE], 2, "--truth is shown beside labels"),
        ([SAMPLE, SAMPLE], 4, "labels are one band"),
        ([SAMPLE, "--bands", "9"], 2, "has bands 1 to 3"),
        ([SAMPLE, "x.tif", "--values", "a"], 2, "is not a list like 1:0,2:1"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *words, "--no-browser"]) == code
    assert said in capsys.readouterr().err


def test_the_browser_gets_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(viewer.webbrowser, "open", opened.append)
    with viewer.view(SAMPLE) as shown:
        assert opened == [shown.url]
