"""Labels cut into one file for each file of the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers.cut_files import COLUMNS, ROWS, cut
from rasterio.merge import merge

import tilepipe as tp
from tilepipe.errors import InputError, UsageError
from tilepipe.execution.export import export
from tilepipe.products.labels import parses
from tilepipe.products.per_file import read_files
from tilepipe.testing import local_mean_model

MODEL = local_mean_model(bands=3)


def test_labels_of_files_are_those_of_the_mosaic(tmp_path: Path) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS, overlap=3)
    result = tp.segment(folder, MODEL, of="cog,files")
    made = tmp_path / "tiles.labels.files"
    assert result.paths == (tmp_path / "tiles.labels.tif", made)
    files = sorted(made.glob("*.tif"))
    assert [file.name for file in files] == [f"{file.stem}.labels.tif" for file in sorted(folder.glob("*.tif"))]
    assert json.loads((made / "files.json").read_text())["t_064_070.labels.tif"] == "t_064_070.tif"
    whole = np.asarray(result.labels)
    for file in files:
        with rasterio.open(file) as labels, rasterio.open(folder / file.name.replace(".labels", "")) as image:
            assert (labels.shape, labels.transform, labels.crs) == (image.shape, image.transform, image.crs)
            y, x = round((3000000 - image.transform.f) * 2), round((image.transform.c - 400000) * 2)
            np.testing.assert_array_equal(labels.read(1), whole[y : y + image.height, x : x + image.width])
    np.testing.assert_array_equal(merge([str(file) for file in files], nodata=255)[0][0], whole)
    assert parses(made)
    assert tp.segment(folder, MODEL, of="cog,files").record["published"], "nothing to do"
    files[0].write_bytes(b"damaged")
    assert not parses(made)


def test_a_region_leaves_out_files_and_fills_the_rest_with_nodata(tmp_path: Path) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS)
    result = tp.segment(folder, MODEL, window=(60, 10, 50, 40), of="cog,files")
    made = tmp_path / "tiles.labels.files"
    assert [file.name for file in sorted(made.glob("*.tif"))] == ["t_000_000.labels.tif", "t_000_070.labels.tif"]
    with rasterio.open(made / "t_000_070.labels.tif") as labels:
        expected = np.full((64, 70), 255)
        expected[10:50, :40] = np.asarray(result.labels)[:, 10:]
        np.testing.assert_array_equal(labels.read(1), expected)


def test_export_cuts_labels_too(tmp_path: Path) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS)
    labels = tp.segment(folder, MODEL, tmp_path / "a.tif").paths[0]
    export(labels, tmp_path / "cut.files", image=folder)
    assert len(list((tmp_path / "cut.files").glob("*.tif"))) == 9
    with pytest.raises(UsageError, match="only you can name"):
        export(labels, tmp_path / "again.files")


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS)
    with pytest.raises(UsageError, match="leave `resolution` out"):
        tp.segment(folder, MODEL, of="cog,files", resolution="model")
    (tmp_path / "tiles.labels.files").mkdir()
    with pytest.raises(UsageError, match="exists"):
        tp.segment(folder, MODEL, of="cog,files", overwrite=True)
    (folder / "t_000_000.tif").rename(folder / "t_000_070.TIFF")
    with pytest.raises(UsageError, match="would share the labels"):
        tp.segment(folder, MODEL, of="cog,files", output=tmp_path / "b.tif")
    with pytest.raises(InputError, match="files\\.json cannot be read"):
        read_files(tmp_path)
