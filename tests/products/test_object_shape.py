"""The shape of an object against scikit-image's measures of its pixels, and GEOS's convex hull."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize
from skimage.measure import label, regionprops

from tilepipe.box import Box
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.object_shape import bounds, mask_of, shape_of
from tilepipe.products.outline import Outline
from tilepipe.products.outlines import outlines

LEGEND = Legend("cells", ("background", "cell"), ((9, 9, 9), (213, 94, 0)), 255)


def found(mask: NDArray[np.bool_]) -> list[Outline]:
    return list(outlines(label_map_of(mask.astype(np.uint8), LEGEND)))


@given(st.integers(1, 25), st.integers(1, 25), st.integers(0, 999), st.sampled_from([0.3, 0.6, 0.9]))
def test_shapes_are_those_of_the_pixels(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    truth = {region.coords[0].tolist().__str__(): region for region in regionprops(label(mask, connectivity=1))}
    shapes = found(mask)
    assert len(shapes) == len(truth)
    for one in shapes:
        shape = shape_of(one.rings)
        inside = np.add(np.argwhere(mask_of(one.rings, shape.box)), (shape.box.y0, shape.box.x0))
        region = truth[str(inside[0].tolist())]
        np.testing.assert_array_equal(inside, region.coords[np.lexsort(region.coords.T[::-1])])
        assert shape.box.to_list() == list(region.bbox)
        assert shape.pixels == region.area
        assert (shape.y - 0.5, shape.x - 0.5) == pytest.approx(region.centroid)
        assert shape.eccentricity == pytest.approx(region.eccentricity, abs=1e-6)
        polygon = shapely.Polygon(one.rings[0], one.rings[1:])
        assert shape.solidity == pytest.approx(polygon.area / polygon.convex_hull.area)


@given(st.integers(0, 999), st.integers(-8, 12), st.integers(-8, 12), st.integers(1, 30), st.integers(1, 30))
def test_masks_of_any_box_are_those_of_gdal(seed: int, y: int, x: int, height: int, width: int) -> None:
    mask = np.kron(np.random.default_rng(seed).random((5, 5)) < 0.7, np.ones((3, 3), bool))
    box = Box(y, x, y + height, x + width)
    for one in found(mask):
        polygon = shapely.transform(shapely.Polygon(one.rings[0], one.rings[1:]), lambda points: points - (x, y))
        np.testing.assert_array_equal(mask_of(one.rings, box), rasterize([polygon], box.shape, dtype="uint8"))


def test_bounds_are_whole_pixels() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:5, 3:8] = True
    assert bounds(found(mask)[0].rings) == Box(2, 3, 5, 8)
