from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.bands import bands_of, read_of
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.ome_tiff import TiffSource, is_ome_tiff, physical_size

SIZE = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm"}


@pytest.fixture
def ome(tmp_path: Path) -> Callable[..., Path]:
    """Write an OME-TIFF; further levels become SubIFDs."""

    def write(levels: list[np.ndarray], axes: str, name: str = "a.ome.tif", channels: Any = (), **options: Any) -> Path:
        named = {"Channel": {"Name": channels}} if channels else {}
        options = {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack", **options}
        with tifffile.TiffWriter(tmp_path / name, ome=True) as file:
            file.write(levels[0], subifds=len(levels) - 1, metadata={"axes": axes, **SIZE, **named}, **options)
            for level in levels[1:]:
                file.write(level, subfiletype=1, **options)
        return tmp_path / name

    return write


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_channels_on_pages_with_levels(ome: Callable[..., Path], noise: Any, dtype: str) -> None:
    pixels = noise((5, 200, 300), dtype)
    half = pixels[:, ::2, ::2].copy()
    path = ome([pixels, half], "CYX")
    assert is_ome_tiff(path)
    source = TiffSource(path)
    assert isinstance(source, Source)
    assert (source.shape, source.dtype.name) == ((5, 200, 300), dtype)
    assert source.resolution == Resolution(0.25, 0.5, "um")
    np.testing.assert_array_equal(source.read(Box(3, 5, 120, 270)), pixels[:, 3:120, 5:270])
    padded = np.pad(pixels, ((0, 0), (9, 0), (0, 9)), mode="reflect")
    np.testing.assert_array_equal(source.read(Box(-9, 200, 50, 309)), padded[:, :59, 200:])
    level = source.coarser(80, 150)
    assert level.resolution == Resolution(0.5, 1.0, "um")
    np.testing.assert_array_equal(level.read(Box(0, 0, 100, 150)), half)
    assert source.coarser(101, 100) is source


def test_colours_within_a_page(ome: Callable[..., Path], noise: Any) -> None:
    pixels = noise((200, 300, 3))
    source = TiffSource(ome([pixels], "YXS", photometric="rgb"))
    np.testing.assert_array_equal(source.read(Box(0, 0, 200, 300)), pixels.transpose(2, 0, 1))
    assert [band.meaning for band in bands_of(source)] == ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("axes", "shape", "names"),
    [("YXS", (200, 300, 4), ["red", "green", "blue"]), ("CYXS", (2, 200, 300, 3), 2 * ["red", "green", "blue"])],
)
def test_each_band_that_is_read_has_its_name(
    axes: str, shape: tuple[int, ...], names: list[str], ome: Callable[..., Path], noise: Any
) -> None:
    """Alpha is no band, and colours of several channels are bands each."""
    path = ome([noise(shape)], axes, photometric="rgb", **({"extrasamples": ["unassalpha"]} if shape[-1] == 4 else {}))
    source = tp.open_source(path)
    assert [band.colour for band in bands_of(source)] == names
    assert source.shape[0] == len(names)
    assert main(["info", str(path)]) == 0


def test_channels_are_picked_by_their_names(ome: Callable[..., Path], noise: Any) -> None:
    pixels = noise((3, 200, 300))
    path = ome([pixels], "CYX", channels=["DAPI", "FITC", "Cy5"])
    assert [str(band) for band in bands_of(TiffSource(path))] == ["DAPI", "FITC", "Cy5"]
    picked = tp.open_source(path, bands="Cy5,DAPI")
    np.testing.assert_array_equal(picked.read(Box(0, 0, 200, 300)), pixels[[2, 0]])
    assert [str(band) for band in read_of(TiffSource(path, bands=(2,))).values()] == ["FITC"]
    with pytest.raises(tp.TilepipeError, match="FITC"):
        tp.open_source(path, bands="TRITC")


def test_planes_must_be_picked_and_bands_may_be(ome: Callable[..., Path], noise: Any) -> None:
    pixels = noise((3, 2, 70, 80))  # z, c
    path = ome([pixels], "ZCYX")
    with pytest.raises(InputError, match=r"3 planes along z; pick one with `z`, from 0 to 2"):
        TiffSource(path)
    source = TiffSource(path, z=1)
    np.testing.assert_array_equal(source.read(Box(0, 0, 70, 80)), pixels[1])
    second = TiffSource(path, z=2, bands=(2, 1))
    np.testing.assert_array_equal(second.read(Box(0, 0, 70, 80)), pixels[2, ::-1])
    assert second.identity() != source.identity()
    with pytest.raises(UsageError, match="z=3 was asked for"):
        TiffSource(path, z=3)
    with pytest.raises(UsageError, match="bands 1 to 2"):
        TiffSource(path, z=0, bands=(3,))


def test_threads_and_pickling(ome: Callable[..., Path], noise: Any) -> None:
    pixels = noise((3, 200, 300))
    source = pickle.loads(pickle.dumps(TiffSource(ome([pixels], "CYX"))))
    asked = [Box(y, x, y + 50, x + 60) for y in range(0, 150, 7) for x in range(0, 240, 31)]
    with ThreadPoolExecutor(8) as pool:
        for box, found in zip(asked, pool.map(source.read, asked), strict=True):
            np.testing.assert_array_equal(found, pixels[:, box.y0 : box.y1, box.x0 : box.x1])


def test_files_that_are_not_whole(ome: Callable[..., Path], noise: Any, tmp_path: Path) -> None:
    path = ome([noise((3, 200, 300))], "CYX")
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, noise((20, 30)))
    assert not is_ome_tiff(plain)
    assert not is_ome_tiff(tmp_path / "none.tif")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.ome\.tif"):
        TiffSource(path).read(Box(0, 0, 200, 300))


NAMESPACE = 'xmlns:OME="http://www.openmicroscopy.org/Schemas/OME/2016-06"'


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ('<Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.25" SizeX="3"/>', Resolution(0.25, 0.5, "um")),
        ('<OME:Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.25"></OME:Pixels>', Resolution(0.25, 0.5, "um")),
        ('<Pixels PhysicalSizeX="0.5" PhysicalSizeXUnit="mm" PhysicalSizeY="2"/>', Resolution(2, 500, "um")),
        ("<Pixels PhysicalSizeX='0.5' PhysicalSizeY = '0.5'/>", Resolution(0.5, 0.5, "um")),
        ('<!-- <Pixels PhysicalSizeX="9" PhysicalSizeY="9"/> --><Pixels PhysicalSizeX="1" PhysicalSizeY="1"/>',
         Resolution(1, 1, "um")),
        ('<Pixels PhysicalSizeX="1" PhysicalSizeY="1" Name="a &gt; b"/>', Resolution(1, 1, "um")),
        ('<Pixels PhysicalSizeX="0.5"/>', None),
        ('<Pixels PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="pixel"/>', None),
        ('<Pixels PhysicalSizeX="0" PhysicalSizeY="0"/>', None),
        ('<Pixels PhysicalSizeX="inf" PhysicalSizeY="nan"/>', None),
        ('<Pixels PhysicalSizeX="1" PhysicalSizeY="1">', None),
        ("", None),
    ],
)  # fmt: skip
def test_pixel_size_of_ome_xml(pixels: str, expected: Resolution | None) -> None:
    assert physical_size(f"<OME {NAMESPACE}><Image>{pixels}</Image></OME>") == expected
    assert physical_size("") is None
