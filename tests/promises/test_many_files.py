"""Labels of many files that are one image show no borders of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.banded_runs import small_bands
from helpers.cut_files import COLUMNS, PIXELS, ROWS, WHOLE, as_vrt, cut, write

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.sources.open import open_source
from tilepipe.testing import local_mean_model, random_unet


def test_labels_of_many_files_are_those_of_their_mosaic(tmp_path: Path) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS, overlap=3)
    one = write(tmp_path / "one.tif", WHOLE)
    model = local_mean_model(bands=3)
    choices: Any = {"tile": 64, "block": 64}
    expected = tp.predict(one, model, **choices)
    np.testing.assert_array_equal(tp.predict(folder, model, **choices), expected)
    result = tp.segment(folder, model, **choices)
    assert [path.name for path in result.paths] == ["tiles.labels.tif"]
    np.testing.assert_array_equal(np.asarray(result.labels), expected)
    with rasterio.open(result.paths[0]) as labels, rasterio.open(one) as image:
        assert (labels.transform, labels.crs) == (image.transform, image.crs)
    # A region over the borders of files is a crop of the whole.
    region = Box(50, 60, 100, 150)
    np.testing.assert_array_equal(tp.predict(folder, model, region, **choices), expected[50:100, 60:150])


@pytest.mark.long
def test_in_bands_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a VRT of its files and their mosaic have the same labels also if columns are computed in bands."""
    small_bands(monkeypatch)
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS, overlap=3)
    one = write(tmp_path / "one.tif", WHOLE)
    model = random_unet(depth=2)
    expected = tp.predict(one, model)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(tp.predict(as_vrt(folder), model), expected)
    result = tp.segment(folder, model)
    assert result.plan.tiling.bands is not None
    np.testing.assert_array_equal(np.asarray(result.labels), expected)


def test_no_output_is_taken_for_a_part_the_next_time(tmp_path: Path) -> None:
    folder, model = cut(tmp_path / "tiles", ROWS, COLUMNS), local_mean_model(bands=3)
    with pytest.raises(UsageError, match="would lie among the files of"):
        tp.segment(folder, model, folder / "out.tif")
    first = tp.segment(folder, model, folder / "out.labels.tif")
    assert tp.segment(folder, model, folder / "out.labels.tif").record == first.record


def test_a_run_keeps_how_its_files_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(cut(tmp_path / "tiles", ROWS, COLUMNS).glob("*.tif"))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "all.txt").write_text("\n".join(map(str, files)))
    monkeypatch.chdir(tmp_path)
    model = local_mean_model(bands=3)
    results = [tp.segment(what, model, allow="tiles") for what in ("lists/all.txt", "tiles/*.tif")]
    monkeypatch.chdir(tmp_path / "lists")
    for result in results:
        again = open_source(result.record["source"], **result.record["choice"])
        np.testing.assert_array_equal(again.read(WHOLE), PIXELS)
