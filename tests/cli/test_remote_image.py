"""Images on a server from the command line: segment, plan, info, and a server that fails in the middle of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.range_server import serving

from tilepipe.cli.main import main
from tilepipe.sources import remote_file

Out = pytest.CaptureFixture[str]


def test_labels_go_to_the_working_folder(
    image: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["segment", str(image), "-m", str(model), "-q"]) == 0
    with serving({"/north/scene.tif": image}) as server:
        address = f"{server.address}/north/scene.tif"
        capsys.readouterr()
        assert main(["segment", f"{address}?sig=SECRET", "-m", str(model), "-q"]) == 0
        assert capsys.readouterr().out == "scene.labels.tif\n"
        assert (here / "scene.labels.tif").read_bytes() == image.with_name("scene.labels.tif").read_bytes()
        for file in here.rglob("*"):
            assert not file.is_file() or b"SECRET" not in file.read_bytes()
        assert main(["info", address, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["image"], told["bands"], told["height"], told["reader"]) == (address, 3, 150, "GTiff")
        assert main(["plan", address, "-m", str(model), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["source"] == address


@pytest.mark.long
def test_a_server_that_dies_in_a_run(
    image: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote_file, "PAGE", 4096)
    monkeypatch.setattr(remote_file, "CACHE_BYTES", 4096)
    with serving({"/s.tif": image}) as server:
        command = ["segment", f"{server.address}/s.tif", "out.tif", "-m", str(model), "-q"]
        assert main(["plan", *command[1:2], *command[3:5]]) == 0
        # The run opens the image at least twice, as plan and info did, and then reads it.
        assert main(["info", command[1]]) == 0
        server.dies_after = 2 * len(server.asked) + 3
        capsys.readouterr()
        assert main(command) == 3
        said = capsys.readouterr().err
        assert "the server ends the connection" in said
        assert "Traceback" not in said
        server.dies_after = None
        assert main([*command, "--overwrite"]) == 0
    assert main(["segment", str(image), "right.tif", "-m", str(model), "-q"]) == 0
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "right.tif").read_bytes()
