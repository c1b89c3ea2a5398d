"""Speeds: measured once, kept, thrown away when damaged. What takes how long is not asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilepipe.errors import DeviceError
from tilepipe.inference.device import Compute
from tilepipe.inference.profile import speed
from tilepipe.inference.profile.speed import seconds, speeds, takes
from tilepipe.models.model import Model
from tilepipe.testing import constant_model, random_unet

CPU = Compute("cpu", "fp32", 1, 0)
SIZES = (64, 96, 128)


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes that were timed; a pixel takes a microsecond, 128 px do not fit."""
    calls: list[int] = []

    def fake(model: Model, size: int, compute: Compute) -> float:
        calls.append(size)
        if size == 128:
            raise DeviceError("too large")
        return 1e-6 * size**2

    monkeypatch.setattr(speed, "seconds", fake)
    monkeypatch.setattr(speed, "_KNOWN", {})
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path))
    return calls


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process."""
    monkeypatch.setattr(speed, "_KNOWN", {})


def test_measured_once_and_kept(timed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = constant_model(0.5, 0.5)
    found = speeds(model, SIZES, CPU)
    assert found == pytest.approx({64: 1e-6, 96: 1e-6})
    assert timed == [64, 64, 128, 96]
    assert speeds(model, SIZES, CPU) == found
    forget(monkeypatch)
    assert speeds(model, SIZES, CPU) == found, "exactly, or another process would choose another tile"
    assert len(timed) == 4
    for other in ((constant_model(0.4, 0.6), SIZES, CPU), (model, SIZES[:2], CPU)):
        speeds(*other)
    speeds(model, SIZES, Compute("cpu", "fp32", 2, 0))
    assert timed.count(96) == 4


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"64": "fast"}', '{"64": -1}', '{"64": NaN}', '{"1": 1.0}', '{"x": 1}']
)
def test_what_is_damaged_is_measured_again(
    text: str, timed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = constant_model(0.5, 0.5)
    found = speeds(model, SIZES, CPU)
    (kept,) = tmp_path.iterdir()
    kept.write_text(text)
    forget(monkeypatch)
    assert speeds(model, SIZES, CPU) == found
    assert timed.count(64) == 4


def test_without_a_place_to_keep_them_they_hold_for_the_process(
    timed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        speeds(constant_model(0.5, 0.5), SIZES, CPU)
    assert timed.count(64) == 2


def test_sizes_that_take_too_long_are_left_out(timed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "TIME", -1.0)
    assert set(speeds(constant_model(0.5, 0.5), SIZES, CPU)) == {64}


def test_time_is_taken_of_the_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_unet()
    assert seconds(model, 64, CPU) > 0
    assert takes(model, 64, CPU)
    assert not takes(Model(model.card.model_copy(update={"classes": ("a",)}), model.module), 64, CPU)
