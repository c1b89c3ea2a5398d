"""Files that hold several images: which one is read is said and can be chosen; `info` knows every one of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from PIL import Image
from rasterio.enums import Resampling

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.evaluation.verify.verify import verify
from tilepipe.sources.base import Resolution
from tilepipe.sources.open import open_source
from tilepipe.testing import constant_model

RNG = np.random.default_rng(7)
PAGES = RNG.integers(0, 255, (3, 60, 80)).astype(np.uint8)
SMALL, LARGE = RNG.integers(0, 255, (8, 10, 3)).astype(np.uint8), RNG.integers(0, 255, (64, 80, 3)).astype(np.uint8)


def whole(source: Any) -> Any:
    return source.read(Box.of_shape(*source.shape[1:]))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """An OME-TIFF whose first image is a macro."""
    with tifffile.TiffWriter(tmp_path / "scan.ome.tif", ome=True) as file:
        for pixels, size, name in ((SMALL, 2.0, "macro"), (LARGE, 0.25, "scan")):
            said = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size, "Name": name}
            file.write(pixels, photometric="rgb", metadata=said)
    return tmp_path / "scan.ome.tif"


def test_the_largest_image_of_an_ome_tiff_is_read_and_said(scan: Path) -> None:
    source: Any = open_source(scan)
    np.testing.assert_array_equal(whole(source), LARGE.transpose(2, 0, 1))
    assert source.resolution == Resolution(0.25, 0.25, "um")
    assert len(source.notes) == 1
    assert "2 images: 0 macro (8 x 10 px), 1 scan (64 x 80 px); 1, the largest, is read" in source.notes[0]
    first: Any = open_source(scan, scene=0)
    np.testing.assert_array_equal(whole(first), SMALL.transpose(2, 0, 1))
    assert (first.resolution, first.notes) == (Resolution(2.0, 2.0, "um"), ())
    assert first.identity() != source.identity()
    with pytest.raises(UsageError, match="scene=0 to scene=1; scene=2"):
        open_source(scan, scene=2)


def test_pages_of_a_plain_tiff(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, PAGES[:, None], photometric="minisblack", metadata=None)
    source: Any = open_source(path)
    assert "holds 3 images: 0 page (60 x 80 px), 1 page" in source.notes[0]
    identities = []
    for number, page in enumerate(PAGES):
        one = open_source(path, scene=number)
        np.testing.assert_array_equal(whole(one), page[None])
        identities.append(json.dumps(one.identity()))
    assert len(set(identities)) == 3
    assert json.dumps(source.identity()) == identities[0]


def test_nothing_is_said_of_one_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile: dict[str, Any] = {"driver": "GTiff", "width": 300, "height": 200, "count": 3, "dtype": "uint8"}
    with rasterio.open(
        path, "w", crs="EPSG:32645", transform=rasterio.Affine(1, 0, 4e5, 0, -1, 3e6), **profile
    ) as file:
        file.write(RNG.integers(0, 255, (3, 200, 300)).astype(np.uint8))
        file.write_mask(np.full((200, 300), 255, np.uint8))
        file.build_overviews([2, 4], Resampling.nearest)
    source: Any = open_source(path)
    assert (source.notes, source.selected) == ((), {})
    assert open_source(path, scene=0).identity() == source.identity()


def test_several_multiscales_of_a_zarr(tmp_path: Path) -> None:
    axes = [{"name": name} for name in "cyx"]
    scales = [{"axes": axes, "datasets": [{"path": str(k)}]} for k in range(2)]
    group = zarr.create_group(tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", "multiscales": scales}})
    for k in range(2):
        group.create_array(str(k), data=PAGES[k : k + 1])
    source: Any = open_source(tmp_path / "a.zarr")
    assert "lists 2 multiscale images; the first, 0, is read" in source.notes[0]
    second: Any = open_source(tmp_path / "a.zarr", scene=1)
    np.testing.assert_array_equal(whole(second), PAGES[1:2])
    assert second.notes == ()


def test_runs_say_keep_and_verify_the_choice(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, said = constant_model(0.3, 0.7, bands=3), []
    result = tp.segment(scan, model, tmp_path / "large.tif", listener=lambda event: said.append(event.message))
    assert result.labels.shape == (64, 80)
    assert any("the largest, is read" in line for line in said)
    small = tp.segment(scan, model, tmp_path / "small.tif", scene=0)
    assert small.labels.shape == (8, 10)
    assert verify(tmp_path / "small.tif", None, model, windows=0).stored is not None
    with pytest.raises(UsageError, match="scene pick an image of a file"):
        tp.segment(open_source(scan), model, tmp_path / "x.tif", scene=0)
    assert main(["info", str(scan), "--scene", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["height"] == 8


def test_planes_are_chosen_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "z.ome.tif"
    tifffile.imwrite(path, PAGES, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    assert main(["info", str(path)]) == 4
    assert "pick one with --z, from 0 to 2" in capsys.readouterr().err
    assert main(["info", str(path), "--z", "2"]) == 0
    np.testing.assert_array_equal(whole(open_source(path, z=2)), PAGES[2:])


def ome_zarr(path: Path) -> None:
    axes = [{"name": name} for name in "cyx"]
    image = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    zarr.create_group(path, attributes={"ome": image}).create_array("0", data=PAGES)


FILES: dict[str, Callable[[Path], object]] = {
    "plain.tif": lambda p: tifffile.imwrite(p, LARGE, photometric="rgb", metadata=None),
    "pages.tif": lambda p: tifffile.imwrite(p, PAGES[:, None], photometric="minisblack", metadata=None),
    "imagej.tif": lambda p: tifffile.imwrite(p, PAGES[0], imagej=True),
    "a.ome.tif": lambda p: tifffile.imwrite(p, PAGES, ome=True, metadata={"axes": "CYX"}, photometric="minisblack"),
    "array.zarr": lambda p: zarr.create_array(p, data=PAGES),
    "image.ome.zarr": ome_zarr,
    "a.png": lambda p: Image.fromarray(LARGE).save(p),
    "a.jpg": lambda p: Image.fromarray(LARGE).save(p),
    "no_ending": lambda p: Image.fromarray(LARGE).save(p, "PNG"),
}


@pytest.mark.parametrize("name", FILES)
def test_info_knows_what_segment_reads(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FILES[name](tmp_path / name)
    source = open_source(tmp_path / name)
    assert main(["info", str(tmp_path / name), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bands"], found["height"], found["width"]) == source.shape
    assert main(["info", str(tmp_path / name)]) == 0


@pytest.mark.parametrize("ending", ["tif", "ome.zarr"])
def test_info_knows_labels(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tp.segment(PAGES, constant_model(0.3, 0.7, bands=3), tmp_path / f"labels.{ending}").paths[0]
    shutil.copytree(labels, tmp_path / "other") if labels.is_dir() else shutil.copy(labels, tmp_path / "other.tif")
    copy = tmp_path / ("other" if labels.is_dir() else "other.tif")
    shutil.move(copy, tmp_path / f"copy.{ending}")
    assert main(["info", str(tmp_path / f"copy.{ending}"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["classes"], found["height"], found["width"]) == (["class 0", "class 1"], 60, 80)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}, Resolution(0.25, 0.25, "um")),
        ({"resolution": (40000, 20000), "resolutionunit": "CENTIMETER"}, Resolution(0.5, 0.25, "um")),
        ({"resolution": (101600, 101600), "resolutionunit": "INCH"}, Resolution(0.25, 0.25, "um")),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (4, 4), "resolutionunit": "NONE"}, None),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, Resolution(0.25, 0.25, "um")),
        ({"imagej": True, "resolution": (4, 4)}, None),
        ({}, None),
    ],
)
def test_resolution_tags(options: dict[str, Any], expected: Resolution | None, tmp_path: Path) -> None:
    options = {"metadata": None, **options} if "imagej" not in options else options
    tifffile.imwrite(tmp_path / "a.tif", PAGES[0], photometric="minisblack", **options)
    assert open_source(tmp_path / "a.tif").resolution == expected


@pytest.mark.parametrize("start", [b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51\x00"])
def test_damaged_jpeg_2000(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(start + bytes(100))
    with pytest.raises(InputError, match=r"cannot be opened: .*may be truncated or damaged"):
        open_source(tmp_path / "a.tif")


def test_a_codec_that_is_missing_is_not_called_damage(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PAGES[0], metadata=None, compression="deflate")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite(34712)
    with pytest.raises(InputError, match="compressed by a method that is not read here") as caught:
        open_source(tmp_path / "a.tif")
    assert "damaged" not in str(caught.value)


def test_labels_of_several_pages_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, PAGES[:, None], photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match=r"holds 3 images.*labels are one image"):
        tp.evaluate(path, path, classes=["a", "b"])


@pytest.mark.parametrize("target", ["/etc/passwd", "../x.ome.tif", "http://127.0.0.1:1/x"])
def test_planes_in_other_files_are_refused(target: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PAGES, ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+b") as file:
        uuid = f'><UUID FileName="{target}">urn:uuid:1</UUID></TiffData>'
        text = re.sub(r"(<TiffData [^>/]*)(/>|></TiffData>)", rf"\1{uuid}", str(file.ome_metadata))
        assert target in text
        file.pages[0].tags["ImageDescription"].overwrite(text)
    with pytest.raises(InputError):
        open_source(path)
