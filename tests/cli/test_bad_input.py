"""Bad input: its exit code, one clear message, and an existing output untouched."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers.cli_files import write_image
from safetensors.numpy import load_file, save_file

from tilepipe.cli.main import main

OLD = b"labels that somebody needs"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output that exists."""
    (tmp_path / "out.tif").write_bytes(OLD)
    return tmp_path / "out.tif"


def refuse(capsys: pytest.CaptureFixture[str], code: int, sentence: str, *words: object) -> None:
    """Run a command that must end with `code` and say `sentence` in one line."""
    found = main([str(word) for word in words])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("tilepipe: ")]
    assert (found, out, len(lines)) == (code, "", 1), err
    assert sentence in lines[0]
    assert "Traceback" not in err


def missing(image: Path) -> Path:
    return image.with_name("nowhere.tif")


def not_an_image(image: Path) -> Path:
    image.write_text("Dear reader, these are words and no pixels. " * 20)
    return image


def header_cut(image: Path) -> Path:
    image.write_bytes(image.read_bytes()[:100])
    return image


def empty(image: Path) -> Path:
    image.write_bytes(b"")
    return image


def four_bands(image: Path) -> Path:
    return write_image(image, bands=4)


def other_dtype(image: Path) -> Path:
    return write_image(image, dtype="uint16")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (missing, "nowhere.tif"),
        (not_an_image, "scene.tif"),
        (header_cut, "scene.tif"),
        (empty, "scene.tif"),
        (four_bands, "4 bands"),
        (other_dtype, "uint16"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_images(
    spoil: Callable[[Path], Path],
    sentence: str,
    image: Path,
    model: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refuse(capsys, 4, sentence, "segment", spoil(image), output, "-m", model, "--overwrite", "-q")
    assert output.read_bytes() == OLD


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (["--window", "10,10,0,5"], "no pixels"),
        (["--window", "200,10,50,5"], "not inside"),
        (["--window", "-1,0,5,5"], "not inside"),
        (["--bounds", "10 20 11 21", "--bounds-crs", "EPSG:4326"], ""),
        (["--bounds", "300000 5199990 300010 5199980"], ""),
        (["--bounds-crs", "EPSG:nonsense", "--bounds", "0 0 1 1"], ""),
        (["--region", "nowhere.geojson"], "nowhere.geojson"),
        (["--window", "0,0,9,9", "--bounds", "0 0 1 1"], "one way"),
        (["--tile", "30"], "30"),
        (["--memory", "1MB"], "cannot be kept: the least"),
        (["--memory", "much"], "much"),
        (["--of", "jpeg"], "jpeg"),
        (["--of", "geojson"], "geojson"),
        (["--resolution", "-1"], "-1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_questions(
    part: list[str], sentence: str, image: Path, model: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(capsys, 2, sentence, "segment", image, output, "-m", model, "--overwrite", "-q", *part)
    assert output.read_bytes() == OLD


def test_a_device_that_is_not_there(image: Path, model: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(capsys, 7, "cuda:99", "segment", image, output, "-m", model, "--overwrite", "-q", "--device", "cuda:99")
    assert output.read_bytes() == OLD


def test_an_output_that_exists_stays(
    image: Path, model: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(capsys, 2, "exists", "segment", image, output, "-m", model, "-q")
    assert output.read_bytes() == OLD
    assert main(["segment", str(image), str(output), "-m", str(model), "-q", "--overwrite"]) == 0
    assert output.read_bytes() != OLD


def test_an_output_in_a_folder_that_does_not_exist(
    image: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = image.parent / "none"
    refuse(capsys, 2, "does not exist", "segment", image, folder / "out.tif", "-m", model, "-q")
    assert not folder.exists()


def spoil_model(model: Path, copy: Path, change: str) -> Path:
    copy.mkdir()
    card, tensors = json.loads((model / "model.json").read_text()), load_file(model / "weights.safetensors")
    name = sorted(n for n in tensors if n.endswith("weight") and tensors[n].ndim == 4)[0]
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors["more"] = tensors[name]
    elif change == "misshapen":
        tensors[name] = tensors[name][:1]
    elif change == "nan":
        tensors[name] = tensors[name] * np.float32("nan")
    elif change == "overflow":
        tensors = {n: t * np.float32(1e30) if n.endswith("weight") else t for n, t in tensors.items()}
    else:
        card["arch"] = {"name": "unett"}
    (copy / "model.json").write_text(json.dumps(card))
    save_file({n: np.ascontiguousarray(t).reshape(t.shape) for n, t in tensors.items()}, copy / "weights.safetensors")
    return copy


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("missing", "1 missing"),
        ("extra", "1 extra"),
        ("misshapen", "the network in model.json has"),
        ("nan", "NaN"),
        ("overflow", "NaN"),
        ("unknown", "unett"),
    ],
)
def test_refused_models(
    change: str, sentence: str, image: Path, model: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = spoil_model(model, image.parent / "bad.model", change)
    refuse(capsys, 5, sentence, "segment", image, output, "-m", bad, "--overwrite", "-q")
    assert output.read_bytes() == OLD


def test_a_model_that_does_not_exist(image: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(capsys, 5, "'buildigns'", "segment", image, output, "-m", "buildigns", "--overwrite", "-q")
    assert output.read_bytes() == OLD


def test_a_corrupt_tile_costs_that_tile(image: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rest is labelled, the tile is nodata, the exit code is 3."""
    with rasterio.open(image) as file:
        offset, size = (int(file.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    content = bytearray(image.read_bytes())
    content[offset : offset + size] = bytes(size)
    image.write_bytes(content)
    output = image.with_name("out.tif")
    assert main(["segment", str(image), str(output), "-m", str(model), "-q"]) == 3
    assert capsys.readouterr().out == f"{output}\n"
    with rasterio.open(output) as file:
        labels = file.read(1)
    assert labels[0, 0] == 255
    assert labels[-1, -1] != 255


@pytest.mark.long
def test_a_full_disk(image: Path, model: Path, output: Path) -> None:
    """A limit on the size of files stands for a disk that is full."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    code = "import signal as s, sys; s.signal(s.SIGXFSZ, s.SIG_IGN); from tilepipe.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "segment", image, output, "-m", model, "--overwrite", "-q"]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith("tilepipe: ")
    assert done.stderr.count("\n") == 1
    assert output.read_bytes() == OLD
