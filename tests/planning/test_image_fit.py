"""Fit of an image and a model: pixel sizes, brightness and absurd sizes; no false alarm on images that fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.planning import image_fit
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.plan import Plan
from tilepipe.planning.resolution import grids_of
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution, Source

SAMPLES = Path(__file__).parents[2] / "pipelines" / "sample"
STAINED = ModelCard(bands=3, classes=["a", "b"], mean=[190, 140, 180], std=[45, 50, 40], name="stain")


def card(**fields: Any) -> ModelCard:
    return ModelCard(**{"bands": 3, "classes": ["a", "b"], "resolution": 0.5, "unit": "um", "name": "nuclei", **fields})


def image(
    size: float | tuple[float, float] | None, unit: str = "um", level: float = 128, spread: float = 30
) -> ArraySource:
    pixels = np.random.default_rng(0).normal(level, spread, (3, 70, 80)).clip(1, 254).astype(np.uint8)
    y, x = size if isinstance(size, tuple) else (size, size)
    return ArraySource(pixels, resolution=None if y is None or x is None else Resolution(y, x, unit), name="image")


def rows_of(source: Source, card: ModelCard, settings: Any) -> dict[str, FitRow]:
    request = Request.of(settings)
    found = image_fit.check_fit(source, card, request, grids_of(source, card, request).resolution)
    return {row.name: row for row in found}


def check_fit(source: Source, card: ModelCard, settings: Any) -> list[FitRow]:
    """Return the rows that are not ok; each question has a row."""
    rows = rows_of(source, card, settings)
    assert {"bands", "values", "pixel size", "place", "nodata"} <= rows.keys()
    return [row for row in rows.values() if row.state != "ok"]


def said(found: list[FitRow]) -> list[str]:
    return [row.state for row in found]


def refused(source: Source, card: ModelCard) -> bool:
    try:
        check_fit(source, card, {})
    except InputError:
        return True
    return False


@given(st.floats(0.06, 99), st.floats(0.5, 2))
def test_pixels_much_larger_than_those_of_the_model_are_said_and_refused(size: float, aspect: float) -> None:
    """Smaller pixels lose nothing by being averaged: a model of coarse pixels on a fine image is right."""
    taken, times = image((size, size * aspect)), max(size, size * aspect) / 0.5
    assert refused(taken, card()) == (times > 8)
    if times <= 8:
        assert said(check_fit(taken, card(), {})) == (["warning"] if times > 2 else [])


@pytest.mark.parametrize(("size", "severities"), [(0.5, []), (0.05, []), (0.005, ["note"]), (2, ["warning"])])
def test_severities(size: float, severities: list[str]) -> None:
    assert said(check_fit(image(size), card(), {})) == severities


def test_a_thumbnail_is_refused_before_anything_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("planned")

    monkeypatch.setattr("tilepipe.planning.planner.measure_receptive_field", never)
    thumbnail = image(28.97)
    with pytest.raises(
        InputError, match=r"28\.97 x 28\.97 um/px.*0\.5 um/px.*57\.9 times.*`pixel_size`.*`force_resolution=True`"
    ):
        tp.plan(thumbnail, "nuclei")
    monkeypatch.undo()
    forced = tp.plan(thumbnail, "nuclei", force_resolution=True, runtime="torch", tile=256)  # sizes are not measured
    assert forced.predicted == (4056, 4635)
    assert tp.plan(thumbnail, "nuclei", pixel_size=0.5).predicted == (70, 80)


def test_a_raster_of_5_m_is_refused_for_a_model_of_30_cm(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    write(path, from_origin(500000, 3000000, 5, 5), "EPSG:32645")
    with pytest.raises(InputError, match=r"5\.002 x 5\.002 m/px.*0\.3 m/px.*16\.7 times"):
        tp.segment(path, "buildings", tmp_path / "o.tif")
    assert not (tmp_path / "o.tif").exists()
    assert main(["plan", str(path), "-m", "buildings"]) == 4
    assert main(["plan", str(path), "-m", "buildings", "--force-resolution"]) == 0


def write(path: Path, transform: Any, crs: str) -> Path:
    pixels = np.random.default_rng(0).integers(60, 160, (3, 64, 64), np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8", crs=crs, transform=transform
    ) as file:
        file.write(pixels)
    return path


def test_degrees_are_metres_at_the_centre_of_the_image(tmp_path: Path) -> None:
    """At 60 degrees north a degree of longitude is half as long as at the equator."""
    degree = 0.5 / 111320
    north = write(tmp_path / "n.tif", from_origin(10, 60, degree, degree), "EPSG:4326")
    equator = write(tmp_path / "e.tif", from_origin(10, 0, degree, degree), "EPSG:4326")
    sizes = [tp.open_source(path).resolution for path in (north, equator)]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert sizes[0].x == pytest.approx(0.25, rel=0.01)
    assert sizes[1].x == pytest.approx(0.5, rel=0.01)
    meant = card(resolution=0.06, unit="m", name="roofs")
    assert refused(tp.open_source(north), meant)  # 0.5 m from north to south
    assert said(check_fit(tp.open_source(north), card(resolution=0.4, unit="m"), {})) == []


def test_a_warning_is_said_by_plan_and_run_and_predict(tmp_path: Path) -> None:
    coarse = image(2)
    assert "fit     pixel size  warning  image has 2 x 2 um/px" in str(tp.plan(coarse, "nuclei"))
    events: list[str] = []
    tp.segment(coarse, "nuclei", tmp_path / "o.tif", listener=lambda event: events.append(event.message))
    assert len([text for text in events if text.startswith("warning: image has 2 x 2 um/px")]) == 1
    with pytest.warns(UserWarning, match="pixels 4 times as large"):
        tp.predict(coarse, "nuclei", tp.Box(0, 0, 16, 16))


def test_what_is_said_is_no_part_of_the_key() -> None:
    made = tp.plan(image(2), "nuclei")
    assert "warning" in said(list(made.fit_table))
    assert replace(made, fit_table=()).key({}, "w") == made.key({}, "w")
    again = Plan.from_json(made.to_json())
    assert (again, again.fit_table) == (made, made.fit_table)


@pytest.mark.parametrize(
    ("source", "settings", "word"),
    [
        (image(0.001), {}, "unusual"),
        (image(500), {}, "unusual"),
        (image(0.0005, "m"), {}, "unusual"),
        (image(3000, "m"), {}, "unusual"),
        (image(0.25), {"pixel_size": 25.0}, "100 times as much or less"),
    ],
)
def test_sizes_that_nobody_means_are_noted(source: ArraySource, settings: dict[str, float], word: str) -> None:
    unit = source.resolution.unit if source.resolution else "um"
    found = check_fit(source, card(resolution=None, unit=unit), settings)
    assert said(found) == ["note"]
    assert word in found[0].text


def test_fluorescence_under_a_model_of_stained_tissue_is_noted() -> None:
    dark = image(0.5, level=4, spread=3)
    pixels = dark.read(tp.Box(0, 0, 70, 80))
    pixels[:, 20:30, 20:40] = 200  # nuclei that shine
    found = check_fit(ArraySource(pixels), STAINED, {})
    assert said(found) == ["note"]
    assert "dark background" in found[0].text
    assert "fluorescence" in found[0].text


@pytest.mark.parametrize("make", [lambda p: p.astype(np.uint16) * 257, lambda p: (p / 255).astype(np.float32)])
def test_values_of_another_range_are_warned_about(make: Any) -> None:
    pixels = make(image(0.5, level=170).read(tp.Box(0, 0, 70, 80)))
    found = check_fit(ArraySource(pixels), STAINED, {})
    assert said(found) == ["warning"]
    assert "another range" in found[0].text
    assert ("gdal_translate -ot Byte -scale 0 1 0 255" in found[0].text) == (pixels.dtype == np.float32)


@pytest.mark.parametrize("level", [245, 200, 100])
def test_glass_and_tissue_raise_no_alarm(level: float) -> None:
    assert check_fit(image(0.5, level=level), STAINED, {}) == []


def test_black_borders_and_nodata_are_no_dark_background() -> None:
    pixels = image(0.5, level=170).read(tp.Box(0, 0, 70, 80))
    pixels[:, :, :60] = 0
    assert check_fit(ArraySource(pixels), STAINED, {}) == []
    valid = np.ones((70, 80), bool)
    pixels[:, :, :60], valid[:, :60] = 3, False
    assert check_fit(ArraySource(pixels, valid=valid), STAINED, {}) == []


def test_a_value_like_one_for_no_data_is_noted_where_nobody_said_what_is_image_data(tmp_path: Path) -> None:
    reflectance = np.random.default_rng(0).uniform(0, 0.3, (3, 60, 70)).astype(np.float32)
    reflectance[:, 5:15, 5:25] = -9999
    found = check_fit(ArraySource(reflectance, name="mosaic"), card(resolution=None), {})
    assert said(found) == ["note"]
    assert "holds -9999 in 4.8% of a sample" in found[0].text
    assert "`mask='value:-9999'`" in found[0].text
    for mask in ("none", "value:-9999"):
        assert check_fit(ArraySource(reflectance), card(resolution=None), {"mask": mask}) == []
    for bands, word in ((3, ""), (1, "as other bands hold data there")):
        pixels = np.abs(reflectance)
        pixels[:bands, 5:15, 5:25] = -9999
        pixels[bands:, 5:15, 5:25] = 0.1
        profile = {"driver": "GTiff", "count": 3, "height": 60, "width": 70, "dtype": "float32", "nodata": -9999}
        with rasterio.open(
            tmp_path / f"{bands}.tif", "w", transform=from_origin(0, 9, 1, 1), crs="EPSG:32645", **profile
        ) as file:
            file.write(pixels)
        found = check_fit(tp.open_source(tmp_path / f"{bands}.tif"), card(resolution=None), {})
        assert said(found) == (["note"] if word else [])
        assert not word or word in found[0].text


def test_a_lazy_array_is_not_computed_and_a_broken_one_is_left_to_the_run() -> None:
    def fail(block: Any) -> Any:
        raise AssertionError("computed")

    lazy = da.zeros((3, 64, 64), dtype=np.uint8, chunks=32).map_blocks(
        fail, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    assert check_fit(ArraySource(lazy), STAINED, {}) == []


@pytest.mark.parametrize("name", ["buildings", "forest", "nuclei"])
def test_bundled_models_raise_no_alarm_on_their_own_images(name: str) -> None:
    model = tp.load_model(name)
    found = {}
    for path in sorted(SAMPLES.glob("*.tif")):
        source = tp.open_source(path)
        size, own = source.resolution, model.card.resolution
        if source.shape[0] == model.card.bands and size and own and own / 2 <= size.x <= own * 2:
            found[path.name] = check_fit(source, model.card, {})
    assert not any(found.values())


@pytest.mark.parametrize(
    ("given", "meant"),
    [("0.25um", "0.25 (that is in um)"), ("250nm", "0.25 (that is in um)"), ("30cm", "0.3 (that is in m)"),
     ("0.25 µm/px", "0.25 (that is in um)"), ("fine", "0.25")],
)  # fmt: skip
def test_a_pixel_size_with_its_unit_is_a_sentence(given: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="give it alone") as problem:
        tp.plan(image(0.5), "nuclei", pixel_size=given)  # type: ignore[arg-type]
    assert str(problem.value).endswith(meant)
    assert main(["plan", "x.tif", "-m", "nuclei", "--pixel-size", given]) == 2
    assert "give it alone" in capsys.readouterr().err
