"""Nothing is written over what is read, no name is guessed, and no pipe is waited for."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from helpers.cli_files import write_image

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.execution.export import export
from tilepipe.paths import refuse_inputs, refuse_special
from tilepipe.products.formats import layer_path
from tilepipe.products.naming import output_paths
from tilepipe.testing import codes_model, constant_model

MODEL = constant_model(0.2, 0.8, bands=3)


def spelt(folder: Path, how: str) -> Path:
    """Return another name of `folder`/in.tif."""
    image = folder / "in.tif"
    if how == "same":
        return image
    if how == "relative":
        return Path(os.path.relpath(image))
    if how == "dots":
        return folder / "x" / ".." / "in.tif"
    other = folder / "other.tif"
    (os.symlink if how == "link" else os.link)(image, other)
    return other


@pytest.mark.parametrize("how", ["same", "relative", "dots", "link", "hard link"])
def test_an_image_is_not_replaced_by_its_labels(how: str, tmp_path: Path) -> None:
    image = write_image(tmp_path / "in.tif")
    before = image.read_bytes()
    (tmp_path / "x").mkdir()
    other = spelt(tmp_path, how)
    for source, output in ((image, other), (other, image)):
        with pytest.raises(UsageError, match="which is read; give another output"):
            tp.segment(source, MODEL, output, overwrite=True)
    assert image.read_bytes() == before
    assert not list(tmp_path.glob(".*.tilepipe")), "nothing was begun"


def test_neither_into_nor_around_a_zarr_image(tmp_path: Path) -> None:
    root = tmp_path / "in.ome.zarr"
    zarr.save_array(str(root), np.zeros((3, 40, 50), np.uint8))
    outer = tmp_path / "outer.ome.zarr"
    shutil.copytree(root, outer / "inner.zarr")
    for source, output in (
        (root, root),
        (root, root / "labels.tif"),
        (root, root / "deep" / "x.ome.zarr"),
        (outer / "inner.zarr", outer),
    ):
        with pytest.raises(UsageError, match="which is read"):
            tp.segment(source, MODEL, output, overwrite=True)
    assert tp.open_source(root).shape == (3, 40, 50)
    assert tp.segment(root, MODEL, tmp_path / "out.tif").paths == (tmp_path / "out.tif",)


def test_other_files_that_a_run_reads_stay_too(tmp_path: Path) -> None:
    image = write_image(tmp_path / "in.tif")
    ring = "[[[12.37,46.93],[12.37,46.92],[12.38,46.92],[12.37,46.93]]]"
    area = tmp_path / "area.geojson"
    area.write_text(f'{{"type": "Polygon", "coordinates": {ring}}}')
    for settings in ({"mask": area}, {"region": area}):
        with pytest.raises(UsageError, match=r"area\.geojson, which is read"):
            tp.segment(image, MODEL, tmp_path / "area.tif", of=["cog", "geojson"], overwrite=True, **settings)  # type: ignore[arg-type]


def test_labels_pages_and_pictures_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_image(tmp_path / "in.tif")
    labels = tp.segment(image, MODEL, tmp_path / "labels.tif").paths[0]
    before = labels.read_bytes()
    os.link(labels, tmp_path / "labels.png")  # another name of the same file, as a picture's has to end
    os.link(image, tmp_path / "image.png")
    for command in (
        ["export", str(labels), str(labels), "--overwrite"],
        ["evaluate", str(labels), str(labels), "--page", str(labels), "--overwrite"],
        ["verify", str(labels), "--picture", str(tmp_path / "labels.png")],
        ["verify", str(labels), "--picture", str(tmp_path / "image.png")],
    ):
        assert main(command) == 2, command
        assert "which is read" in capsys.readouterr().err
    assert labels.read_bytes() == before


def test_a_batch_writes_over_no_image_of_its_own(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif")
    (tmp_path / "out").mkdir()
    os.link(tmp_path / "a.tif", tmp_path / "out" / "a.tif")
    (tmp_path / "jobs.yaml").write_text("images: [a.tif]\nmodel: x\noutput: 'out/{stem}.tif'\n")
    from tilepipe.execution.batch.items import expand
    from tilepipe.execution.batch.jobs_file import read_jobs

    with pytest.raises(UsageError, match="which is an image"):
        expand(read_jobs(tmp_path / "jobs.yaml"), tmp_path)


@pytest.mark.parametrize("ending", ["kml", "jpg", "jp2", "JPG", "zarr", "nc", "xyz", "pdf"])
def test_an_ending_that_is_not_written_is_refused(ending: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=rf"ends in \.{ending.lower()}, which is not written.*\.tif \(cog\).*\.geojson"
    ):
        tp.segment(np.zeros((1, 20, 30), np.uint8), codes_model(4), tmp_path / f"o.{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["csvf", "pngf", "geojsonf", "gpkgf", "zarrf", "tifff"])
def test_only_a_tif_may_end_in_an_f_more(ending: str) -> None:
    with pytest.raises(UsageError, match=rf"ends in \.{ending}, which is not written"):
        output_paths(Path(f"o.{ending}"), [])


def test_an_ending_may_be_written_in_two_ways() -> None:
    assert output_paths(Path("A.TIFF"), ["cog", "csv"]) == {"cog": Path("A.TIFF"), "csv": Path("A.csv")}
    assert layer_path(Path("A.TIFF"), "margin") == Path("A.margin.TIFF")


def test_a_shapefile_is_written_as_one_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name it \S*o\.shp\.zip"):
        output_paths(tmp_path / "o.shp", [])


@pytest.mark.parametrize(
    ("name", "of", "expected"),
    [
        ("labels", ["vectors"], "labels.gpkg"),
        ("a.fgb", ["vectors"], "a.fgb"),
        ("a.shp.zip", [], "a.shp.zip"),
        ("a.parquet", [], "a.parquet"),
        ("labels", ["cog"], "labels.tif"),
        ("scene.labels", [], "scene.labels"),
        ("scene.2024.05", ["cog"], "scene.2024.05.tif"),
        ("scene.v1", ["cog"], "scene.v1.tif"),
        ("a.TIFF", [], "a.TIFF"),
        ("a.tif.tiff", [], "a.tif.tiff"),
        ("a.ome.zarr", [], "a.ome.zarr"),
    ],
)
def test_names_that_stay_right(name: str, of: list[str], expected: str) -> None:
    found = output_paths(Path(name), of)
    assert [path.name for path in found.values()] == ([expected] if of or expected != "scene.labels" else [])
    if of:
        with pytest.raises(UsageError, match="which is not written"):
            output_paths(Path("o.kml"), of)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_pipes_are_refused_without_being_opened(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.tif"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's name is short
        socket.socket(socket.AF_UNIX).bind("in.tif")
    else:
        path = Path("/dev/zero")
    with pytest.raises(InputError, match="and no file; copy its content"):
        tp.open_source(path)
    with pytest.raises(UsageError):
        refuse_special(path, UsageError)
    refuse_special(tmp_path)
    refuse_special(tmp_path / "nothing")


def test_what_is_beside_an_input_may_be_written(tmp_path: Path) -> None:
    names: list[Any] = [tmp_path / name for name in ("in.tif", "in.labels.tif", "in")]
    for path in names[:2]:
        path.write_bytes(b"x")
    refuse_inputs([names[1], names[2], tmp_path / "new" / "in.tif"], [names[0]])


def test_a_side_file_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    beside, output = tmp_path / "out.tif.aux.xml", tmp_path / "out.tif"
    beside.write_text("<PAMDataset>notes</PAMDataset>")
    with pytest.raises(UsageError, match=r"exists without out\.tif; use `overwrite=True`"):
        tp.segment(np.zeros((3, 20, 30), np.uint8), MODEL, output)
    assert beside.read_text() == "<PAMDataset>notes</PAMDataset>"
    beside.unlink()
    tp.segment(np.zeros((3, 20, 30), np.uint8), MODEL, output)
    output.unlink()  # its own side file is left
    tp.segment(np.ones((3, 20, 30), np.uint8), MODEL, output)


@pytest.mark.parametrize("command", ["batch run", "train", "export", "info", "evaluate", "segment"])
def test_no_command_waits_for_a_pipe(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    more = {"export": ["o.tif"], "evaluate": [str(pipe)], "segment": ["o.tif", "-m", "forest"]}.get(command, [])
    assert main([*command.split(), str(pipe), *more]) in (2, 4)
    assert "is a named pipe and no file" in capsys.readouterr().err


def test_a_work_directory_stands_for_the_output_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image, output = write_image(tmp_path / "in.tif"), Path("out.tif")
    tp.segment(image, MODEL, output)
    outer = Path(".out.tif.tilepipe")
    (inner,) = outer.iterdir()
    for run in (outer, inner, inner.resolve()):
        tp.open_labels(run)
        assert main(["info", str(run)]) == 0
        assert tp.evaluate(run, output, classes=["a", "b"]).confusion.accuracy == 1
        assert tp.evaluate(output, run, classes=["a", "b"]).confusion.accuracy == 1
        export(run, "x.geojson", overwrite=True)
        for name in ("out.tif", "out.geojson/../out.tif"):
            with pytest.raises(UsageError, match="which is read; give another output"):
                export(run, name, overwrite=True)
        with pytest.raises(InputError, match=r"is the work directory of a run and no image; .* its labels \S*out.tif$"):
            tp.plan(run, MODEL)


def test_a_work_directory_without_its_output_says_what_to_type(tmp_path: Path) -> None:
    work = tmp_path / ".out.tif.tilepipe" / "0123456789abcdef"
    work.mkdir(parents=True)
    for run in (work.parent, work):
        for call in (lambda run=run: export(run, tmp_path / "x.geojson"), lambda run=run: tp.evaluate(run, run)):
            with pytest.raises(
                InputError, match=r"is the work directory of a run, .*out\.tif is not there; .* goes on"
            ):
                call()
        with pytest.raises(InputError, match="is the work directory of a run and no image"):
            tp.plan(run, MODEL)
    hidden = tmp_path / ".tilepipe"
    hidden.mkdir()
    with pytest.raises(InputError, match="is no label map"):
        export(hidden, tmp_path / "x.geojson")
