"""GeoTIFFs in a zip: the same pixels as unpacked, and hostile zips are refused before anything in them is read."""

from __future__ import annotations

import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources.conftest import UTM, noise_of

import tilepipe as tp
from tilepipe.errors import ChangedError, InputError, UsageError
from tilepipe.sources import archive
from tilepipe.sources.open import open_source
from tilepipe.testing import codes_model

Write = Callable[..., Path]
BOXES = [tp.Box(0, 0, 200, 150), tp.Box(-9, -5, 30, 40), tp.Box(130, 20, 190, 140)]


def zipped(path: Path, files: dict[str, Path | bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as made:
        for name, file in files.items():
            made.writestr(name, file if isinstance(file, bytes) else file.read_bytes())
    return path


@pytest.fixture
def file(geotiff: Write) -> Path:
    return geotiff(noise_of((3, 200, 150)), "in.tif", tiled=True, blockxsize=64, blockysize=64, **UTM)


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 64, "blockysize": 64}, {}])
def test_pixels_are_those_of_the_file(how: int, layout: dict[str, Any], geotiff: Write, tmp_path: Path) -> None:
    path = geotiff(noise_of((3, 200, 150)), "in.tif", nodata=3, **layout, **UTM)
    made = zipped(tmp_path / "a.zip", {"read.me": b"text", "sub/in.tif": path}, how)
    here = open_source(path)
    for name in (made, f"{made}/sub/in.tif", f"/vsizip/{made}/sub/in.tif", f"/vsizip/{{{made}}}/sub/in.tif"):
        image = open_source(name)
        assert image.name == f"{made}/sub/in.tif"
        assert (image.shape, image.resolution, image.georeference) == (here.shape, here.resolution, here.georeference)
        for box in BOXES:
            np.testing.assert_array_equal(image.read(box), here.read(box))
            np.testing.assert_array_equal(image.valid(box), here.valid(box))
    again = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(again.read(BOXES[2]), here.read(BOXES[2]))
    np.testing.assert_array_equal(open_source(made, bands=[2]).read(BOXES[0]), here.read(BOXES[0])[1:2])


def test_labels_are_those_of_the_file(geotiff: Write, tmp_path: Path) -> None:
    path = geotiff(np.random.default_rng(1).integers(0, 4, (1, 200, 150), dtype=np.uint8), "in.tif", **UTM)
    made = zipped(tmp_path / "a.zip", {"in.tif": path})
    cut: dict[str, Any] = {"tile": 64, "overlap": 16}
    found = tp.segment(made, codes_model(4), **cut)
    assert found.paths[0] == tmp_path / "a.labels.tif"
    assert tp.segment(f"{made}/in.tif", codes_model(4), **cut).paths[0] == tmp_path / "in.labels.tif"
    right = tp.segment(path, codes_model(4), tmp_path / "right.tif", **cut)
    assert found.paths[0].read_bytes() == right.paths[0].read_bytes()


def test_the_world_file_and_the_mask_in_the_zip_count(geotiff: Write, tmp_path: Path) -> None:
    plain = geotiff(noise_of((1, 20, 30)), "p.tif")
    mask = geotiff(np.where(np.arange(600).reshape(1, 20, 30) % 7, 255, 0).astype(np.uint8), "m.tif")
    world = b"2\n0\n0\n-2\n1000\n5000\n"
    for name, content in (("p.tfw", world), ("p.tif.msk", mask.read_bytes())):
        (tmp_path / name).write_bytes(content)
    here = open_source(plain)
    there = open_source(zipped(tmp_path / "a.zip", {"p.tif": plain, "p.tfw": world, "p.tif.msk": mask}))
    assert there.georeference == here.georeference
    assert there.georeference is not None
    np.testing.assert_array_equal(there.valid(tp.Box(0, 0, 20, 30)), here.valid(tp.Box(0, 0, 20, 30)))


def test_what_to_type_if_there_are_several_or_none(file: Path, tmp_path: Path) -> None:
    two = zipped(tmp_path / "two.zip", {"a.tif": file, "b/c.TIF": file, "t.txt": b""})
    with pytest.raises(InputError, match=r"two\.zip holds 2 GeoTIFFs: a\.tif, b/c\.TIF; name one: \S*two\.zip/a\.tif"):
        open_source(two)
    assert open_source(two / "b" / "c.TIF").shape == (3, 200, 150)
    with pytest.raises(InputError, match=r"holds no d\.tif; it holds a\.tif"):
        open_source(two / "d.tif")
    with pytest.raises(InputError, match=r"unzip it to read t\.txt"):
        open_source(two / "t.txt")
    with pytest.raises(InputError, match=r"holds no GeoTIFF .* among its 1 files"):
        open_source(zipped(tmp_path / "none.zip", {"a.png": b""}))
    with pytest.raises(UsageError, match="unzip it to name a driver"):
        open_source(two / "a.tif", driver="HFA")


