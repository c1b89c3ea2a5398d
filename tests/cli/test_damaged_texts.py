"""Damaged metadata, cards, settings and polygons: an exit code of their own and one sentence, never a bug."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from tilepipe.cli.main import main

Err = pytest.CaptureFixture[str]
DEEP = (b"[" * 100_000, b'{"a":' * 100_000)
NUMBERS = (b"-1", b"0", b"1e999", b"9" * 20, b"null", b'"x"', b"[]", b"{}", b"NaN")
WORDS = (b"null", b"5", b'""', b"[]", b"{}", b'"\\u001b[2J"', b"true")
PIXELS = np.random.default_rng(0).integers(0, 255, (3, 150, 210), dtype=np.uint8)
AREA = {
    "type": "Polygon",
    "coordinates": [[[3e5, 5.2e6], [300050, 5.2e6], [300050, 5199950], [3e5, 5.2e6]]],
}
GEOJSON = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": "EPSG:32633"}},
    "features": [{"type": "Feature", "properties": {}, "geometry": AREA}],
}
COMMANDS = {
    "v2.zarr/**/.z*": "plan v2.zarr -m tiny.model",
    "v3.zarr/**/zarr.json": "plan v3.zarr -m tiny.model",
    "out.ome.zarr/**/zarr.json": "export out.ome.zarr x.geojson --overwrite",
    "tiny.model/model.json": "model card tiny.model",
    "jobs.yaml": "batch run jobs.yaml --dry-run -q",
    "area.geojson": "plan scene.tif -m tiny.model --region area.geojson",
}
"""By the files that are damaged: the command that reads them."""


@pytest.fixture
def folder(image: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = image.parent
    monkeypatch.chdir(here)
    shutil.copytree(model, here / "tiny.model")
    for version in (2, 3):
        group = zarr.open_group(here / f"v{version}.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
        group.create_array("0", shape=PIXELS.shape, chunks=(3, 64, 64), dtype="uint8")[:] = PIXELS
        axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "meter"} for n in "yx")]
        scale = [{"type": "scale", "scale": [1, 0.5, 0.5]}]
        scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
        group.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"multiscales": scales}})
    assert main(["segment", "scene.tif", "out.ome.zarr", "-m", "tiny.model", "-q", "--of", "ome-zarr"]) == 0
    (here / "jobs.yaml").write_text(
        "images: scene.tif\nmodel: tiny.model\noutput: out/{stem}.tif\nsettings: {tile: 96}\n"
    )
    (here / "area.geojson").write_text(json.dumps(GEOJSON))
    return here


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return a text with one drawn damage."""
    kind, at = draw.randrange(6), draw.randrange(len(content))
    if kind == 0:
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + content[at + draw.randrange(1, 30) :]
    if kind == 3:
        return content[:at] + draw.randbytes(4) + content[at:]
    pattern, values = ((rb"\d+", NUMBERS), (rb'"[^"]*"', WORDS))[kind - 4]
    found = list(re.finditer(pattern, content))
    if not found:
        return content[:at]
    part = draw.choice(found)
    return content[: part.start()] + draw.choice(values) + content[part.end() :]


def ends_well(words: str, capsys: Err) -> bool:
    code = main(words.split())
    _, err = capsys.readouterr()
    return code in (0, 2, 3, 4, 5) and "bug" not in err and "\x1b" not in err


@pytest.mark.parametrize("pattern", COMMANDS)
def test_damaged_and_deeply_nested_texts_are_refused_or_read(pattern: str, folder: Path, capsys: Err) -> None:
    assert main(COMMANDS[pattern].split()) == 0
    draw = random.Random(pattern)
    for path in [file for file in sorted(folder.glob(pattern)) if file.is_file()]:
        whole = path.read_bytes()
        for content in (*DEEP, *(damaged(whole, draw) for _ in range(6))):
            path.write_bytes(content)
            assert ends_well(COMMANDS[pattern], capsys), (path, content[:9000].decode(errors="replace"))
        path.write_bytes(whole)


@pytest.mark.parametrize("scale", [["x", 0.5, 0.5], [0.5, 0.5], [1, 1, 0.5, 0.5]])
def test_scales_that_do_not_fit_the_axes(scale: list[object], folder: Path, capsys: Err) -> None:
    path = folder / "v3.zarr" / "zarr.json"
    fields = json.loads(path.read_text())
    (level,) = fields["attributes"]["ome"]["multiscales"][0]["datasets"]
    level["coordinateTransformations"][0]["scale"] = scale
    path.write_text(json.dumps(fields))
    assert main(["plan", "v3.zarr", "-m", "tiny.model"]) == 4
    assert "correct its metadata" in capsys.readouterr().err


def test_lines_beside_the_polygons_of_a_region_are_said(folder: Path, capsys: Err) -> None:
    line = {"type": "LineString", "coordinates": [[3e5, 5.2e6], [300050, 5.2e6]]}
    features = [*GEOJSON["features"], {"type": "Feature", "properties": {}, "geometry": line}]  # type: ignore[misc]
    (folder / "area.geojson").write_text(json.dumps({**GEOJSON, "features": features}))
    said = "1 LineString skipped, as only polygons are areas"
    for option in ("region", "mask"):
        assert main(f"plan scene.tif -m tiny.model --{option} area.geojson".split()) == 0
        assert said in capsys.readouterr().out
        assert main(f"segment scene.tif {option}.tif -m tiny.model --{option} area.geojson".split()) == 0
        assert said in capsys.readouterr().err
