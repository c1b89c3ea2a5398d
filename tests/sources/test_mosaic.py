"""Many files as one image, compared with rasterio.merge."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.cut_files import COLUMNS, PIXELS, ROWS, WHOLE, cut, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.merge import merge

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import ChangedError, InputError, UsageError
from tilepipe.sources.base import Georeference
from tilepipe.sources.mosaic import Mosaic
from tilepipe.sources.open import image_files, open_source
from tilepipe.testing import local_mean_model


def merged(files: list[Path]) -> Any:
    return merge([str(file) for file in files], method="last")[0]


def test_a_folder_a_pattern_a_list_and_a_python_list_are_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS, overlap=5)
    files = sorted(folder.glob("*.tif"))
    (folder / "t.txt").write_text("# tiles\n" + "\n\n".join(file.name for file in files))
    monkeypatch.chdir(tmp_path)
    identities = []
    for what in (
        folder,
        "tiles",
        "tiles/*.tif",
        str(folder / "*_*.tif"),
        folder / "t.txt",
        files,
        list(map(str, files)),
    ):
        source = open_source(what)
        assert source.shape == (3, 150, 210)
        assert source.georeference is not None
        assert source.georeference == Georeference(source.georeference.crs, (0.5, 0, 400000, 0, -0.5, 3000000))
        assert source.resolution is not None
        assert source.resolution.y == pytest.approx(0.5, rel=1e-3)
        np.testing.assert_array_equal(source.read(WHOLE), PIXELS)
        np.testing.assert_array_equal(
            source.read(Box(-3, 100, 80, 215)), np.pad(PIXELS, ((0, 0), (3, 0), (0, 5)), "reflect")[:, :83, 100:215]
        )
        assert source.valid(WHOLE) is None
        assert "9 files are read as one image of 150 x 210 pixels; where files overlap, the last" in source.notes[-1]
        identities.append(source.identity())
        assert pickle.loads(pickle.dumps(source)).identity() == source.identity()
    assert all(identity == identities[0] for identity in identities)
    assert open_source(files[::-1]).identity() != identities[0]
    assert image_files(open_source(folder)) == files


def test_the_last_file_that_holds_data_lies_on_top(tmp_path: Path) -> None:
    holes = np.random.default_rng(0).random((150, 210)) < 0.3
    files = []
    for k, box in enumerate((Box(0, 0, 100, 120), Box(30, 20, 90, 200), Box(60, 60, 150, 140))):
        pixels = np.where(np.roll(holes, 7 * k, axis=0), 0, np.roll(PIXELS, k, axis=0))
        files.append(write(tmp_path / f"{k}.tif", box, pixels.astype("uint8"), nodata=0))
    source = open_source(files)
    expected = merged(files)
    height, width = source.shape[1:]
    assert source.shape == expected.shape
    valid = source.valid(Box(0, 0, height, width))
    np.testing.assert_array_equal(valid, (expected != 0).any(axis=0))
    np.testing.assert_array_equal(source.read(Box(0, 0, height, width)), expected)
    other = open_source(files[::-1])
    np.testing.assert_array_equal(other.read(Box(0, 0, height, width)), merged(files[::-1]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_box_is_a_crop_of_the_whole_whatever_the_files(tmp_path: Path, data: st.DataObject) -> None:
    files = [write(tmp_path / "first.tif", Box(0, 0, 1, 1), np.full((1, 50, 50), 4, np.uint8), nodata=3)]
    for k in range(data.draw(st.integers(1, 4))):
        y, x = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
        box = Box(y, x, y + data.draw(st.integers(2, 20)), x + data.draw(st.integers(1, 20)))
        # The value 3 is nodata: every second pixel or so holds none, in a file that says it.
        pixels = np.random.default_rng(k).integers(3, 5, (1, 50, 50)).astype("uint8")
        files.append(write(tmp_path / f"{k}.tif", box, pixels, nodata=data.draw(st.sampled_from([3, None]))))
    source = open_source(files)
    _, height, width = source.shape
    whole, valid = source.read(Box(0, 0, height, width)), source.valid(Box(0, 0, height, width))
    valid = np.ones((height, width), bool) if valid is None else valid
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    part = Box(y0, x0, data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width)))
    found = source.valid(part)
    np.testing.assert_array_equal(source.read(part), whole[:, part.y0 : part.y1, part.x0 : part.x1])
    np.testing.assert_array_equal(
        np.ones(part.shape, bool) if found is None else found, valid[part.y0 : part.y1, part.x0 : part.x1]
    )


def test_files_that_are_missing_in_between_hold_no_data(tmp_path: Path) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS)
    (folder / "t_064_070.tif").unlink()
    source = open_source(folder)
    expected = np.ones((150, 210), bool)
    expected[64:130, 70:140] = False
    np.testing.assert_array_equal(source.valid(WHOLE), expected)
    assert (np.asarray(tp.predict(folder, local_mean_model(bands=3), tile=64))[~expected] == 255).all()


def test_bands_and_alpha(tmp_path: Path) -> None:
    rgba = np.concatenate([PIXELS, np.where(np.indices((150, 210)).sum(0) % 50 < 40, 255, 0)[None]]).astype("uint8")
    colours = {"photometric": "rgb", "alpha": "unspecified"}
    boxes = (Box(0, 0, 99, 210), Box(60, 0, 150, 210))
    files = [write(tmp_path / f"{k}.tif", box, rgba, **colours) for k, box in enumerate(boxes)]
    one = write(tmp_path / "one.tif", WHOLE, rgba, **colours)
    for bands in (None, "B,R", "4"):
        options = {} if bands is None else {"bands": bands}
        found, alone = open_source(files, **options), open_source(one, **options)
        np.testing.assert_array_equal(found.read(WHOLE), alone.read(WHOLE))
        np.testing.assert_array_equal(found.valid(WHOLE), alone.valid(WHOLE))
    model = local_mean_model(bands=3)
    np.testing.assert_array_equal(tp.predict(files, model, tile=64), tp.predict(one, model, tile=64))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "crs": ({"crs": "EPSG:32646"}, r"a\.tif has EPSG:32645 and .*b\.tif has EPSG:32646.*gdalwarp -t_srs"),
    "no crs": ({"crs": None}, r"a\.tif has EPSG:32645 and .*b\.tif has no CRS"),
    "pixel size": (
        {"transform": rasterio.Affine(1, 0, 400035, 0, -1, 3000000)},
        r"a\.tif has pixels of 0\.5 x -0\.5 and .*b\.tif has pixels of 1 x -1",
    ),
    "off": (
        {"transform": rasterio.Affine(0.5, 0, 400035.2, 0, -0.5, 3000000)},
        r"b\.tif does not lie on the grid of .*a\.tif: its corners are \(70\.4000, 0\.0000\) and",
    ),
    "long": (
        {"transform": rasterio.Affine(0.5003, 0, 400035, 0, -0.5, 3000000)},
        r"b\.tif does not lie on the grid of .*a\.tif: .*140\.04",
    ),
    "type": ({"dtype": "uint16"}, r"a\.tif has pixels of type uint8 and .*b\.tif has pixels of type uint16"),
    "no place": ({"crs": None, "transform": rasterio.Affine.identity()}, r"b\.tif has no position on the earth"),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_not_one_image_are_refused(tmp_path: Path, case: str) -> None:
    profile, words = REFUSED[case]
    write(tmp_path / "a.tif", Box(0, 0, 64, 70))
    write(tmp_path / "b.tif", Box(0, 70, 64, 140), PIXELS.astype(profile.get("dtype", "uint8")), **profile)
    with pytest.raises(InputError, match=words) as caught:
        open_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_numbers_of_bands_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.tif", Box(0, 0, 64, 70)), write(tmp_path / "b.tif", Box(0, 70, 64, 140), PIXELS[:1])]
    with pytest.raises(InputError, match=r"a\.tif has 3 bands and .*b\.tif has 1 bands"):
        open_source(files)
    with pytest.raises(UsageError, match="a list of files holds one image; leave `scene` out"):
        open_source(files[:1], scene=1)
    with pytest.raises(InputError, match=r"tiles/\*.tif names no file"):
        open_source("tiles/*.tif")


def test_places_may_differ_by_rounding(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.tif", Box(0, 0, 150, 100))]
    near = rasterio.Affine(0.5, 0, 400050.000001, 0, -0.5, 2999999.999999)
    files.append(write(tmp_path / "b.tif", Box(0, 100, 150, 210), transform=near))
    np.testing.assert_array_equal(open_source(files).read(WHOLE), PIXELS)


def test_a_list_opens_nothing_outside_its_folder(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "here"
    files = sorted(cut(elsewhere, ROWS, COLUMNS).glob("*.tif"))
    folder.mkdir()
    listed = folder / "list.txt"
    for k, name in enumerate((str(files[0]), "../elsewhere/" + files[0].name, "link.tif", "linked/" + files[0].name)):
        if k == 2:
            (folder / "link.tif").symlink_to(files[0])
            (folder / "linked").symlink_to(elsewhere)
        listed.write_text(name)
        with pytest.raises(InputError, match=r"list\.txt names .*, which lies in .*elsewhere.*`allow='"):
            open_source(listed)
        assert open_source(listed, allow=[elsewhere]).shape == (3, 64, 70)
    listed.write_text("nothing.tif")
    with pytest.raises(InputError, match=r"list\.txt is not an image; as a list of files it names in line 1 .*nothing"):
        open_source(listed)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS)
    source = open_source(folder)
    before = source.identity()
    file = folder / "t_064_070.tif"
    state = file.stat()
    write(file, Box(64, 70, 130, 140), 255 - PIXELS)
    with pytest.raises(ChangedError, match=r"t_064_070\.tif changed while it was open"):
        source.read(WHOLE)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert open_source(folder).identity() != before
    (tmp_path / "moved").mkdir()
    cut(tmp_path / "moved", ROWS, COLUMNS)
    assert open_source(tmp_path / "moved").identity() == before


def test_labels_of_earlier_runs_are_no_part_of_the_image(tmp_path: Path) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS)
    write(folder / "t_000_000.labels.tif", Box(0, 0, 64, 70), PIXELS[:1])
    source = open_source(folder)
    assert isinstance(source, Mosaic)
    assert len(source.parts) == 9
    assert "1 file of" in source.notes[0]


def test_a_file_is_opened_when_its_pixels_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(cut(tmp_path / "tiles", ROWS, COLUMNS))
    opened: list[str] = []
    kept = rasterio.open

    def counted(path: str, **options: Any) -> Any:
        opened.append(Path(path).name)
        return kept(path, **options)

    monkeypatch.setattr(rasterio, "open", counted)
    source.read(Box(0, 0, 20, 20))
    assert opened == ["t_000_000.tif"]
    source.read(Box(60, 0, 70, 20))
    assert opened == ["t_000_000.tif", "t_064_000.tif"]
