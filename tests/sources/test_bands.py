"""Bands: which are read where nobody says, and what says where there is image data; against rasterio's own reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.cli.info import describe
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.planning.region import image_data
from tilepipe.planning.resolution import with_model_bands
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource
from tilepipe.sources.bands import bands_of, listed
from tilepipe.sources.open import open_source
from tilepipe.testing import codes_model, write_slide

RED, GREEN, BLUE, ALPHA, GREY = (
    ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha, ColorInterp.undefined,
)  # fmt: skip
PIXELS = np.random.default_rng(0).integers(1, 256, (4, 60, 70), dtype=np.uint8)
OPAQUE = np.where(np.random.default_rng(1).random((60, 70)) < 0.7, 255, 0).astype(np.uint8)
WHOLE = Box.of_shape(60, 70)


def write(path: Path, pixels: np.ndarray, meanings: tuple[Any, ...], names: tuple[str, ...] = ()) -> Path:
    shape = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    place = {"crs": "EPSG:32645", "transform": from_origin(3e5, 3e6, 1, 1)}
    flag = {} if ALPHA in meanings else {"alpha": "NO"}  # GDAL flags the fourth band of bytes as alpha by itself
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **flag) as file:
        file.write(pixels)
        file.colorinterp = meanings
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path


def rgb_and(fourth: np.ndarray) -> np.ndarray:
    return np.concatenate([PIXELS[:3], fourth[None]])


def card(bands: int, **more: Any) -> tp.ModelCard:
    return tp.ModelCard(bands=bands, classes=["a", "b"], name="m", **more)


def chosen(path: Path, bands: int, asked: Any = None, mask: str = "auto", **more: Any) -> tuple[Any, list[str]]:
    settings = {"mask": mask} | ({"bands": asked} if asked is not None else {})
    source = with_model_bands(open_source(path), card(bands, **more), Request.of(settings))
    return source, list(getattr(source, "notes", ()))


def data(source: Any) -> np.ndarray:
    valid = source.valid(WHOLE)
    return np.ones(WHOLE.shape, bool) if valid is None else valid


@pytest.mark.parametrize("fourth", [ALPHA, GREY])
def test_rgb_and_two_values_need_nothing_typed(fourth: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", rgb_and(OPAQUE), (RED, GREEN, BLUE, fourth))
    source, said = chosen(path, 3)
    assert (source.read(WHOLE) == PIXELS[:3]).all()
    assert (data(source) == (OPAQUE > 0)).all()
    assert len(said) == 1
    assert "holds only 0 and 255 and says where there is image data" in said[0]
    everywhere = image_data(chosen(path, 3, mask="none")[0], "none")
    assert data(everywhere).all()


def test_an_undefined_band_with_other_values_is_left_out_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (RED, GREEN, BLUE, GREY))
    source, said = chosen(path, 3)
    assert (source.read(WHOLE) == PIXELS[:3]).all()
    assert data(source).all()
    assert "band 4 (undefined) is left out" in said[0]


def test_alpha_with_other_values_is_refused_with_both_commands(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (RED, GREEN, BLUE, ALPHA))
    with pytest.raises(InputError, match=r"`bands=\[1, 2, 3\], mask='none'` .*`bands=\[1, 2, 3, 4\]`"):
        chosen(path, 3)
    source, _ = chosen(path, 3, "1,2,3", mask="none")
    assert (source.read(WHOLE) == PIXELS[:3]).all()
    every, _ = chosen(path, 4, "1,2,3,4")
    assert (every.read(WHOLE) == PIXELS).all()


def test_bands_asked_for_beside_an_alpha_of_many_values_say_what_its_zeros_do(tmp_path: Path) -> None:
    """Zeros of near infrared that is flagged as alpha are no data for GDAL: no label, but never in silence."""
    infrared = rgb_and(np.where(OPAQUE > 0, PIXELS[3], 0).astype(np.uint8))
    path = write(tmp_path / "in.tif", infrared, (RED, GREEN, BLUE, ALPHA))
    source, said = chosen(path, 3, "1,2,3")
    assert (data(source) == (OPAQUE > 0)).all()
    assert "band 4 is flagged as alpha and holds other values than 0 and 255" in said[-1]
    assert "`mask='none'`" in said[-1]
    for asked, mask in (("1,2,3", "none"), ("1,2,4", "auto"), ("1,2,3,4", "auto")):
        assert not chosen(path, asked.count(",") + 1, asked, mask=mask)[1]
    two_valued = write(tmp_path / "two.tif", rgb_and(OPAQUE), (RED, GREEN, BLUE, ALPHA))
    assert not chosen(two_valued, 3, "1,2,3")[1]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("many", [True, False])
def test_alpha_of_a_picture_is_said_and_its_zeros_are_those_of_gdal(many: bool, tmp_path: Path) -> None:
    alpha = np.where(OPAQUE > 0, PIXELS[3], 0).astype(np.uint8) if many else OPAQUE
    Image.fromarray(rgb_and(alpha).transpose(1, 2, 0)).save(tmp_path / "in.png")
    source, said = chosen(tmp_path / "in.png", 3)
    with rasterio.open(tmp_path / "in.png") as file:
        assert (data(source) == (file.dataset_mask() > 0)).all()
    assert ("other values than 0 and 255" in " ".join(said)) == many
    assert len(said) == 1
    assert "alpha" in said[0]
    assert not chosen(tmp_path / "in.png", 3, mask="none")[1]
    assert "alpha" in describe(str(tmp_path / "in.png"))["alpha"]
    with pytest.raises(InputError, match=r"gdal_translate .*in\.png"):
        chosen(tmp_path / "in.png", 4)


def test_a_model_of_four_bands_takes_near_infrared_that_is_flagged_alpha(tmp_path: Path) -> None:
    """rasterio writes that flag by itself; 0 in near infrared is a value, not nodata."""
    infrared = rgb_and(np.where(OPAQUE > 0, PIXELS[3], 0).astype(np.uint8))
    path = write(tmp_path / "in.tif", infrared, (RED, GREEN, BLUE, ALPHA))
    source, said = chosen(path, 4)
    assert (source.read(WHOLE) == infrared).all()
    assert data(source).all()
    assert "all 4 bands are read as image, also band 4, which the file flags as alpha" in said[0]


def test_named_bands_are_found_by_name_and_by_colour(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (GREY, GREY, GREY, GREY), ("nir", "Red", "green", "blue"))
    source, said = chosen(path, 3)
    assert (source.read(WHOLE) == PIXELS[[1, 2, 3]]).all()
    assert "as the file names them; left out: 1 (nir)" in said[0]
    for asked, numbers in (("R,G,B", [1, 2, 3]), ("nir,red,green", [0, 1, 2]), ([4, 1, 1], [3, 0, 0])):
        assert (chosen(path, 3, asked)[0].read(WHOLE) == PIXELS[numbers]).all()
        assert (open_source(path, bands=asked).read(WHOLE) == PIXELS[numbers]).all()
    with pytest.raises(UsageError, match="no band called 'swir'; its bands are 1 nir"):
        chosen(path, 3, "swir,red,green")


def test_a_file_that_does_not_say_is_refused_with_the_line_to_type(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (GREY, GREY, GREY, GREY))
    with pytest.raises(UsageError, match=r"no band called 'R'; .*; name them by number"):
        chosen(path, 3, "R,G,B")
    with pytest.raises(InputError, match=r"has 4 bands and m reads 3; choose the bands .*`bands=\[1, 2, 3\]`"):
        chosen(path, 3)
    with pytest.raises(UsageError, match="bands 1 to 4"):
        chosen(path, 3, "1,2,5")


def test_a_card_that_names_its_bands_picks_them_and_warns_of_others(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (RED, GREEN, BLUE, GREY), ("", "", "", "nir"))
    source, _ = chosen(path, 2, band_names=["nir", "red"])
    assert (source.read(WHOLE) == PIXELS[[3, 0]]).all()
    _, said = chosen(path, 2, "2,3", band_names=["nir", "red"])
    assert "warning: m reads" in said[-1]


def test_transparency_that_turns_out_to_be_none_stops_the_run(tmp_path: Path) -> None:
    """Windows spread over a large band are looked at; a value between them is met when it is read."""
    fourth = np.full((2, 5000), 255, np.uint8)
    pixels = np.concatenate([np.ones((3, 2, 5000), np.uint8), fourth[None]])
    pixels[3, 0, 300] = 7
    path = write(tmp_path / "in.tif", pixels, (RED, GREEN, BLUE, ALPHA))
    source, _ = chosen(path, 3)
    with pytest.raises(UsageError, match=r"taken for transparency.* it holds 7 too"):
        source.valid(Box.of_shape(2, 5000))


def test_arrays_choose_too() -> None:
    source = with_model_bands(ArraySource(PIXELS), card(2), Request(bands="4,1"))
    assert (source.read(WHOLE) == PIXELS[[3, 0]]).all()


def test_bands_decide_labels_keys_and_verification(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4, (4, 60, 70), dtype=np.uint8)
    path, output = write(tmp_path / "in.tif", pixels, (GREY,) * 4), tmp_path / "out.tif"
    model = codes_model(4)
    first = tp.segment(path, model, output, bands="2", tile=32, overlap=0)
    assert (np.asarray(first.labels) == pixels[1]).all()
    assert first.plan.picked == (2,)
    assert tp.verify(output, model=model, windows=0).holds
    second = tp.segment(path, model, output, bands="3", tile=32, overlap=0, overwrite=True)
    assert (np.asarray(second.labels) == pixels[2]).all()
    assert (tp.predict(path, model, Box(3, 4, 20, 30), bands=[4]) == pixels[3, 3:20, 4:30]).all()


def test_the_command_line_and_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (RED, GREEN, BLUE, ALPHA))
    assert main(["info", str(path)]) == 0
    assert "band 4, holds other values than 0 and 255" in capsys.readouterr().out
    assert main(["plan", str(path), "-m", "buildings"]) == 4
    assert "--bands 1,2,3 --mask none" in capsys.readouterr().err
    assert (
        main(["plan", str(path), "-m", "buildings", "--bands", "R,G,B", "--mask", "none", "--pixel-size", "0.3"]) == 0
    )


def item(image: Path, bands: list[dict[str, Any]], key: str = "bands", href: str = "./in.tif") -> dict[str, Any]:
    assets = {"image": {"href": href, key: bands}, "thumbnail": {"href": "thumbnail.png"}}
    fields = {"type": "Feature", "stac_version": "1.1.0", "id": "x", "properties": {}, "assets": assets}
    image.with_suffix(".json").write_text(json.dumps(fields))
    return fields


@pytest.mark.parametrize(("key", "common"), [("bands", "eo:common_name"), ("eo:bands", "common_name")])
def test_a_stac_item_beside_the_file_names_its_bands(key: str, common: str, tmp_path: Path) -> None:
    """NAIP: 4 bands, of which the TIFF itself says nothing."""
    path = write(tmp_path / "in.tif", PIXELS, (GREY,) * 4)
    with pytest.raises(InputError, match=r"has 4 bands and m reads 3; .*`bands=\[1, 2, 3\]`"):
        chosen(path, 3)
    words = ["nir", "blue", "green", "red"]
    item(path, [{"name": f"B{k}", common: word} for k, word in enumerate(words, 1)], key)
    source, said = chosen(path, 3)
    assert (source.read(WHOLE) == PIXELS[[3, 2, 1]]).all()
    assert said == [
        "bands 4 (B4 red), 3 (B3 green), 2 (B2 blue) are read, as the file names them; left out: 1 (B1 nir)"
    ]
    assert (open_source(path, bands="B4,nir").read(WHOLE) == PIXELS[[3, 0]]).all()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"stac_version": "1.1.0"}', '{"stac_version": "1.1.0", "assets": {"a": {"href": 3}}}']
)
def test_what_is_no_item_of_this_file_names_nothing(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (GREY,) * 4)
    path.with_suffix(".json").write_text(text)
    assert [band.name for band in open_source(path).file_bands] == [""] * 4  # type: ignore[attr-defined]
    bands = [{"name": "red"}] * 4
    for other in ({"href": "https://host/other.tif"}, {"bands": bands[:3]}):
        item(path, **{"bands": bands, **other})  # type: ignore[arg-type]
        assert [band.name for band in open_source(path).file_bands] == [""] * 4  # type: ignore[attr-defined]


def test_names_of_numbered_bands_are_told_in_any_spelling(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (GREY,) * 4, ("B02", "B03", "B04", "B08"))
    assert (open_source(path, bands="B4,B3,B2").read(WHOLE) == PIXELS[[2, 1, 0]]).all()
    source, said = chosen(path, 3, band_names=("Band 4", "band_3", "B2"))
    assert (source.read(WHOLE) == PIXELS[[2, 1, 0]]).all()
    assert "bands 3 (B04), 2 (B03), 1 (B02) are read" in said[0]
    with pytest.raises(UsageError, match="no band called 'B8A'"):
        open_source(path, bands="B8A")


def test_chosen_bands_are_a_row_of_the_fit_table_and_info_takes_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "in.tif", PIXELS, (RED, GREEN, BLUE, ColorInterp.undefined), ("", "", "", "nir"))
    assert main(["plan", str(path), "-m", "buildings", "--pixel-size", "0.3"]) == 0
    shown = capsys.readouterr().out
    assert "bands       note     bands 1 (red), 2 (green), 3 (blue) are read" in shown
    assert "left out: 4 (nir)" in shown
    assert main(["info", str(path), "--bands", "nir,R"]) == 0
    assert "band names: 4 nir, 1 red" in capsys.readouterr().out
    assert main(["info", str(path), "--bands", "swir"]) == 2
    assert "its bands are 1 red, 2 green, 3 blue, 4 nir" in capsys.readouterr().err


def test_colours_of_slides_and_pictures_have_names(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (600, 700, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    write_slide(tmp_path / "a.tif", [pixels.transpose(2, 0, 1)])
    for name in ("a.png", "a.tif"):
        source, box = open_source(tmp_path / name), Box(0, 0, 100, 90)
        turned = open_source(tmp_path / name, bands="B,G,R")
        np.testing.assert_array_equal(turned.read(box), source.read(box)[::-1])
        assert listed(bands_of(turned)) == "1 blue, 2 green, 3 red"
    assert listed(bands_of(open_source(tmp_path / "grey.png"))) == "1 no name"
