"""Rulers: rings that are measured together are measured as each one alone, long edges or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.ruler import Ruler
from tilepipe.sources.base import Georeference, Resolution

UTM = Georeference(CRS.from_epsg(32645).to_wkt(), (30.0, 0.0, 335_000.0, 0.0, -30.0, 3_058_000.0))
LEGEND = Legend("a", ("background", "shape"), ((0, 0, 0), (255, 0, 0)), 255)
LABELS = label_map_of(np.zeros((8, 8), np.uint8), LEGEND, georeference=UTM, resolution=Resolution(30.0, 30.0))


@given(st.lists(st.tuples(*[st.integers(0, 600)] * 2, *[st.integers(1, 500)] * 2), min_size=1, max_size=6))
def test_rings_together_are_measured_as_each_alone(boxes: list[tuple[int, int, int, int]]) -> None:
    ruler = Ruler.of(LABELS)
    assert ruler.unit == "m"
    rings = [np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]], float) for x, y, w, h in boxes]
    areas, lengths = ruler.measure([[ring] for ring in rings])
    alone = [ruler.measure([[ring]]) for ring in rings]
    np.testing.assert_array_equal(areas, [one[0][0] for one in alone])
    np.testing.assert_array_equal(lengths, [one[1][0] for one in alone])
    for area, (_, _, width, height) in zip(areas, boxes, strict=True):
        assert area == pytest.approx(width * height * 900, rel=2e-3), "the scale of the projection differs by so much"
