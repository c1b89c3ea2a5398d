"""Which files are a slide: those that hold its pixels, in its own folder, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilepipe.errors import InputError
from tilepipe.sources.companions import check_companions, slide_files
from tilepipe.sources.open import open_source


def mirax(folder: Path, names: str) -> Path:
    (folder / "a").mkdir()
    (folder / "a.mrxs").write_bytes(b"\xff\xd8\xff")
    (folder / "a" / "Slidedat.ini").write_text(f"[DATAFILE]\nFILE_COUNT = 1\n{names}\n")
    (folder / "a" / "Data0000.dat").write_bytes(b"pixels")
    return folder / "a.mrxs"


def dicom(path: Path, series: bytes) -> Path:
    path.write_bytes(bytes(128) + b"DICM" + b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little") + series)
    return path


@pytest.mark.parametrize("name", ["../../secret.dat", "/etc/passwd", "..\\secret.dat", "sub/x.dat"])
def test_a_mirax_index_that_names_files_elsewhere(name: str, tmp_path: Path) -> None:
    path = mirax(tmp_path, f"FILE_0 = {name}")
    for act in (check_companions, open_source):
        with pytest.raises(InputError, match="nothing outside a slide is opened"):
            act(path)  # type: ignore[operator]


def test_links_and_pipes_among_the_files_of_a_slide(tmp_path: Path) -> None:
    path = mirax(tmp_path, "FILE_0 = Data0000.dat\nFILE_1 = Data0001.dat")
    check_companions(path)
    os.symlink("/etc/passwd", tmp_path / "a" / "Data0001.dat")
    with pytest.raises(InputError, match="nothing outside a slide is opened"):
        check_companions(path)
    (tmp_path / "a" / "Data0001.dat").unlink()
    os.mkfifo(tmp_path / "a" / "Data0001.dat")
    with pytest.raises(InputError, match="is a named pipe"):
        check_companions(path)
    (tmp_path / "here").mkdir()
    (tmp_path / "a" / "Data0001.dat").unlink()
    for name in ("a.mrxs", "a"):  # a link to a whole slide
        os.symlink(tmp_path / name, tmp_path / "here" / name)
    check_companions(tmp_path / "here" / "a.mrxs")


def test_a_hamamatsu_index(tmp_path: Path) -> None:
    (tmp_path / "a.vms").write_text("[Virtual Microscope Specimen]\nImageFile=../x.jpg\nMapFile=map.jpg\n")
    with pytest.raises(InputError, match="nothing outside a slide is opened"):
        check_companions(tmp_path / "a.vms")
    (tmp_path / "a.vms").write_text("[Virtual Microscope Specimen]\nImageFile(1,0)=x.jpg\nMapFile=map.jpg\n")
    check_companions(tmp_path / "a.vms")


def test_what_else_lies_in_the_folder_is_not_the_slide(tmp_path: Path) -> None:
    path = mirax(tmp_path, "FILE_0 = Data0000.dat")
    (tmp_path / "a" / "Thumbs.db").write_text("x")
    (tmp_path / "a" / "labels.tif").write_text("x")
    inside = tmp_path / "a"
    assert slide_files(path, "mirax") == [inside / "Data0000.dat", inside / "Slidedat.ini", path]
    one, two = dicom(tmp_path / "1.dcm", b"1.2.3\0"), dicom(tmp_path / "2.dcm", b"1.2.3")
    dicom(tmp_path / "other.dcm", b"1.2.4")
    (tmp_path / "no.dcm").write_bytes(b"x")
    # A segmentation names the series of its slide before its own.
    kind, name = b"\x02\x00\x02\x00UI", b"1.2.840.10008.5.1.4.1.1.66.4\0"
    whole = dicom(tmp_path / "seg.dcm", b"1.2.3").read_bytes()
    (tmp_path / "seg.dcm").write_bytes(whole[:132] + kind + len(name).to_bytes(2, "little") + name + whole[132:])
    assert slide_files(one, "dicom") == [one, two]
