"""The fit table's rows about this machine: memory, disk and time; its short form at the head of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import StorageError
from tilepipe.planning import fit_table, memory
from tilepipe.planning.fit_row import FitRow, short_form
from tilepipe.planning.plan import Plan
from tilepipe.testing import constant_model

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(1, 200, (3, 90, 120), np.uint8)
    pixels[:, :, :30] = 0
    place: dict[str, Any] = {"crs": "EPSG:32645", "transform": from_origin(3e5, 3e6, 1, 1), "nodata": 0}
    path = tmp_path / "in.tif"
    with rasterio.open(path, "w", driver="GTiff", count=3, height=90, width=120, dtype="uint8", **place) as file:
        file.write(pixels)
    return path


def rows(plan: Plan) -> dict[str, FitRow]:
    return {row.name: row for row in plan.fit_table}


def test_every_question_has_a_row(image: Path) -> None:
    found = rows(tp.plan(image, constant_model(0.25, 0.75, bands=3, halo=0), tile=64))
    assert list(found) == ["bands", "values", "pixel size", "place", "nodata", "tiles", "memory", "disk", "time"]
    assert {row.state for row in found.values()} == {"ok"}
    assert found["values"].text == "uint8, 1 to 199 in a sample"
    assert found["place"].text == "WGS 84 / UTM zone 45N"
    assert found["nodata"].text == "25 % of a sample holds no image data"
    free = shutil.disk_usage(image.parent).free
    assert "at most 1 MiB" in found["disk"].text
    assert str(image.parent) in found["disk"].text
    assert free > 0


@pytest.mark.parametrize(
    ("free", "state"), [(0, "refuse"), (50, "refuse"), (2000, "warning"), (GIB, "ok"), (None, "ok")]
)
def test_a_disk_that_is_too_small_is_refused_before_any_work(
    free: int | None, state: str, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_table, "free_space", lambda _folder: free)
    row = rows(tp.plan(image, constant_model(0.25, 0.75, bands=3, halo=0), tile=64))["disk"]
    assert row.state == state
    output = image.with_name("out.tif")
    if state == "refuse":
        with pytest.raises(StorageError, match="name an output on a larger disk"):
            tp.segment(image, constant_model(0.25, 0.75, bands=3, halo=0), output, tile=64)
        assert [path.name for path in image.parent.iterdir()] == ["in.tif"]
        return
    events: list[str] = []
    tp.segment(
        image,
        constant_model(0.25, 0.75, bands=3, halo=0),
        output,
        tile=64,
        listener=lambda event: events.append(event.message),
    )
    assert output.exists()
    assert ("warning: " + row.text in events) == (state == "warning")


def test_a_finished_run_needs_no_disk(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tp.segment(image, constant_model(0.25, 0.75, bands=3, halo=0), image.with_name("out.tif"), tile=64)
    monkeypatch.setattr(fit_table, "free_space", lambda _folder: 50)
    assert (
        tp.segment(image, constant_model(0.25, 0.75, bands=3, halo=0), image.with_name("out.tif"), tile=64).paths
        == first.paths
    )


def test_memory_that_is_not_free_is_said(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_table, "machine_memory", lambda: (GIB // 4, GIB))
    row = rows(tp.plan(image, constant_model(0.25, 0.75, bands=3, halo=0), tile=64))["memory"]
    assert row.state == "warning"
    assert "256 MiB of 1.00 GiB are free" in row.text
    assert "`memory`" in row.text


@pytest.mark.parametrize(("free", "said"), [(50, "0 MiB"), (2 * MIB - 1, "1 MiB"), (2 * GIB - 1, "1.99 GiB")])
def test_no_message_says_that_more_is_free_than_there_is(
    free: int, said: str, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_table, "free_space", lambda _folder: free)
    monkeypatch.setattr(fit_table, "machine_memory", lambda: (free, 2 * GIB))
    found = rows(tp.plan(image, constant_model(0.25, 0.75, bands=3, halo=0), tile=64))
    assert f"{said} are free in {image.parent}" in found["disk"].text
    assert f"{said} of 2.00 GiB are free" in found["memory"].text or found["memory"].text.endswith(
        "of 2.00 GiB, and enough is free"
    )


def test_memory_is_that_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memory.machine_memory()
    assert machine is not None
    assert 0 < machine[0] <= machine[1]
    (tmp_path / "memory.max").write_text(f"{3 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{1 << 20}\n")
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.machine_memory() == (2 << 20, 3 << 20)
    (tmp_path / "memory.max").write_text("max\n")
    found = memory.machine_memory()
    assert found is not None
    assert found[1] > 3 << 20


def test_the_time_comes_from_an_earlier_run_of_the_model(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    model = constant_model(0.25, 0.75, bands=3, halo=0)
    assert "not known yet" in rows(tp.plan(image, model, tile=64))["time"].text
    record = tp.segment(image, model, image.with_name("out.tif"), tile=64).record
    (kept,) = (tmp_path / "cache").glob("throughput-*.json")
    throughput = json.loads(json.loads(kept.read_text())["text"])
    assert throughput["pixels"] == record["tiles"] * 64 * 64
    assert throughput["seconds"] == pytest.approx(record["elapsed_seconds"], abs=0.5)
    assert "at the speed of a run of" in rows(tp.plan(image, model, tile=64))["time"].text
    # The run's own table, made before it, is in run.json.
    assert [row["name"] for row in record["plan"]["fit_table"]][-1] == "time"


def test_the_short_form_names_what_is_ok_and_says_what_is_not() -> None:
    table = [FitRow("bands", "ok", "3"), FitRow("place", "note", "no CRS"), FitRow("tiles", "ok", "9 of 512 px; more")]
    assert list(short_form(table)) == ["fit: bands ok; tiles 9 of 512 px", "note: no CRS"]


def test_the_command_line_prints_the_table(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(image), "-m", "buildings", "--pixel-size", "0.3", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["fit_table"]
    assert {"name": "bands", "state": "ok", "text": "1 red, 2 green, 3 blue"} in table
