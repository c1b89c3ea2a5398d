"""Bars and axis of the sizes of objects, against the sizes themselves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.products.numbers import ClassNumbers, Numbers
from tilepipe.products.report.histogram import HEIGHT, WIDTH, area, histograms


def numbers(sizes: tuple[int, ...], pixels: int, area: float | None = None, unit: str = "") -> Numbers:
    one = ClassNumbers(1, "roof", pixels, 1.0, area, sum(sizes), None, sizes)
    return Numbers((one,), 0, unit)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any), st.sampled_from([1e-6, 0.07, 900.0]))
def test_each_bar_has_its_count_and_place(sizes: list[int], each: float) -> None:
    while not sizes[-1]:
        sizes.pop()
    pixels = sum(count << k for k, count in enumerate(sizes))
    (found,) = histograms(numbers(tuple(sizes), pixels, pixels * each, "m2"))
    counts = [int(bar.text.split(" of ")[0].replace(",", "")) for bar in found.bars]
    assert counts == [count for count in sizes if count]
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH and bar.height > 0 for bar in found.bars)
    assert max(bar.height for bar in found.bars) == HEIGHT
    assert all(bar.y + bar.height == pytest.approx(HEIGHT, abs=0.02) for bar in found.bars)
    assert found.caption.startswith(f"{sum(sizes):,} object")


def test_the_axis_has_powers_of_ten_at_their_places() -> None:
    (found,) = histograms(numbers((0, 4, 2, 0, 0, 0, 1), 100, 50.0, "m2"))
    (tick,) = found.ticks
    assert tick.text == "10 m²"
    assert tick.x == pytest.approx((math.log2(10 / 0.5) - 1) / 6 * WIDTH, abs=0.01)
    assert found.bars[0].text == "4 of 1 m² to 2 m²"


def test_areas_are_in_the_unit_that_suits_them() -> None:
    assert [area(value, "m2") for value in (0.25, 12.34, 1234, 25_000, 3.21e6)] == [
        "0.25 m²", "12.3 m²", "1,234 m²", "2.5 ha", "3.21 km²",
    ]  # fmt: skip
    assert [area(value, "um2") for value in (55.5, 2.5e6)] == ["55.5 µm²", "2.5 mm²"]
    assert histograms(numbers((3,), 3))[0].caption == "3 objects, 1 px on average; 3 in the highest bar"
    assert histograms(Numbers((), 0, "")) == []
