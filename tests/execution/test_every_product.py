"""Trouble with each product: no permission, a full disk, something else at its place: nothing is lost, or left."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dicom_slide import write_dicom_slide
from helpers.ordinary_user import ordinary_user
from helpers.small_runs import CODES, StopError, segment, work

from tilepipe.errors import StorageError, UsageError
from tilepipe.execution import publish
from tilepipe.execution.export import export
from tilepipe.products.formats import PRODUCTS
from tilepipe.sources.array import ArraySource

BLOCKS = np.kron(CODES[:12, :16], np.ones((4, 4), np.uint8))
IMAGE = ArraySource(BLOCKS)
SOMEBODY = b"what somebody else needs"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = segment(tmp_path_factory.mktemp("labels") / "labels.tif", IMAGE, of="cog,probabilities").paths[0]
    return path


@pytest.fixture(params=[name for name, one in PRODUCTS.items() if not one.needs_run])
def product(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def image_for(product: str, folder: Path) -> Any:
    """The image of the labels; a segmentation in DICOM needs a slide in DICOM."""
    if product != "dicom-seg":
        return IMAGE
    pytest.importorskip("highdicom")
    slide = folder / "slide.dcm"
    return slide if slide.exists() else write_dicom_slide(slide, np.repeat(BLOCKS[..., None], 3, axis=2))


def written(labels: Path, folder: Path, product: str, **options: Any) -> Path:
    image = image_for(product, labels.parent) if PRODUCTS[product].needs_image else None
    return export(labels, folder / f"out{PRODUCTS[product].suffix}", of=product, image=image, **options)[0]


@contextmanager
def files_limited(size: int) -> Iterator[None]:
    """A limit on the size of files stands for a disk that is full."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_folder_that_may_not_be_written(labels: Path, product: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with ordinary_user(), pytest.raises(StorageError, match="check its permissions"):
            written(labels, tmp_path, product)
    finally:
        tmp_path.chmod(0o755)
    assert not list(tmp_path.iterdir())


def test_a_full_disk(labels: Path, product: str, tmp_path: Path) -> None:
    whole = written(labels, tmp_path, product)
    before = content(whole)
    for size in (0, 100):
        with files_limited(size), pytest.raises(StorageError, match=r"disk"):
            written(labels, tmp_path, product, overwrite=True)
        assert content(whole) == before
        assert {path.name for path in tmp_path.iterdir()} <= {whole.name, f"{whole.name}.aux.xml", "out.qml"}
    written(labels, tmp_path, product, overwrite=True)
    assert content(whole) == before


def content(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def test_what_is_there_is_replaced_only_when_asked(labels: Path, product: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{PRODUCTS[product].suffix}"
    if PRODUCTS[product].folder:
        written(labels, tmp_path, product)
    else:
        path.write_bytes(SOMEBODY)
    before = content(path)
    with pytest.raises(UsageError, match="exists; use `overwrite=True` or another output"):
        written(labels, tmp_path, product)
    assert content(path) == before
    written(labels, tmp_path, product, overwrite=True)
    PRODUCTS[product].parse(path)


def test_a_run_replaces_what_is_there_only_when_asked(
    product: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, image = tmp_path / f"out{PRODUCTS[product].suffix}", image_for(product, tmp_path_factory.mktemp("slide"))
    bands = {"bands": "1"} if product == "dicom-seg" else {}
    if PRODUCTS[product].folder:
        segment(path, ArraySource(3 - CODES))
        before = content(path)
        with pytest.raises(UsageError, match="exists"):
            segment(path, IMAGE)
    else:
        path.write_bytes(before := SOMEBODY)
        with pytest.raises(UsageError, match="exists"):
            segment(path, image, **bands)
        assert not work(path).exists()
        before = content(path)
    assert content(path) == before


def test_a_folder_of_that_name_is_never_replaced(labels: Path, product: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{PRODUCTS[product].suffix}"
    path.mkdir()
    (path / "thesis.txt").write_bytes(SOMEBODY)
    with pytest.raises(UsageError, match="is not replaced; choose another output"):
        written(labels, tmp_path, product, overwrite=True)
    assert os.listdir(path) == ["thesis.txt"]
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", ["same", "link", "hard link"])
def test_labels_are_not_exported_onto_themselves(labels: Path, kind: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.tif"
    mine.write_bytes(labels.read_bytes())
    output = mine if kind == "same" else tmp_path / "other.tif"
    if kind == "link":
        output.symlink_to(mine)
    elif kind == "hard link":
        os.link(mine, output)
    with pytest.raises(UsageError, match="would be written over"):
        export(mine, output, overwrite=True)
    assert mine.read_bytes() == labels.read_bytes()


def test_a_map_is_not_exported_onto_the_image_or_polygons_it_is_made_with(labels: Path, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "scene.overlay.png"
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(picture)
    before = picture.read_bytes()
    with pytest.raises(UsageError, match="would be written over"):
        export(labels, picture, image=picture, overwrite=True)
    assert picture.read_bytes() == before


@pytest.mark.parametrize("product", ["vectors", "geoparquet", "objects-parquet", "qupath", "csv", "png", "overlay"])
def test_a_run_that_ends_between_two_renames_is_finished(
    product: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are new then, the product beside them is old; the same command ends with the new ones."""
    paths = [tmp_path / "out.tif", tmp_path / f"out{PRODUCTS[product].suffix}"]
    settings: dict[str, Any] = {"of": ["cog", product], "overwrite": True}
    new = [path.read_bytes() for path in segment(paths[0], IMAGE, **settings).paths]
    old = [path.read_bytes() for path in segment(paths[0], ArraySource(3 - BLOCKS), **settings).paths]
    real, renamed = publish._replace, []

    def replace(*names: Path) -> None:
        if renamed:
            raise StopError
        renamed.append(names)
        real(*names)

    monkeypatch.setattr(publish, "_replace", replace)
    with pytest.raises(StopError):
        segment(paths[0], IMAGE, **settings)
    assert [path.read_bytes() for path in paths] in ([new[0], old[1]], [old[0], new[1]])
    monkeypatch.setattr(publish, "_replace", real)
    segment(paths[0], IMAGE, **settings)
    assert [path.read_bytes() for path in paths] == new
