from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources import png_jpeg
from tilepipe.sources.base import Resolution
from tilepipe.sources.png_jpeg import PictureSource

WHOLE = Box(0, 0, 30, 40)


@pytest.mark.parametrize(("shape", "bands"), [((30, 40), 1), ((30, 40, 3), 3)])
def test_png_as_stored(tmp_path: Path, noise: Any, shape: tuple[int, ...], bands: int) -> None:
    pixels = noise(shape)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = PictureSource(tmp_path / "a.png", resolution=0.5)
    assert (source.shape, source.valid(WHOLE)) == ((bands, 30, 40), None)
    assert source.resolution == Resolution(0.5, 0.5, "m")
    np.testing.assert_array_equal(source.read(WHOLE), np.atleast_3d(pixels).transpose(2, 0, 1))


def test_16_bit_grey_and_1_bit(tmp_path: Path, noise: Any) -> None:
    pixels = noise((30, 40), "uint16")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(PictureSource(tmp_path / "a.png").read(WHOLE)[0], pixels)
    Image.fromarray(pixels > 30000).save(tmp_path / "b.png")
    np.testing.assert_array_equal(PictureSource(tmp_path / "b.png").read(WHOLE)[0], (pixels > 30000).astype(np.uint8))


def test_alpha_is_validity(tmp_path: Path, noise: Any) -> None:
    pixels = noise((30, 40, 4))
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert PictureSource(tmp_path / "a.png").valid(WHOLE) is None
    pixels[3:5, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = PictureSource(tmp_path / "a.png")
    assert source.shape == (3, 30, 40)
    np.testing.assert_array_equal(source.valid(WHOLE), pixels[..., 3] > 0)


@pytest.mark.parametrize(
    ("shape", "dtype", "clear"), [((30, 40), "uint8", 7), ((30, 40), "uint16", 9), ((30, 40, 3), "uint8", (7, 9, 7))]
)
def test_the_transparent_colour_of_a_png_is_no_data_as_gdal_has_it(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, clear: Any
) -> None:
    pixels = np.random.default_rng(0).integers(6, 11, shape).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=clear)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "a.png") as dataset:
            bands = dataset.read_masks()
    assert 0 < (bands == 0).all(0).sum() < 1200
    np.testing.assert_array_equal(PictureSource(tmp_path / "a.png").valid(WHOLE), bands.any(0))


def test_jpeg_is_what_pillow_decodes(tmp_path: Path, noise: Any) -> None:
    Image.fromarray(noise((30, 40, 3))).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(PictureSource(tmp_path / "a.jpg").read(WHOLE), np.array(image).transpose(2, 0, 1))


def test_palettes(tmp_path: Path, noise: Any) -> None:
    pixels = noise((30, 40)) % 4
    image = Image.fromarray(pixels).convert("P")
    image.putdata(pixels.ravel())
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "p.png")
    with pytest.raises(InputError, match=r"p\.png has a colour palette"):
        PictureSource(tmp_path / "p.png")
    np.testing.assert_array_equal(PictureSource(tmp_path / "p.png", allow_palette=True).read(WHOLE)[0], pixels)


def test_refusals(tmp_path: Path, noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise((30, 40, 3))).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.png cannot be read"):
        PictureSource(path)
    Image.fromarray(noise((30, 40, 4)), "CMYK").save(tmp_path / "c.jpg")
    with pytest.raises(InputError, match="kind CMYK"):
        PictureSource(tmp_path / "c.jpg")
    path.write_bytes(content)
    monkeypatch.setattr(png_jpeg, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="1200 pixels"):
        PictureSource(path)


def test_sixteen_bit_colours_are_not_cut_to_eight(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(2 * 6) for _ in range(2))
    head = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    with pytest.raises(InputError, match="16 bit colours"):
        PictureSource(tmp_path / "a.png")


def test_pickled_by_path(tmp_path: Path, noise: Any) -> None:
    Image.fromarray(noise((300, 400, 3))).save(tmp_path / "a.png")
    source = PictureSource(tmp_path / "a.png", resolution=0.5)
    packed = pickle.dumps(source)
    assert len(packed) < 1000
    copy = pickle.loads(packed)
    assert (copy.identity(), copy.resolution) == (source.identity(), source.resolution)
    np.testing.assert_array_equal(copy.read(WHOLE), source.read(WHOLE))


def test_a_size_with_16_in_it_is_no_16_bit_picture(tmp_path: Path) -> None:
    pixels = np.full((16, 216, 3), 7, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = PictureSource(tmp_path / "a.png")
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(source.read(Box(0, 0, 16, 216)), pixels.transpose(2, 0, 1))
