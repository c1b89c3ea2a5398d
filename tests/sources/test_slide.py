"""Slides are lossless and synthetic, so that OpenSlide's own answer and the pixels written can be compared exactly.

Bounds cannot be put into a synthetic file of a format that is easy to write: those tests put the properties in by hand.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from rasterio.errors import NotGeoreferencedWarning

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources import slide_file as slide_module
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.companions import slide_files
from tilepipe.sources.resample import Resampled, at_resolution
from tilepipe.sources.slide import SlideLevel, SlideSource
from tilepipe.sources.slide_file import SlideFile, slide_format

Write = Callable[..., Path]


def smooth(height: int, width: int) -> np.ndarray:
    """(y, x, 3) colours that change slowly, so that a shift of a fraction of a pixel changes them little."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 40 + k) * np.cos(y / 55 - k) for k in range(3)]
    return (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)


def planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)


def random_boxes(height: int, width: int, count: int) -> list[Box]:
    rng = np.random.default_rng(0)
    corners = zip(rng.integers(-30, height, count), rng.integers(-30, width, count), strict=True)
    return [Box(int(y), int(x), int(y + rng.integers(1, 90)), int(x + rng.integers(1, 90))) for y, x in corners]


@pytest.mark.parametrize("aperio", [True, False])
def test_level_0_is_what_was_written_and_what_openslide_reads(slide: Write, noise: Any, aperio: bool) -> None:
    pixels = noise((700, 900, 3))
    path = slide([pixels, pixels[::2, ::2].copy()], aperio=aperio)
    assert slide_format(path) == ("aperio" if aperio else "generic-tiff")
    source = SlideSource(path)
    assert isinstance(source, Source)
    assert (source.shape, source.georeference) == ((3, 700, 900), None)
    padded = np.pad(planes(pixels), ((0, 0), (100, 100), (100, 100)), mode="reflect")
    for box in random_boxes(700, 900, 30):
        np.testing.assert_array_equal(
            source.read(box), padded[:, 100 + box.y0 : 100 + box.y1, 100 + box.x0 : 100 + box.x1]
        )
    with openslide.OpenSlide(path) as handle:
        region = np.asarray(handle.read_region((17, 33), 0, (200, 100)))[..., :3]
    np.testing.assert_array_equal(source.read(Box(33, 17, 133, 217)), planes(region))


def test_eight_threads_read_what_one_reads(slide: Write, noise: Any) -> None:
    pixels = noise((700, 900, 3))
    source = SlideSource(slide([pixels, pixels[::2, ::2].copy()]))
    level = source.coarser(350, 450)
    half = planes(pixels[::2, ::2])
    padded = np.pad(planes(pixels), ((0, 0), (100, 100), (100, 100)), mode="reflect")
    padded_half = np.pad(half, ((0, 0), (100, 100), (100, 100)), mode="reflect")

    def check(box: Box) -> bool:
        cut = np.s_[:, 100 + box.y0 : 100 + box.y1, 100 + box.x0 : 100 + box.x1]
        ok = np.array_equal(source.read(box), padded[cut])
        return ok and (box.y1 > 430 or box.x1 > 530 or np.array_equal(level.read(box), padded_half[cut]))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, random_boxes(700, 900, 300)))


def test_large_boxes_are_rendered_in_pieces(slide: Write, noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise((700, 900, 3))
    monkeypatch.setattr(slide_module, "PIECE_PIXELS", 50_000)
    np.testing.assert_array_equal(SlideSource(slide([pixels])).read(Box(0, 0, 700, 900)), planes(pixels))


# ---- resolution


def test_micrometres_per_pixel_per_axis(slide: Write, noise: Any) -> None:
    path = slide([noise((300, 400, 3))], mpp=0.499)
    assert SlideSource(path).resolution == Resolution(0.499, 0.499, "um")
    assert SlideSource(path, mpp=(0.25, 0.26)).resolution == Resolution(0.25, 0.26, "um")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.2635"}, Resolution(0.2635, 0.25, "um")),
        ({"openslide.objective-power": "40"}, None),  # a nominal magnification is no pixel size
        ({"openslide.mpp-x": "0.25"}, None),
        ({"openslide.mpp-x": "0", "openslide.mpp-y": "0"}, None),
        ({"openslide.mpp-x": "352.7", "openslide.mpp-y": "352.7"}, None),  # 72 dots per inch: a screen, no microscope
        ({"openslide.mpp-x": "nan", "openslide.mpp-y": "0.5"}, None),
        ({"openslide.mpp-x": "?", "openslide.mpp-y": "0.5"}, None),
    ],
)
def test_what_counts_as_a_pixel_size(properties: dict[str, str], expected: Resolution | None) -> None:
    assert slide_module.micrometres(properties) == expected


def test_no_mpp_in_the_file_is_none_and_resampling_says_how_to_state_it(slide: Write, noise: Any) -> None:
    source = SlideSource(slide([noise((300, 400, 3))], mpp=None))
    assert source.resolution is None
    with pytest.raises(InputError, match=r"mpp=0\.25"):
        at_resolution(source, 0.5, "um")


# ---- levels


