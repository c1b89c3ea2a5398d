from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import Resampling
from skimage.transform import resize

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources import resample
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference, Resolution, Source
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.mask import Masked
from tilepipe.sources.resample import Resampled, at_resolution
from tilepipe.testing import FakeSource

SIDE = st.integers(1, 40)
SIZE = st.integers(1, 50)


def random_image(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 250, shape).astype(dtype)


def whole(source: Source) -> Box:
    return Box.of_shape(*source.shape[1:])


@given(SIDE, SIDE, SIZE, SIZE, st.sampled_from(["uint8", "int16", "float32"]), st.booleans(), st.data())
def test_two_boxes_agree_wherever_they_meet(
    h: int, w: int, height: int, width: int, dtype: str, holes: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(h * 41 + w)
    image = (rng.random((2, h, w)) * 1000).astype(dtype)
    valid = rng.random((h, w)) > 0.3 if holes else None
    source = Resampled(ArraySource(image, valid=valid), height, width)
    assert isinstance(source, Source)
    assert source.shape == (2, height, width)
    everything = source.read(whole(source))
    known = source.valid(whole(source))
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    np.testing.assert_array_equal(source.read(Box(y0, x0, y1, x1)), everything[:, y0:y1, x0:x1])
    mask = source.valid(Box(y0, x0, y1, x1))
    expected = np.ones((height, width), bool) if known is None else known
    np.testing.assert_array_equal(np.ones((y1 - y0, x1 - x0)) if mask is None else mask, expected[y0:y1, x0:x1])


@given(
    SIDE, SIDE, SIZE, SIZE, st.sampled_from([("uint8", 255), ("uint16", 65535), ("int16", -32768), ("float32", 0.1)])
)
def test_a_constant_stays_that_constant(h: int, w: int, height: int, width: int, kind: tuple[str, float]) -> None:
    image = np.full((1, h, w), kind[1], kind[0])
    found = Resampled(ArraySource(image), height, width).read(Box(-3, -3, height + 3, width + 3))
    assert (found == image.flat[0]).all()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.integers(1, 7))
def test_an_integer_factor_is_the_block_mean_rounded_half_up(h: int, w: int, fy: int, fx: int) -> None:
    image = random_image((3, h * fy, w * fx))
    sums = image.reshape(3, h, fy, w, fx).astype(int).sum(axis=(2, 4))
    np.testing.assert_array_equal(
        Resampled(ArraySource(image), h, w).read(Box(0, 0, h, w)), (2 * sums + fy * fx) // (2 * fy * fx)
    )


