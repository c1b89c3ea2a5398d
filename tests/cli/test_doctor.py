"""tilepipe doctor names what it finds, in words and as JSON."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from tilepipe.cli.main import main
from tilepipe.sources.geo_codecs import working_compressions


def test_json_names_versions_limits_and_runtimes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", str(tmp_path), "--json", "--no-speed"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] == version("torch")
    assert found["runtimes"]["onnxruntime"] == f"onnxruntime {version('onnxruntime')}"
    assert found["disk"]["free_bytes"] > 0
    assert found["memory"]["limit_bytes"] >= found["memory"]["free_bytes"] > 0
    assert found["speed"] is None


@pytest.mark.long
def test_words_tell_the_speed_of_each_runtime(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "runtime" in shown
    assert "onnxruntime: " in shown
    assert shown.count("megapixels per second") >= 2


def test_compressions_are_tried() -> None:
    found = working_compressions()
    assert {"DEFLATE", "LZW"} <= set(found)