def test_coarser_is_the_smallest_level_that_is_large_enough(slide: Write) -> None:
    pixels = smooth(1024, 1536)
    source = SlideSource(slide([pixels, pixels[::2, ::2].copy(), pixels[::4, ::4].copy()]))
    assert source.coarser(1024, 1536) is source
    assert source.coarser(513, 768) is source
    assert source.coarser(512, 768).shape == (3, 512, 768)
    assert source.coarser(300, 300).shape == (3, 512, 768)
    assert source.coarser(1, 1).shape == (3, 256, 384)
    np.testing.assert_array_equal(source.coarser(256, 384).read(Box(0, 0, 256, 384)), planes(pixels[::4, ::4]))
    assert source.coarser(1, 1).resolution == Resolution(2.0, 2.0, "um")
    assert source.coarser(1, 1).coarser(512, 768).shape == (3, 512, 768)


def test_a_level_of_odd_size_keeps_its_exact_scale_and_does_not_depend_on_the_box(slide: Write) -> None:
    pixels = smooth(1025, 4093)
    level_1 = pixels[:1024:4, :4092:4].copy()
    source = SlideSource(slide([pixels, level_1]))
    level = source.coarser(256, 1023)
    assert level.shape == (3, 256, 1023)
    assert level.resolution == Resolution(0.5 * 1025 / 256, 0.5 * 4093 / 1023, "um")
    whole = level.read(Box(0, 0, 256, 1023))
    # OpenSlide takes whole level-0 pixels only, so blocks may be shifted by a quarter of a pixel of the level
    assert np.abs(whole.astype(int) - planes(level_1)).max() <= 3
    assert level.valid(Box(0, 0, 256, 1023)) is None
    for box in random_boxes(256, 1023, 40):
        inside = box & Box(0, 0, 256, 1023)
        if inside is None:
            continue
        np.testing.assert_array_equal(level.read(inside), whole[(slice(None), *inside.slices_in(Box(0, 0, 256, 1023)))])


def test_the_nearest_level_is_used_as_it_is_within_five_percent(slide: Write) -> None:
    pixels = smooth(1023, 1535)
    source = SlideSource(slide([pixels, pixels[:1022:2, :1534:2].copy()], mpp=0.25))
    found = at_resolution(source, 0.5, "um")
    assert found.shape == (3, 511, 767)  # 1023 / 2 rounds to 512, which the level misses by one row
    np.testing.assert_array_equal(found.read(Box(0, 0, 200, 200)), planes(pixels[:400:2, :400:2]))
    assert at_resolution(source, 0.6, "um").shape == (3, 426, 640)


def test_resampling_from_a_level_stays_in_place(slide: Write) -> None:
    pixels = smooth(600, 900)
    level = pixels.reshape(300, 2, 450, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    source = SlideSource(slide([pixels, level]))
    found = Resampled(source, 180, 270).read(Box(0, 0, 180, 270)).astype(int)
    direct = Resampled(SlideSource(slide([pixels], "b.svs")), 180, 270).read(Box(0, 0, 180, 270)).astype(int)
    assert np.abs(found - direct).max() <= 2


# ---- validity


def empty_tile(path: Path, page: int = 0, tile: int = 0) -> None:
    """Make one tile of a slide missing, as scanners leave out empty glass."""
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages[page].databytecounts)
        counts[tile] = 0
        file.pages[page].tags["TileByteCounts"].overwrite(counts)


def test_missing_tiles_are_white_and_not_valid(slide: Write, noise: Any) -> None:
    pixels = noise((512, 512, 3))
    path = slide([pixels])
    empty_tile(path)
    source = SlideSource(path)
    expected = planes(pixels).copy()
    expected[:, :256, :256] = 255
    valid = np.ones((512, 512), bool)
    valid[:256, :256] = False
    np.testing.assert_array_equal(source.read(Box(0, 0, 512, 512)), expected)
    np.testing.assert_array_equal(source.valid(Box(0, 0, 512, 512)), valid)
    np.testing.assert_array_equal(source.valid(Box(200, 200, 300, 300)), valid[200:300, 200:300])
    assert source.valid(Box(256, 256, 512, 512)) is None
    outside = source.valid(Box(-10, 300, 10, 310))
    assert outside is not None
    assert (outside.sum(), outside[10:].all()) == (100, True)


def test_alpha_is_composited_on_the_slides_background() -> None:
    source = SlideFile.__new__(SlideFile)
    source._background = np.array([10, 200, 255], np.uint16)
    rgba = np.array([[[100, 100, 100, 255], [100, 100, 100, 0], [100, 100, 100, 128]]], np.uint8)
    expected = [[100, 100, 100], [10, 200, 255], [55, 150, 177]]
    np.testing.assert_array_equal(source._composite(rgba)[:, 0].T, expected)


class Bounded(openslide.OpenSlide):
    """A slide that says that only part of its canvas was scanned, as MIRAX and Leica SCN do."""

    @property
    def properties(self) -> Any:
        where = {"x": "101", "y": "50", "width": "300", "height": "401"}
        return {**super().properties, **{f"openslide.bounds-{name}": value for name, value in where.items()}}