def brute_average(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average by repeating every pixel until both grids fit."""
    fine = np.repeat(np.repeat(image.astype(float), height, axis=0), width, axis=1)
    return fine.reshape(height, image.shape[0], width, image.shape[1]).mean(axis=(1, 3))


@pytest.mark.parametrize(("height", "width"), [(13, 17), (40, 9), (7, 31), (1, 1)])
def test_any_factor_is_the_area_average(height: int, width: int) -> None:
    image = random_image((1, 40, 31), "float32")
    found = Resampled(ArraySource(image), height, width).read(Box(0, 0, height, width))
    np.testing.assert_allclose(found[0], brute_average(image[0], height, width), rtol=1e-6)


def test_shrinking_matches_gdal_and_enlarging_matches_skimage(geotiff: Callable[..., Path]) -> None:
    image = random_image((2, 120, 90), "uint16")
    path = geotiff(image, crs="EPSG:3857", transform=rasterio.Affine(1, 0, 0, 0, -1, 0.5))
    with rasterio.open(path) as dataset:
        gdal = dataset.read(out_shape=(2, 47, 31), resampling=Resampling.average).astype(int)
    found = Resampled(GeoTiffSource(path), 47, 31).read(Box(0, 0, 47, 31)).astype(int)
    assert np.abs(found - gdal).max() <= 1
    larger = Resampled(ArraySource(image), 200, 133).read(Box(0, 0, 200, 133)).astype(int)
    for band in range(2):
        skimage = resize(image[band].astype(float), (200, 133), order=1, mode="edge", anti_aliasing=False)
        assert np.abs(larger[band] - skimage).max() <= 0.5 + 1e-6


def test_the_same_size_gives_the_sources_own_pixels() -> None:
    image = np.full((1, 4, 4), np.nan, np.float32)
    assert np.isnan(Resampled(ArraySource(image), 4, 4).read(Box(0, 0, 4, 4))).all()


def test_only_valid_pixels_are_averaged_and_one_is_enough() -> None:
    image = np.full((1, 4, 6), 10, np.uint8)
    valid = np.ones((4, 6), bool)
    image[0, 0, 1], valid[0, 1] = 250, False
    valid[:2, 4:] = False
    image[0, :2, 4:] = 77
    source = Resampled(ArraySource(image, valid=valid), 2, 3)
    np.testing.assert_array_equal(source.read(Box(0, 0, 2, 3)), [[[10, 10, 77], [10, 10, 10]]])
    np.testing.assert_array_equal(source.valid(Box(0, 0, 2, 3)), [[True, True, False], [True, True, True]])
    outside = source.valid(Box(-1, 0, 2, 3))
    assert outside is not None
    assert not outside[0].any()


@given(SIDE, SIDE, SIZE, SIZE, st.integers(0, 99))
def test_a_pixel_is_valid_where_it_covers_one_that_is_and_averages_those(
    h: int, w: int, height: int, width: int, seed: int
) -> None:
    """Brute force; an axis that is enlarged takes the pixel under the centre."""
    rng = np.random.default_rng(seed)
    valid, image = rng.random((h, w)) > 0.6, rng.integers(0, 255, (1, h, w), dtype=np.uint8)
    source = Resampled(ArraySource(image, valid=valid), height, width)
    mask, pixels = source.valid(Box(0, 0, height, width)), source.read(Box(0, 0, height, width))
    found = np.ones((height, width), bool) if mask is None else mask
    under = [
        [range(k * of // size, -(-(k + 1) * of // size)) if of >= size else [(2 * k + 1) * of // (2 * size)]
         for k in range(size)]
        for of, size in ((h, height), (w, width))
    ]  # fmt: skip
    for y, rows in enumerate(under[0]):
        for x, columns in enumerate(under[1]):
            assert found[y, x] == valid[np.ix_(list(rows), list(columns))].any()
    if height <= h and width <= w:
        share, total = brute_average(valid, height, width), brute_average(valid * image[0], height, width)
        means = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
        assert np.abs(means - pixels[0])[found].max(initial=0) <= 0.5 + 1e-6


def test_not_finite_pixels_do_not_spread() -> None:
    image = np.ones((1, 4, 6), np.float32)
    image[0, 0, 0] = np.nan
    image[0, 3, 3] = np.inf
    image[0, :2, 4:] = np.nan
    source = Resampled(ArraySource(image), 2, 3)
    np.testing.assert_array_equal(source.read(Box(0, 0, 2, 3)), [[[1, 1, np.nan], [1, 1, 1]]])
    np.testing.assert_array_equal(source.valid(Box(0, 0, 2, 3)), [[True, True, False], [True, True, True]])
    everything = Resampled(Masked(ArraySource(image), None), 2, 3)
    np.testing.assert_array_equal(everything.read(Box(0, 0, 2, 3)), source.read(Box(0, 0, 2, 3)))


def test_large_boxes_are_done_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_image((3, 200, 300))
    expected = Resampled(ArraySource(image), 21, 33).read(Box(-2, 0, 21, 33))
    counting = FakeSource(image)
    monkeypatch.setattr(resample, "PIECE_VALUES", 5000)
    np.testing.assert_array_equal(Resampled(counting, 21, 33).read(Box(-2, 0, 21, 33)), expected)
    assert max(box.area for box in counting.reads) * 3 < 2 * 5000
    assert len(counting.reads) > 20


def test_geometry_scales_exactly() -> None:
    where = Georeference("EPSG:32645", (0.5, 0.1, 1000.0, 0.2, -0.5, 2000.0), ((10.0, 20.0, 1.0, 2.0, 0.0),))
    source = Resampled(ArraySource(np.zeros((1, 60, 90), np.uint8), resolution=0.5, georeference=where), 20, 60)
    assert source.resolution == Resolution(1.5, 0.75, "m")
    assert source.scale == (3.0, 1.5)
    known = source.georeference
    assert known is not None
    assert known.transform == pytest.approx((0.75, 0.3, 1000, 0.3, -1.5, 2000))
    assert known.gcps == ((10 / 3, 20 / 1.5, 1.0, 2.0, 0.0),)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.identity() == source.identity()
    assert copy.identity() != Resampled(source.source, 20, 61).identity()


@pytest.mark.parametrize(
    ("resolution", "target", "size"),
    [
        (Resolution(0.5, 0.5), 0.5, None),
        (Resolution(0.5, 0.5), 0.52, None),
        (Resolution(0.5, 0.5), 0.53, (94, 189)),
        (Resolution(0.5, 0.6), 0.5, (100, 240)),  # one axis off is enough
        (Resolution(0.5, 0.5), 1e6, (1, 1)),
        (Resolution(0.5, 0.25), 1.0, (50, 50)),
    ],
)
def test_at_resolution(resolution: Resolution, target: float, size: tuple[int, int] | None) -> None:
    source = ArraySource(np.zeros((1, 100, 200), np.uint8), resolution=resolution)
    found = at_resolution(source, target, "m")
    assert (found is source) is (size is None)
    assert found.shape[1:] == (size or (100, 200))


def test_at_resolution_needs_to_know_the_pixel_size() -> None:
    with pytest.raises(InputError, match=r"does not say how large.*resolution=0\.3"):
        at_resolution(ArraySource(np.zeros((1, 4, 4), np.uint8)), 0.5, "m")
    with pytest.raises(InputError, match=r"0\.25 x 0\.25 um/px, and 0\.3 m per pixel"):
        at_resolution(ArraySource(np.zeros((1, 4, 4), np.uint8), resolution=Resolution(0.25, 0.25, "um")), 0.3, "m")
    with pytest.raises(UsageError, match="1 x 1"):
        Resampled(ArraySource(np.zeros((1, 4, 4), np.uint8)), 0, 3)
