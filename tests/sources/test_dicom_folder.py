"""A DICOM series in a folder is one slide; slides without a pixel size are asked about it; CZI is called so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from helpers.czi_slide import write_czi_slide
from helpers.dicom_slide import write_dicom_slide

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.execution.batch.items import expand
from tilepipe.execution.batch.jobs_file import Jobs
from tilepipe.sources.open import image_files, open_source
from tilepipe.testing import constant_model, write_geotiff, write_slide

pytest.importorskip("pydicom")
RNG = np.random.default_rng(1)
LARGE, SMALL = (RNG.integers(0, 255, (*size, 3)).astype(np.uint8) for size in ((150, 170), (60, 80)))


def write_series(folder: Path, pixels: Any = LARGE, name: str = "a.dcm") -> Path:
    folder.mkdir(exist_ok=True)
    return write_dicom_slide(folder / name, pixels)


def test_a_folder_is_one_slide(tmp_path: Path) -> None:
    file = write_series(tmp_path / "slide", name="IM0001")
    (tmp_path / "slide" / "notes.txt").write_text("no slide")
    source: Any = open_source(tmp_path / "slide")
    with openslide.OpenSlide(file) as known:
        expected = np.asarray(known.read_region((0, 0), 0, known.dimensions))[..., :3].transpose(2, 0, 1)
    np.testing.assert_array_equal(source.read(Box(0, 0, 150, 170)), expected)
    assert (source.name, source.place, source.notes) == (str(tmp_path / "slide"), tmp_path / "slide", ())
    assert image_files(source) == [file]
    assert source.identity() == open_source(file).identity()


def test_the_largest_of_several_series_is_the_slide_and_said(tmp_path: Path) -> None:
    write_series(tmp_path / "slides", SMALL, "a.dcm")
    write_series(tmp_path / "slides", LARGE, "b.dcm")
    source: Any = open_source(tmp_path / "slides")
    assert source.shape == (3, 150, 170)
    assert "holds 2 images: 0 a.dcm (60 x 80 px), 1 b.dcm (150 x 170 px); 1, the largest, is read" in source.notes[0]
    first: Any = open_source(tmp_path / "slides", scene=0)
    assert (first.shape, first.notes, first.selected) == ((3, 60, 80), (), {"scene": 0})
    with pytest.raises(UsageError, match="scene=0 to scene=1; scene=2"):
        open_source(tmp_path / "slides", scene=2)


def test_a_pattern_of_a_batch_takes_each_slide_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_series(tmp_path / "in" / "one")
    (tmp_path / "in" / "one" / "copy.dcm").write_bytes((tmp_path / "in" / "one" / "a.dcm").read_bytes())
    write_series(tmp_path / "in" / "two", SMALL, "a.dcm")
    write_series(tmp_path / "in" / "two", LARGE, "b.dcm")
    jobs = Jobs(images=("in/**/*.dcm",), model="m", output="out/{dir}/{stem}.labels.tif")
    found = {
        item.image.relative_to(tmp_path).as_posix(): item.output.relative_to(tmp_path)
        for item in expand(jobs, tmp_path)
    }
    assert found == {
        "in/one": Path("out/one.labels.tif"),
        "in/two/a.dcm": Path("out/two/a.labels.tif"),
        "in/two/b.dcm": Path("out/two/b.labels.tif"),
    }
    inside = Jobs(images=("in/one/*.dcm",), model="m", output="out/{dir}/{stem}.labels.tif")
    assert [item.output.relative_to(tmp_path) for item in expand(inside, tmp_path)] == [Path("out/one.labels.tif")]


def test_a_slide_beside_geotiffs_is_named_by_its_file(tmp_path: Path) -> None:
    """A folder with GeoTIFFs is opened as a mosaic of these."""
    file = write_series(tmp_path / "in")
    write_geotiff(tmp_path / "in" / "map.tif", np.zeros((3, 40, 50), np.uint8))
    jobs = Jobs(images=("in/*.dcm",), model="m", output="out/{stem}.labels.tif")
    (found,) = expand(jobs, tmp_path)
    assert found.image == file
    assert tuple(open_source(found.image).shape) == (3, 150, 170)


def test_a_folder_is_segmented_and_verified_by_its_name(tmp_path: Path) -> None:
    write_series(tmp_path / "slide")
    model = constant_model(0.3, 0.7, bands=3)
    made = tp.segment(tmp_path / "slide", model)
    assert made.paths[0].parent == tmp_path
    assert tp.verify(made.paths[0], None, model, windows=0).stored is not None


def test_a_slide_without_a_pixel_size_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = write_slide(tmp_path / "a.svs", [LARGE.transpose(2, 0, 1)], mpp=None)
    assert main(["plan", str(slide), "-m", "nuclei"]) == 4
    said = capsys.readouterr().err
    assert "was scanned at 20x, where pixels usually have 0.5 um: --pixel-size 0.5, if your scanner has them" in said
    assert main(["plan", str(slide), "-m", "nuclei", "--pixel-size", "0.5"]) == 0


def test_a_size_from_resolution_tags_is_said(tmp_path: Path) -> None:
    path = tmp_path / "flat.tif"
    tifffile.imwrite(path, LARGE, photometric="rgb", resolution=(20000, 20000), resolutionunit=3, metadata=None)
    rows = {row.name: row for row in tp.plan(path, "nuclei").fit_table}
    assert rows["pixel size"].state == "note"
    assert "0.5 x 0.5 um/px, from the resolution tags of the TIFF" in rows["pixel size"].text


def test_a_czi_that_openslide_cannot_open(tmp_path: Path) -> None:
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(2000))
    with pytest.raises(InputError, match=r"cannot be opened.*reads CZI of bright field.*bfconvert"):
        open_source(tmp_path / "a.czi")


def test_a_czi_is_a_slide_unless_it_is_compressed_in_a_way_that_openslide_does_not_read(tmp_path: Path) -> None:
    image = open_source(write_czi_slide(tmp_path / "a.czi", LARGE, mpp=0.25))
    height, width, _ = LARGE.shape
    assert (image.shape, str(image.resolution)) == ((3, height, width), "0.25 x 0.25 um/px")
    np.testing.assert_array_equal(image.read(tp.Box(0, 0, height, width)), LARGE.transpose(2, 0, 1))
    with pytest.raises(InputError, match=r"bfconvert .*JPEG XR compression is not supported"):
        open_source(write_czi_slide(tmp_path / "b.czi", LARGE, compression=4))