def test_outside_the_bounds_is_not_valid_and_the_canvas_stays_whole(
    slide: Write, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise((512, 512, 3))
    monkeypatch.setattr(openslide, "OpenSlide", Bounded)
    source = SlideSource(slide([pixels, pixels[::4, ::4].copy()]))
    assert source.shape == (3, 512, 512)
    assert source.bounds == Box(50, 101, 451, 401)
    np.testing.assert_array_equal(source.read(Box(0, 0, 512, 512)), planes(pixels))
    expected = np.zeros((512, 512), bool)
    expected[50:451, 101:401] = True
    np.testing.assert_array_equal(source.valid(Box(0, 0, 512, 512)), expected)
    assert source.valid(Box(60, 110, 200, 200)) is None
    assert not np.asarray(source.valid(Box(0, 0, 40, 40))).any()
    level = source.coarser(128, 128)
    inner = np.zeros((128, 128), bool)
    inner[12:113, 25:101] = True  # pixels of the level that touch the bounds
    np.testing.assert_array_equal(level.valid(Box(0, 0, 128, 128)), inner)
    np.testing.assert_array_equal(Resampled(source, 128, 128).valid(Box(0, 0, 128, 128)), inner)


# ---- trouble


def jpeg_slide(path: Path, pixels: np.ndarray) -> tuple[int, int]:
    """Write a slide of four JPEG tiles through GDAL, and return where the second one lies in the file."""
    profile = {"count": 3, "height": 512, "width": 512, "dtype": "uint8", "tiled": True, "compress": "jpeg"}
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(path, "w", driver="GTiff", photometric="ycbcr", **profile) as file,
    ):
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION="Aperio Image Library v11.2.1\n512x512 -> |AppMag = 20|MPP = 0.5")
        file.write(planes(pixels))
    with tifffile.TiffFile(path) as file:
        return file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]


def test_a_corrupt_tile_is_named_and_the_rest_still_reads(tmp_path: Path) -> None:
    path = tmp_path / "bad.svs"
    start, length = jpeg_slide(path, smooth(512, 512))
    whole = SlideSource(path).read(Box(0, 0, 512, 512))
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\x00" * length
    path.write_bytes(content)
    source = SlideSource(path)
    for _ in range(2):
        with pytest.raises(InputError, match=r"bad\.svs cannot be read at level 0, rows 10 to 50, columns 300 to 400"):
            source.read(Box(10, 300, 50, 400))
        np.testing.assert_array_equal(source.read(Box(0, 0, 512, 256)), whole[:, :, :256])


def test_a_truncated_slide_is_refused_or_named(slide: Write, noise: Any) -> None:
    path = slide([noise((512, 512, 3))])
    os.truncate(path, 300_000)  # of about 800 kB: the directory may be at either end
    with pytest.raises(InputError, match=r"a\.svs"):
        SlideSource(path).read(Box(0, 0, 512, 512))


def test_what_is_no_slide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.svs"
    path.write_text("not a slide")
    assert slide_format(path) is None
    with pytest.raises(InputError, match=r"text\.svs cannot be opened as a slide"):
        SlideSource(path)
    with pytest.raises(InputError, match="does not exist"):
        SlideSource(tmp_path / "none.svs")


def test_pickled_and_forked_slides_open_their_own_handle(slide: Write, noise: Any) -> None:
    pixels = noise((512, 600, 3))
    source = SlideSource(slide([pixels, pixels[::2, ::2].copy()]))
    level = source.coarser(1, 1)
    assert isinstance(level, SlideLevel)
    source.read(Box(0, 0, 10, 10))
    copy = pickle.loads(pickle.dumps(level))
    np.testing.assert_array_equal(copy.read(Box(20, 30, 100, 100)), planes(pixels[::2, ::2])[:, 20:100, 30:100])
    assert copy.identity() == level.identity() != source.identity()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os._exit(0 if np.array_equal(source.read(Box(0, 0, 512, 600)), planes(pixels)) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_identity_follows_all_files_of_a_slide(slide: Write, noise: Any, tmp_path: Path) -> None:
    path = slide([noise((300, 300, 3))])
    before = SlideSource(path).identity()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"pixels")
    assert slide_files(path, "mirax") == [tmp_path / "a" / "Data0000.dat", path]
    assert SlideSource(path).identity() == before
    (tmp_path / "other.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "labels.tif").write_bytes(b"II*\x00")
    assert slide_files(tmp_path / "other.dcm", "dicom") == [tmp_path / "other.dcm"]
    again = SlideSource(slide([noise((300, 300, 3), seed=1)]))
    assert again.identity() != before


def test_a_pyramid_without_a_stored_tile_has_its_whole_canvas(tmp_path: Path) -> None:
    """OpenSlide states bounds of no pixels for it."""
    path = tmp_path / "sparse.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        layout: Any = {"width": 3000, "height": 2000, "count": 3, "dtype": "uint8", "tiled": True, "SPARSE_OK": True}
        rasterio.open(path, "w", driver="GTiff", **layout).close()
        assert SlideSource(path).bounds == Box(0, 0, 2000, 3000)
