"""tilepipe verify from the command line: table, JSON, picture, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tilepipe.cli.main import main

Out = pytest.CaptureFixture[str]


def test_a_run_by_its_product_and_by_its_directory(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model), "--tile", "128", "-v"]) == 0
    assert "do not depend on how the image was cut" in capsys.readouterr().err
    labels = image.with_name("scene.labels.tif")
    picture = image.with_name("seen.png")
    assert main(["verify", str(labels), "--windows", "2", "--picture", str(picture), "-q"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].split()[:2] == ["verdict", "holds:"]
    assert "tiles give what one pass gives in 2 windows" in out.splitlines()[-1]
    assert "not compared" not in out
    assert err == ""
    assert picture.stat().st_size > 1000
    assert main(["verify", str(image.with_name(".scene.labels.tif.tilepipe")), "--windows", "0", "--json", "-q"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["certificate"]["mode"] == "EXACT"
    assert facts["stored"]["blocks"] == 1
    assert facts["compared"] == ["1 of 1 blocks on disk are those of the ledger"]
    assert facts["not_compared"] == [
        "tiles were not compared with a pass without seams",
        "labels on disk were not compared with labels computed again",
    ]


def test_lines_alone_end_with_3_where_there_are_seams(tmp_path: Path, capsys: Out) -> None:
    rows, columns = np.indices((800, 800))
    tifffile.imwrite(tmp_path / "tiles.tif", ((rows // 32 + columns // 32) % 2).astype(np.uint8))
    assert main(["verify", str(tmp_path / "tiles.tif"), "--tile", "32", "--stride", "1", "-q"]) == 3
    assert "seams at tile starts" in capsys.readouterr().out


def test_what_is_no_run_is_said(tmp_path: Path, image: Path, capsys: Out) -> None:
    assert main(["verify", str(image)]) == 2
    assert "--tile" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none")]) == 4
