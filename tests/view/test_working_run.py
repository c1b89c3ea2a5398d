"""A run that works is shown as far as it is, and its products when it has finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_runs import CODES, IMAGE, StopError, labels_of, segment, stop_at, work
from helpers.viewers import viewing

import tilepipe as tp
from tilepipe.errors import InputError, StorageError, UsageError
from tilepipe.sources.array import ArraySource
from tilepipe.view.map_tiles import SIDE
from tilepipe.view.working_run import working_run

LAYERS = {"layers": "margin"}


def stopped(output: Path, blocks: int) -> None:
    with pytest.raises(StopError):
        segment(output, listener=stop_at("predict", blocks), **LAYERS)


def shown(client: Any, layer: str = "labels") -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a layer at full size, as the page gets it."""
    status, body, _ = client.ask(f"/tiles/{layer}/0/0/0")
    if status == 204:
        return np.full(CODES.shape, 255, np.uint8)
    tile = np.frombuffer(body, np.uint8).reshape(SIDE, SIDE)
    return tile[1 : CODES.shape[0] + 1, 1 : CODES.shape[1] + 1]


def test_finished_blocks_are_shown_and_the_rest_is_clear(tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    stopped(output, 4)
    with viewing(IMAGE, work(output)) as client:
        about, first = client.json("/about"), client.json("/state")
        assert about["maps"]["labels"]["classes"] == ["class 0", "class 1", "class 2", "class 3"]
        assert first["working"]
        assert first["said"].startswith("the run has stopped: ")
        part = shown(client)
        assert 0 < (part != 255).mean() < 1
        np.testing.assert_array_equal(part[part != 255], CODES[part != 255])
        assert (shown(client, "margin") != 255).any()
        segment(output, **LAYERS)
        last = client.json("/state")
        assert last["versions"]["labels"] > first["versions"]["labels"]
        assert (last["working"], last["said"], last["trouble"]) == (False, "", "")
        np.testing.assert_array_equal(shown(client), labels_of(output))
        assert client.json("/places")["layer"] == "margin"


def test_an_output_that_is_not_there_yet_stands_for_its_run(tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    stopped(output, 2)
    run = working_run(output)
    assert run is not None
    assert len(run.news()) == len(run.done) < run.blocks
    assert run.news() == []
    assert not run.works
    assert working_run(next(work(output).glob("*/"))) is not None


def test_a_finished_run_is_shown_from_its_product(tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    segment(output)
    assert working_run(work(output)) is None
    with viewing(IMAGE, work(output)) as client:
        np.testing.assert_array_equal(shown(client), labels_of(output))


def test_a_run_whose_product_is_polygons_alone_is_shown_from_its_arrays(tmp_path: Path) -> None:
    segment(tmp_path / "labels.geojson")
    with viewing(IMAGE, work(tmp_path / "labels.geojson")) as client:
        np.testing.assert_array_equal(shown(client), CODES)


def test_a_run_of_another_image_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    stopped(output, 2)
    with pytest.raises(UsageError, match="is not the image of"), viewing(ArraySource(CODES[1:]), work(output)):
        pass
    next(work(output).glob("*/plan.json")).write_text("{}")
    with pytest.raises(StorageError, match="damaged"), viewing(IMAGE, work(output)):
        pass
    with pytest.raises(InputError, match="does not exist"), viewing(IMAGE, tmp_path / "never.tif"):
        pass


def test_the_box_of_a_run_is_where_its_labels_lie(tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    segment(output, window=(20, 10, 50, 40))
    with viewing(IMAGE, output) as client:
        part = shown(client)
        inside = tp.Box(10, 20, 50, 70).slices_in(tp.Box(0, 0, 90, 130))
        np.testing.assert_array_equal(part[inside], CODES[inside])
        assert (part != 255).sum() == 40 * 50
