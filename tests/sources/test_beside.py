"""What lies beside a TIFF is not the image, and nothing outside its folder is opened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.loopback import Loopback, listening

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.open import open_source
from tilepipe.testing import constant_model

UTM = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 3000000)}
Write = Callable[..., Path]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with listening() as found:
        yield found


def read_all(path: Path) -> None:
    """Do all that is ever done with a source."""
    source = open_source(path)
    source.read(Box(0, 0, 20, 30))
    source.valid(Box(0, 0, 20, 30))
    source.identity()


def pam(text: str) -> str:
    return f"<PAMDataset>{text}</PAMDataset>"


def overviews(target: str) -> str:
    return pam(f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{target}</MDI></Metadata>')


STATISTICS = """<PAMRasterBand band="1"><Histograms/><Metadata><MDI key="STATISTICS_MAXIMUM">255</MDI>
<MDI key="STATISTICS_MEAN">127.5</MDI><MDI key="STATISTICS_MINIMUM">0</MDI></Metadata></PAMRasterBand>"""
HTTP = "/vsicurl/http://127.0.0.1:{port}/x"


@pytest.mark.parametrize("target", [HTTP, "/vsis3/bucket/key", "{folder}/conftest.py", "../secret.tif"])
@pytest.mark.parametrize("where", ["beside", "inside", "disguised"])
def test_overviews_elsewhere(
    where: str,
    target: str,
    geotiff: Write,
    noise: Any,
    server: Loopback,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in {
        "ACCESS_KEY_ID": "A",
        "SECRET_ACCESS_KEY": "B",
        "HTTPS": "NO",
        "VIRTUAL_HOSTING": "FALSE",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{server.port}")
    target = target.format(port=server.port, folder=Path(__file__).parent)

    def inside(dataset: Any) -> None:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=target)

    path = geotiff(noise((3, 20, 30)), then=inside if where == "inside" else None, **UTM)
    if where != "inside":
        text = overviews(target)
        text = text if where == "beside" else text.replace("OVERVIEW", "&#79;VERVIEW").replace('"OVER', '"over')
        path.with_name("a.tif.aux.xml").write_text(text)
    with pytest.raises(InputError, match="nothing outside an image is opened"):
        read_all(path)
    assert server.asked == []


def test_the_server_would_hear_it(geotiff: Write, noise: Any, server: Loopback) -> None:
    path = geotiff(noise((3, 20, 30)), **UTM)
    path.with_name("a.tif.aux.xml").write_text(overviews(HTTP.format(port=server.port)))
    with rasterio.open(path, driver="GTiff") as dataset:
        _ = dataset.files
    assert server.asked


@pytest.mark.parametrize(
    "text",
    [
        pam("<SourceFilename>{secret}</SourceFilename>"),
        pam('<Metadata domain="xml:VRT"><VRTDataset/></Metadata>'),
        pam("<MaskBand><SourceFilename>/vsicurl/http://127.0.0.1/x</SourceFilename></MaskBand>"),
    ],
)
def test_other_links_beside(text: str, geotiff: Write, noise: Any, tmp_path: Path) -> None:
    path = geotiff(noise((3, 20, 30)), **UTM)
    path.with_name("a.tif.aux.xml").write_text(text.format(secret=tmp_path / "secret"))
    with pytest.raises(InputError, match="names other files"):
        read_all(path)


def test_side_files_that_are_links_pipes_or_no_tiff(geotiff: Write, noise: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    there = geotiff(noise((3, 20, 30)), "there/a.tif", **UTM)
    there.with_name("a.tif.aux.xml").write_text(pam(""))
    for end in (".aux.xml", ".msk", ".ovr"):
        path = geotiff(noise((3, 20, 30)), f"b{end}.tif", **UTM)
        beside = path.with_name(path.name + end)
        os.symlink("/etc/passwd", beside)
        with pytest.raises(InputError, match="link out of the folder"):
            read_all(path)
        beside.unlink()
        os.mkfifo(beside)
        with pytest.raises(InputError, match="is a named pipe"):
            read_all(path)
        beside.unlink()
        beside.write_text("<VRTDataset/>")
        with pytest.raises(InputError, match=r"names other files|not a TIFF file"):
            read_all(path)
    for name in ("a.tif", "a.tif.aux.xml"):  # a folder of links to images and what belongs to them
        os.symlink(there.with_name(name), tmp_path / name)
    read_all(tmp_path / "a.tif")


def test_what_programs_leave_beside_an_image_is_not_the_image(geotiff: Write, noise: Any, tmp_path: Path) -> None:
    path = geotiff(noise((3, 40, 50)), nodata=3, **UTM)
    before = GeoTiffSource(path).identity()
    with rasterio.open(path) as dataset:  # as gdalinfo -stats and QGIS do
        dataset.stats(approx=False)
    path.with_name("a.tif.aux.xml").write_text(pam(STATISTICS))
    assert GeoTiffSource(path).identity() == before
    for name in ("a.qml", "a.tif.ovr.tmp", "a.jpg", "a.xml", "a.tif.xml"):
        path.with_name(name).write_text("x")
    os.utime(path, ns=(1, 1))
    assert GeoTiffSource(path).identity() == before
    moved = shutil.copy(path, tmp_path / "moved.tif")
    assert GeoTiffSource(moved).identity() == before


@pytest.mark.parametrize(
    "change",
    [
        "<SRS>EPSG:32633</SRS>",
        "<GeoTransform> 400001, 0.5, 0, 3000000, 0, -0.5</GeoTransform>",
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>',
    ],
)
def test_a_side_file_that_changes_what_is_read_changes_the_identity(change: str, geotiff: Write, noise: Any) -> None:
    path = geotiff(noise((1, 40, 50)))
    before = GeoTiffSource(path).identity()
    path.with_name("a.tif.aux.xml").write_text(pam(change))
    assert GeoTiffSource(path).identity() != before


def test_overviews_of_ones_own_folder_stay(geotiff: Write, noise: Any) -> None:
    path = geotiff(noise((3, 200, 300)), **UTM)
    before = GeoTiffSource(path).identity()
    path.with_name("a.tif.aux.xml").write_text(overviews(":::BASE:::a.aux"))  # what gdaladdo writes for USE_RRD
    source = GeoTiffSource(path)
    assert source.identity() == before
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(source.read(Box(0, 0, 200, 300)), dataset.read())


def test_statistics_beside_an_image_leave_a_run_complete(geotiff: Write, noise: Any, tmp_path: Path) -> None:
    path, said = geotiff(noise((1, 40, 50)), **UTM), []
    model = constant_model(0.3, 0.7)
    tp.segment(path, model, tmp_path / "out.tif")
    path.with_name("a.tif.aux.xml").write_text(pam(STATISTICS))
    tp.segment(path, model, tmp_path / "out.tif", listener=lambda event: said.append(event.message))
    assert "nothing to do" in said[-1]
    path.with_name("a.tif.aux.xml").write_text(
        pam('<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>')
    )
    with pytest.raises(UsageError, match="exists; use `overwrite=True`"):
        tp.segment(path, model, tmp_path / "out.tif")