def test_a_zip_that_changed_is_another_image(file: Path, geotiff: Write, tmp_path: Path) -> None:
    made = zipped(tmp_path / "a.zip", {"in.tif": file})
    image = open_source(made)
    before = image.identity()
    zipped(made, {"in.tif": geotiff(noise_of((3, 200, 150), seed=2), "other.tif", **UTM)})
    with pytest.raises(ChangedError, match="changed while it was open"):
        image.read(BOXES[0])
    assert open_source(made).identity() != before


def member(name: str, mode: int = 0, flags: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.flag_bits, info.compress_type = mode << 16, flags, zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    ("info", "content", "words"),
    [
        (member("../out.tif"), b"", "leads out of the zip"),
        (member("/etc/out.tif"), b"", "leads out of the zip"),
        (member("a/../../out.tif"), b"", "leads out of the zip"),
        (member("c:\\out.tif"), b"", "leads out of the zip"),
        (member("link.tif", stat.S_IFLNK | 0o777), b"/etc/passwd", "which is a link"),
        (member("pipe.tif", stat.S_IFIFO | 0o777), b"", "no ordinary file"),
        (member("bomb.tif"), bytes(40 << 20), "as zip bombs do"),
        (member("a.tif.aux.xml"), b'<MDI key="OVERVIEW_FILE">/etc/x</MDI>', "names other files"),
        (member("a.tif.msk"), b"<VRTDataset>", "not a TIFF"),
    ],
)  # fmt: skip
def test_hostile_zips_are_refused(
    info: zipfile.ZipInfo, content: bytes, words: str, file: Path, tmp_path: Path
) -> None:
    made = tmp_path / "a.zip"
    with zipfile.ZipFile(made, "w") as opened:
        opened.writestr("a.tif", file.read_bytes())
        opened.writestr(info, content)
    with pytest.raises(InputError, match=words) as caught:
        open_source(made / "a.tif")
    assert "\n" not in str(caught.value)


def test_too_many_members_are_refused_before_their_list_is_read(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = zipped(tmp_path / "a.zip", {"a.tif": file, **{f"{k}.txt": b"" for k in range(50)}})
    monkeypatch.setattr(archive, "MOST_MEMBERS", 50)
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda _: pytest.fail("the list was read"))
    with pytest.raises(InputError, match=r"holds 51 files .* at most 50 files"):
        open_source(made)


def test_members_that_lie_over_each_other_are_refused(file: Path, tmp_path: Path) -> None:
    """A bomb whose members share their bytes: the list is written again with the first member twice."""
    made = zipped(tmp_path / "a.zip", {"a.tif": file})
    data = made.read_bytes()
    at, end = data.find(b"PK\x01\x02"), data.rfind(b"PK\x05\x06")
    entry = data[at:end]
    listed = entry + entry.replace(b"a.tif", b"b.tif")
    tail = bytearray(data[end:])
    struct.pack_into("<HHII", tail, 8, 2, 2, len(listed), at)
    made.write_bytes(data[:at] + listed + bytes(tail))
    with pytest.raises(InputError, match="lie over each other"):
        open_source(made)


@pytest.mark.parametrize("cut", [10, 200, -30])
def test_a_damaged_zip(cut: int, file: Path, tmp_path: Path) -> None:
    made = zipped(tmp_path / "a.zip", {"a.tif": file})
    made.write_bytes(made.read_bytes()[:cut])
    with pytest.raises(InputError, match="damaged zip"):
        open_source(made)


def test_damaged_pixels_are_said(file: Path, tmp_path: Path) -> None:
    made = zipped(tmp_path / "a.zip", {"a.tif": file})
    data = bytearray(made.read_bytes())
    data[40_000:41_000] = bytes(1000)
    made.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip/a\.tif cannot be unpacked: Bad CRC-32"):
        open_source(made).identity()


def test_no_slides_in_zips(slide: Write, geotiff: Write, tmp_path: Path) -> None:
    made = zipped(tmp_path / "a.zip", {"s.tif": slide([noise_of((300, 400, 3)), noise_of((150, 200, 3))])})
    with pytest.raises(InputError, match="unzip it first"):
        open_source(made)
    tags = {"TIFFTAG_IMAGEDESCRIPTION": '<OME xmlns="x"/>'}
    ome = geotiff(noise_of((1, 9, 9)), then=lambda dataset: dataset.update_tags(**tags))
    with pytest.raises(InputError, match="unzip it first"):
        open_source(zipped(tmp_path / "b.zip", {"o.tif": ome}))
