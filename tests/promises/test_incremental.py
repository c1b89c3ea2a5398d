"""A run that takes over what has not changed gives the bytes of a run of everything; it computes what sees a change."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.banded_runs import small_bands
from helpers.small_runs import StopError, stop_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.execution.ledger import read_records
from tilepipe.execution.result import Result
from tilepipe.planning.plan import Plan
from tilepipe.sources.array import ArraySource
from tilepipe.testing import random_unet
from tilepipe.tiling.grid import Index

SHAPE = 150, 190
MODEL = random_unet(bands=1, depth=1)
PIXELS = np.random.default_rng(0).integers(1, 256, (1, *SHAPE), np.uint8)
CUT: dict[str, Any] = {"tile": 48, "overlap": 20, "block": 48, "device": "cpu", "mask": "value:0"}
SLOW: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def segment(output: Path, image: Any, **chosen: Any) -> Result:
    chosen.setdefault("listener", lambda event: None)
    image = ArraySource(image) if isinstance(image, np.ndarray) else image
    return tp.segment(image, MODEL, output, **{**CUT, **chosen})


def stopped_once(output: Path, image: Any, stop: int, **chosen: Any) -> None:
    """Stop a run after some of the blocks that it computes; it may have fewer."""
    with suppress(StopError):
        segment(output, image, **chosen, listener=stop_at("predict", stop))


def taken(result: Result, output: Path) -> set[Index]:
    """Return the blocks that were taken over, by the ledger."""
    (ledger,) = output.parent.glob(f".{output.name}.tilepipe/*/ledger.jsonl")
    found = {block for block, record in read_records(ledger)[0].items() if record.taken}
    assert len(found) == result.record["taken"]
    return found


def mirrored(start: int, stop: int, size: int) -> list[int]:
    return sorted({index if index < size else 2 * (size - 1) - index for index in range(start, stop)})


def touched(plan: Plan, differs: NDArray[np.bool_]) -> set[Index]:
    """Return the blocks of which a tile sees a pixel that differs, by looking at every tile."""
    found, grid = set(), plan.grid
    for tile in plan.tiles():
        box = grid.tile_box(tile)
        rows, columns = mirrored(box.y0, box.y1, plan.shape[0]), mirrored(box.x0, box.x1, plan.shape[1])
        if differs[np.ix_(rows, columns)].any():
            found |= {block for block in plan.blocks() if grid.kept_box(tile) & grid.zone(block)}
    return found


def products(folder: Path, stem: str) -> dict[str, bytes]:
    """Return the content of all products of a stem by the rest of their names."""
    return {path.name.removeprefix(stem): path.read_bytes() for path in folder.glob(f"{stem}.*") if path.is_file()}


@st.composite
def changes(draw: st.DrawFn) -> NDArray[Any]:
    """Draw an image that differs from `PIXELS` in some rectangles, in some of which there is no image data."""
    pixels = PIXELS.copy()
    for _ in range(draw(st.integers(0, 2))):
        y, x = draw(st.integers(0, SHAPE[0] - 1)), draw(st.integers(0, SHAPE[1] - 1))
        part = pixels[0, y : y + draw(st.integers(1, 30)), x : x + draw(st.integers(1, 30))]
        part[:] = 0 if draw(st.booleans()) else part // 2 + 1
    return pixels


def check_changes(where: Path, changed: NDArray[Any], stop: int, **chosen: Any) -> None:
    """Compare a run that is stopped once with a full run, and count its blocks."""
    segment(where / "old.tif", PIXELS, **chosen)
    expected = segment(where / "full.tif", changed, **chosen)
    output, since = where / "new.tif", where / "old.tif"
    stopped_once(output, changed, stop, since=since, **chosen)
    found = segment(output, changed, since=since if stop % 2 else None, **chosen)
    assert (np.asarray(found.labels) == np.asarray(expected.labels)).all()
    assert products(where, "new") == products(where, "full")
    assert taken(found, output) == set(found.plan.blocks()) - touched(found.plan, (changed != PIXELS)[0])


DRAWN: dict[str, Any] = {
    "changed": changes(),
    "tile": st.sampled_from([32, 48, 80]),
    "overlap": st.sampled_from([4, 12, 20]),
    "block": st.sampled_from([1, 64, 100]),
    "window_shape": st.sampled_from(["crop", "gaussian", "hann"]),
    "kept": st.sampled_from([{}, {"layers": ["margin"], "of": "cog,csv"}, {"of": "cog,probabilities,geojson"}]),
    "stop": st.integers(1, 4),
}


@settings(max_examples=2, **SLOW)
@given(**DRAWN)
def test_changes_in_places(tmp_path_factory: Any, changed: Any, stop: int, kept: Any, **chosen: Any) -> None:
    """Also in a run that is stopped, and goes on with or without the earlier labels."""
    check_changes(tmp_path_factory.mktemp("runs"), changed, stop, **kept, **chosen)


@pytest.mark.long
@settings(max_examples=60, **SLOW)
@given(**DRAWN)
def test_many_changes_in_places(tmp_path_factory: Any, changed: Any, stop: int, kept: Any, **chosen: Any) -> None:
    check_changes(tmp_path_factory.mktemp("runs"), changed, stop, **kept, **chosen)


def check_strips(where: Path, old: NDArray[Any], new: NDArray[Any], **chosen: Any) -> None:
    segment(where / "old.tif", old, **chosen)
    expected = segment(where / "full.tif", new, **chosen)
    found = segment(where / "new.tif", new, **chosen, since=where / "old.tif")
    assert products(where, "new") == products(where, "full")
    assert expected.plan.key({}, "") == found.plan.key({}, "")
    kept, grid, tile = taken(found, where / "new.tif"), found.plan.grid, chosen["tile"]
    # The last tile is pulled back to the old edge, and covers those before it by up to its whole size.
    rows, columns = (min(sizes) - 2 * tile for sizes in zip(old.shape[1:], new.shape[1:], strict=True))
    for block in found.plan.blocks():
        zone = grid.zone(block)
        assert block in kept or zone.y1 > rows or zone.x1 > columns


GROWN: dict[str, Any] = {
    "right": st.integers(0, 60),
    "below": st.integers(0, 60),
    "back": st.booleans(),
    "tile": st.sampled_from([32, 48]),
    "window_shape": st.sampled_from(["crop", "linear"]),
}


@settings(max_examples=2, **SLOW)
@given(**GROWN)
def test_strips_that_were_appended(tmp_path_factory: Any, right: int, below: int, back: bool, **chosen: Any) -> None:
    """Blocks whose tiles saw the old edge are computed again, and none far from it; also if a strip has gone."""
    grown = np.pad(PIXELS, ((0, 0), (0, below), (0, right)), mode="wrap")
    check_strips(tmp_path_factory.mktemp("runs"), *((grown, PIXELS) if back else (PIXELS, grown)), **chosen)


@pytest.mark.long
@settings(max_examples=30, **SLOW)
@given(**GROWN)
def test_many_strips(tmp_path_factory: Any, right: int, below: int, back: bool, **chosen: Any) -> None:
    grown = np.pad(PIXELS, ((0, 0), (0, below), (0, right)), mode="wrap")
    check_strips(tmp_path_factory.mktemp("runs"), *((grown, PIXELS) if back else (PIXELS, grown)), **chosen)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_bands(monkeypatch, height=8, kept=64, rows=1)
    monkeypatch.setattr("tilepipe.planning.band_tiling._in_tiles", lambda *_: math.inf)


def check_bands(where: Path, changed: NDArray[Any], grown: tuple[int, int], stop: int, **settled: Any) -> None:
    new = np.pad(changed, ((0, 0), (0, grown[0]), (0, grown[1])), mode="wrap")
    chosen = {"tile": None, "overlap": None, "block": None, **settled}
    before = segment(where / "old.tif", PIXELS, **chosen)
    assert before.plan.tiling.bands is not None
    expected = segment(where / "full.tif", new, **chosen)
    output, since = where / "new.tif", where / "old.tif"
    stopped_once(output, new, stop, since=since, **chosen)
    found = segment(output, new, **chosen, since=since)
    assert (np.asarray(found.labels) == np.asarray(expected.labels)).all()
    # A full run cuts another width into other columns; this run has those of the earlier one.
    assert found.plan.tiling == before.plan.tiling
    kept, grid = taken(found, output), found.plan.grid
    assert all(grid.zone(block).y1 <= SHAPE[0] and grid.zone(block).x1 <= SHAPE[1] for block in kept)
    if grown == (0, 0):
        differs = (changed != PIXELS)[0]
        assert kept >= set(found.plan.blocks()) - touched(found.plan, differs)
        assert not differs.any() or kept != set(found.plan.blocks())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("runtime", ["torch", pytest.param("onnxruntime", marks=pytest.mark.long)])
@settings(max_examples=1, **SLOW)
@given(changed=changes(), grown=st.tuples(st.integers(0, 40), st.integers(0, 40)), stop=st.integers(1, 5))
def test_in_bands(
    tmp_path_factory: Any, runtime: str, changed: NDArray[Any], grown: tuple[int, int], stop: int
) -> None:
    where = tmp_path_factory.mktemp("runs")
    check_bands(where, changed, grown, stop, runtime=runtime)
    (where / "again").mkdir()
    check_bands(where / "again", changed, (0, 0), stop, runtime=runtime)


def written(path: Path, pixels: NDArray[Any], y: int, x: int) -> Path:
    """Write a GeoTIFF whose first pixel lies in this row and column of a grid on the earth."""
    place = rasterio.Affine(0.5, 0, 300000 + 0.5 * x, 0, -0.5, 5200000 - 0.5 * y)
    _, height, width = pixels.shape
    shape: dict[str, Any] = {"height": height, "width": width, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **shape) as file:
        file.write(pixels)
    return path


@settings(max_examples=2, **SLOW)
@given(
    above=st.integers(0, 60), left=st.integers(0, 60), window=st.sampled_from(["crop", "gaussian"]),
    size=st.sampled_from([(32, 8), (48, 20)]),
)  # fmt: skip
def test_strips_above_and_to_the_left(
    tmp_path_factory: Any, above: int, left: int, window: str, size: tuple[int, int]
) -> None:
    """On a world grid blocks lie at fixed places on the earth, so that those of an image that begins elsewhere fit."""
    where, (tile, overlap) = tmp_path_factory.mktemp("runs"), size
    old = written(where / "a.image", PIXELS[:, above:, left:], above, left)
    new = written(where / "b.image", PIXELS, 0, 0)
    chosen = {"grid": "world", "tile": tile, "overlap": overlap, "window_shape": window, "mask": "none"}
    segment(where / "old.tif", old, **chosen)
    segment(where / "full.tif", new, **chosen)
    found = segment(where / "new.tif", new, **chosen, since=where / "old.tif")
    assert products(where, "new") == products(where, "full")
    kept, grid, inner = taken(found, where / "new.tif"), found.plan.grid, found.plan.region
    for block in found.plan.blocks():
        zone = grid.zone(block)
        far = zone.y0 >= inner.y0 + above + tile and zone.x0 >= inner.x0 + left + tile
        assert block in kept or not far


@pytest.mark.parametrize("workers", [pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize("window", ["crop", "gaussian"])
def test_in_worker_processes(tmp_path: Path, workers: int, window: str) -> None:
    changed = PIXELS.copy()
    changed[0, 70:75, 100:104] //= 2
    check_changes(tmp_path, changed, 2, window_shape=window, workers=workers)


def test_a_grid_of_its_own_for_the_model(tmp_path: Path) -> None:
    """Labels are kept at full resolution, and were predicted at half of it."""
    changed = PIXELS.copy()
    changed[0, 70:75, 100:104] //= 2
    coarse = tp.Model.from_torch(MODEL.module, MODEL.card.model_copy(update={"resolution": 1.0, "unit": "m"}))
    images = [written(tmp_path / f"{name}.image", pixels, 0, 0) for name, pixels in (("a", PIXELS), ("b", changed))]
    chosen: dict[str, Any] = {"tile": 32, "overlap": 8, "block": 32, "listener": lambda event: None, "device": "cpu"}
    tp.segment(images[0], coarse, tmp_path / "old.tif", **chosen)
    expected = tp.segment(images[1], coarse, tmp_path / "full.tif", **chosen)
    found = tp.segment(images[1], coarse, tmp_path / "new.tif", since=tmp_path / "old.tif", **chosen)
    assert products(tmp_path, "new") == products(tmp_path, "full")
    assert found.plan.predicted != found.plan.output
    assert 0 < len(set(found.plan.blocks())) - found.record["taken"] <= 4
    assert expected.record["taken"] == 0
