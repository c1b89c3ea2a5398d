"""From the prediction grid to the output grid: which pixel, and where on the ground."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from helpers.fakes import plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from tilepipe.box import Box
from tilepipe.execution.output_grid import label_map
from tilepipe.products.label_map import LabelMap
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.testing import codes_model, constant_model

AFFINE = (0.25, 0.1, 335000.1, 0.1, -0.25, 3058000.7)
GCPS = ((0.0, 0.0, 10.0, 50.0, 0.0), (90.0, 120.0, 10.1, 49.9, 5.0), (45.0, 7.5, 10.01, 49.95, 0.0))


def map_of(
    shape: tuple[int, int], predicted: tuple[int, int], output: tuple[int, int], region: Box, **place: Any
) -> tuple[LabelMap, np.ndarray]:
    """Return the label map of a region and the labels of the whole prediction grid, all different."""
    model = constant_model(*[1 / 7] * 7)
    source = ArraySource(np.zeros(shape, np.uint8), **place)
    plan = replace(plan_of(source, model), predicted=predicted, output=output, region=region, label_dtype="uint16")
    whole = np.arange(predicted[0] * predicted[1], dtype=np.uint16).reshape(predicted)
    part = plan.predicted_region

    def read(box: Box) -> Any:
        assert part.contains(box), "only what is predicted is read"
        return whole[box.y0 : box.y1, box.x0 : box.x1]

    return label_map(plan, model.card, source, read), whole


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=100, deadline=None)
@given(shape=sizes, predicted=sizes, output=sizes, data=st.data())
def test_an_output_pixel_is_that_under_its_centre(
    shape: tuple[int, int], predicted: tuple[int, int], output: tuple[int, int], data: st.DataObject
) -> None:
    """Brute force with fractions, for any three grids and any region, read by any box."""
    y0, x0 = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    region = Box(y0, x0, data.draw(st.integers(y0 + 1, shape[0])), data.draw(st.integers(x0 + 1, shape[1])))
    found, whole = map_of(shape, predicted, output, region)
    height, width = found.shape
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(top, left, data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width)))
    first = [int(start * Fraction(of, size)) for start, of, size in zip((y0, x0), output, shape, strict=True)]
    rows, columns = (
        [int((first[axis] + k + Fraction(1, 2)) * Fraction(predicted[axis], output[axis])) for k in range(*span)]
        for axis, span in enumerate(((box.y0, box.y1), (box.x0, box.x1)))
    )
    assert (found.read(box) == whole[np.array(rows)[:, None], np.array(columns)[None, :]]).all()


def test_the_whole_image_has_the_very_georeference() -> None:
    place = Georeference("a crs", AFFINE)
    found, _ = map_of((90, 120), (31, 41), (90, 120), Box(0, 0, 90, 120), georeference=place)
    assert found.georeference is place
    assert (found.origin, found.scale) == ((0, 0), (1.0, 1.0))


def test_a_region_is_shifted_by_whole_pixels() -> None:
    place = Georeference("a crs", AFFINE)
    found, _ = map_of((90, 120), (31, 41), (90, 120), Box(11, 7, 50, 60), georeference=place)
    assert found.georeference is not None
    assert found.georeference.transform == tuple(Affine(*AFFINE) * Affine.translation(7, 11))[:6]
    assert (found.origin, found.scale, found.georeference.crs) == ((11, 7), (1.0, 1.0), "a crs")


def test_another_resolution_covers_the_same_ground() -> None:
    place = Georeference("a crs", AFFINE)
    own = Resolution(0.3, 0.25, "m")
    found, _ = map_of((90, 120), (31, 41), (31, 41), Box(0, 0, 90, 120), georeference=place, resolution=own)
    assert found.georeference is not None
    assert found.georeference.transform is not None
    assert np.allclose(Affine(*found.georeference.transform) * (41, 31), Affine(*AFFINE) * (120, 90), rtol=0, atol=1e-9)
    assert found.scale == (90 / 31, 120 / 41)
    assert found.resolution == Resolution(0.3 * 90 / 31, 0.25 * 120 / 41, "m")


def test_a_region_at_another_resolution() -> None:
    place = Georeference("a crs", AFFINE)
    found, _ = map_of((90, 120), (45, 40), (45, 40), Box(10, 9, 51, 60), georeference=place)
    assert found.shape == (26 - 5, 20 - 3)
    assert found.origin == (10, 9)
    assert found.georeference is not None
    assert found.georeference.transform is not None
    assert np.allclose(Affine(*found.georeference.transform) * (0, 0), Affine(*AFFINE) * (9, 10))
    assert np.allclose(Affine(*found.georeference.transform) * (17, 21), Affine(*AFFINE) * (60, 52))


def test_control_points_move_along() -> None:
    place = Georeference("a crs", None, GCPS)
    found, _ = map_of((90, 120), (45, 40), (45, 40), Box(10, 9, 51, 60), georeference=place)
    assert found.georeference is not None
    for (row, column, *ground), (row0, column0, *ground0) in zip(found.georeference.gcps, GCPS, strict=True):
        assert ground == ground0
        assert np.allclose((row * 2 + 10, column * 3 + 9), (row0, column0))


def test_legend_and_blocks() -> None:
    model = codes_model(7)
    plan = plan_of(ArraySource(np.zeros((90, 120), np.uint8)), model, tile=32, overlap=8, block=40)
    found = label_map(plan, model.card, ArraySource(np.zeros((90, 120), np.uint8)), lambda box: np.zeros(box.shape))
    assert found.legend.classes == model.card.classes
    assert (found.legend.nodata, found.dtype) == (255, np.uint8)
    assert found.block == (plan.grid.y.zone, plan.grid.x.zone)
    assert found.georeference is None
