"""Runs on a world grid fit each other: where both have image data in reach, their labels are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cut_files import PIXELS, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.evaluation.verify.finished_run import Run, find_run, reopen
from tilepipe.testing import random_unet

MODEL = random_unet(depth=2)
WHOLE = Box(0, 0, 150, 210)
CUT: dict[str, Any] = {"grid": "world", "tile": 32, "overlap": 8}


@pytest.fixture(scope="module", params=["crop", "hann"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    how = {**CUT, "window_shape": request.param}
    return how, tp.predict(write(tmp_path_factory.mktemp("whole") / "a.tif", WHOLE), MODEL, **how)


def find(path: Path) -> Run:
    found = find_run(path)
    assert found is not None
    return found


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_parts_fit_the_whole(whole: Any, tmp_path: Path, data: st.DataObject) -> None:
    how, expected = whole
    y, x = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 90))
    part = Box(y, x, data.draw(st.integers(y + 70, 150)), data.draw(st.integers(x + 70, 210)))
    found = tp.predict(write(tmp_path / "part.tif", part), MODEL, **how)
    assert found.shape == part.shape
    # A label depends on the tiles over it, which reach at most one tile beyond it.
    rows, columns = ((start and 32, size - 32 * (stop < end)) for start, stop, size, end in (
        (part.y0, part.y1, part.height, 150), (part.x0, part.x1, part.width, 210)))  # fmt: skip
    own = expected[part.y0 : part.y1, part.x0 : part.x1]
    np.testing.assert_array_equal(found[slice(*rows), slice(*columns)], own[slice(*rows), slice(*columns)])


def test_on_the_grid_of_the_image_they_do_not_fit(whole: Any, tmp_path: Path) -> None:
    """The model sees further than the overlap, so its labels depend on the tiles."""
    how, expected = whole
    part = Box(21, 37, 150, 210)
    found = tp.predict(write(tmp_path / "part.tif", part), MODEL, **{**how, "grid": "image"})
    assert (found[32:, 32:] != expected[53:, 69:]).any()


@pytest.mark.long
def test_a_run_has_the_place_and_the_size_of_its_image(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", WHOLE)
    result = tp.segment(image, MODEL, of="cog,files,overlay", **CUT)
    expected = tp.predict(image, MODEL, **CUT)
    np.testing.assert_array_equal(np.asarray(result.labels), expected)
    assert result.labels.transform == (0.5, 0, 400000, 0, -0.5, 3000000)
    region = Box(20, 30, 90, 120)
    np.testing.assert_array_equal(tp.predict(image, MODEL, region, **CUT), expected[20:90, 30:120])
    window = tp.segment(image, MODEL, tmp_path / "w.tif", window=(30, 20, 90, 70), **CUT)
    np.testing.assert_array_equal(np.asarray(window.labels), expected[20:90, 30:120])
    assert window.labels.map.origin == (20, 30)
    bounds = (400015, 2999955, 400060, 2999990)
    np.testing.assert_array_equal(tp.predict(image, MODEL, bounds=bounds, **CUT), expected[20:90, 30:120])
    assert tp.segment(image, MODEL, of="cog,files,overlay", **CUT).record["published"]
    again = reopen(find(tmp_path / "w.tif"), None, MODEL, {})
    assert again.source.shape == (3, *window.plan.shape)
    assert any(row.name == "grid" and "EPSG:32645" in row.text for row in window.plan.fit_table)


def test_what_would_depend_on_the_image_is_refused(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", WHOLE)
    with pytest.raises(UsageError, match="needs the same tiles"):
        tp.predict(image, MODEL, grid="world")
    with pytest.raises(UsageError, match="works on the image's own pixels; leave `resolution` out"):
        tp.predict(image, MODEL, resolution=1.0, **CUT)
    coarse = tp.Model.from_torch(MODEL.module, MODEL.card.model_copy(update={"resolution": 2.0}))
    with pytest.raises(UsageError, match=r"model model works at 2 m/px.* -tr 2 2 in\.tif"):
        tp.predict(image, coarse, **CUT)
    with pytest.raises(UsageError, match="lies off"):
        tp.predict(image, MODEL, bounds=(399990, 2999955, 399999, 2999990), **CUT)
    with pytest.raises(UsageError, match="is not inside"):
        tp.predict(image, MODEL, Box(0, 0, 151, 10), **CUT)
    assert PIXELS.shape[1:] == WHOLE.shape
