"""tilepipe evaluate: label files of tilepipe and of other programs on one grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.cli_files import HEIGHT, TRANSFORM, WIDTH
from PIL import Image
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter
from sklearn.metrics import confusion_matrix

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.ome_zarr import write_ome_zarr
from tilepipe.sources.base import Georeference

CRS = rasterio.CRS.from_epsg(32633)
NAMES = ("field", "road")


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray]:
    """(prediction, truth) with nodata 255 in the one and values to ignore in the other."""
    rng = np.random.default_rng(2)
    truth = (gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), 5) > 0).astype(np.uint8)
    prediction = np.roll(truth, 1, 0)
    prediction[:10, :20] = 255
    truth[-20:, -30:] = 255
    return prediction, truth


@pytest.fixture
def prediction(maps: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    """A label map as tilepipe writes it."""
    legend = Legend("things", NAMES, ((200, 200, 200), (255, 0, 0)), 255)
    place = Georeference(CRS.to_wkt(), tuple(TRANSFORM)[:6])
    write_cog(label_map_of(maps[0], legend, georeference=place), tmp_path / "p.tif")
    return tmp_path / "p.tif"


def raster(path: Path, labels: np.ndarray, **changed: Any) -> Path:
    profile = {"crs": CRS, "transform": TRANSFORM, "dtype": labels.dtype, "count": 1, **changed}
    with rasterio.open(path, "w", "GTiff", labels.shape[1], labels.shape[0], **profile) as file:
        file.write(labels, 1)
    return path


def counted(maps: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    scored = (maps[0] != 255) & (maps[1] != 255)
    found: list[list[int]] = confusion_matrix(maps[1][scored], maps[0][scored]).tolist()
    return found


def scores(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main(["evaluate", *map(str, words), "--json", "-q"]) == 0
    return json.loads(capsys.readouterr().out)


def test_figures_are_those_of_scikit_learn(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = raster(tmp_path / "t.tif", maps[1])
    found = scores(capsys, prediction, truth)
    assert found["confusion"] == counted(maps)
    assert found["terms"]["classes"] == list(NAMES)
    assert main(["evaluate", str(prediction), str(truth)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("class")
    assert "road" in out
    assert "evaluate" in err


def test_labels_that_were_compressed_with_loss_are_refused(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path
) -> None:
    """Their values are classes still, though not those that were written."""
    Image.fromarray(maps[1]).save(tmp_path / "t.jpg")
    raster(tmp_path / "t.tif", maps[1], compress="JPEG")
    for name in ("t.jpg", "t.tif"):
        with pytest.raises(InputError, match="compressed with loss"):
            tp.evaluate(prediction, tmp_path / name)


@pytest.mark.parametrize("kind", ["png", "palette png", "palette tif", "int16", "masked", "ome-zarr", "array"])
def test_truth_in_many_forms(maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path, kind: str) -> None:
    truth: Any = tmp_path / {"png": "t.png", "palette png": "t.png", "ome-zarr": "t.ome.zarr"}.get(kind, "t.tif")
    if kind == "png":
        Image.fromarray(maps[1]).save(truth)
    elif kind == "palette png":
        picture = Image.fromarray(maps[1])
        picture.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
        picture.save(truth)
    elif kind == "palette tif":
        with rasterio.open(raster(truth, maps[1], photometric="palette"), "r+") as file:
            file.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0)})
    elif kind == "int16":
        raster(truth, maps[1].astype(np.int16))
    elif kind == "masked":
        raster(truth, np.where(maps[1] == 255, 7, maps[1]).astype(np.uint8), nodata=7)
    elif kind == "ome-zarr":
        write_ome_zarr(label_map_of(maps[1], Legend("truth", NAMES, ((0, 0, 0),) * 2, 255)), truth)
    else:
        truth = maps[1]
    found = tp.evaluate(prediction, truth).to_json()
    assert found["confusion"] == counted(maps)


def test_values_are_mapped_and_ignored(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = np.choose(np.where(maps[1] == 255, 2, maps[1]), [255, 1, 0]).astype(np.uint8)  # field 255, road 1, void 0
    truth = raster(tmp_path / "t.tif", other)
    assert scores(capsys, prediction, truth, "--values", "255:0,1:1", "--ignore", 0)["confusion"] == counted(maps)
    assert main(["evaluate", str(prediction), str(truth), "--values", "255:0", "--ignore", "0", "-q"]) == 4
    assert (
        "t.tif holds the value 1, which is no class; say of which class it is with --values" in capsys.readouterr().err
    )
    assert main(["evaluate", str(prediction), str(truth), "--values", "255:0,1:2", "-q"]) == 2
    assert "value 1 cannot be class 2: there are 2" in capsys.readouterr().err
    for wrong in ("1", "a:b", "1:2:3"):
        assert main(["evaluate", str(prediction), str(truth), "--values", wrong]) == 2
        assert "is not a list like 1:0,2:1" in capsys.readouterr().err


def test_a_class_can_be_left_out(maps: tuple[np.ndarray, np.ndarray], prediction: Path) -> None:
    found = tp.evaluate(prediction, np.where(maps[1] == 255, 1, maps[1]).astype(np.int16), ignore=0).to_json()
    assert found["confusion"][0] == [0, 0]
    assert sum(found["confusion"][1]) == int(((maps[1] != 0) & (maps[0] != 255)).sum())


def test_a_mask_of_0_and_255_is_no_mask_of_one_class(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path
) -> None:
    """255 is left out where nobody says anything; then it must not be all of a class."""
    two = np.where(maps[1] == 255, 0, maps[1])
    truth = raster(tmp_path / "t.tif", (two * 255).astype(np.uint8))
    with pytest.raises(
        InputError, match=r"t\.tif holds .* and no other class; .*`values=\{0: 0, 255: 1\}`; .* `ignore=255`"
    ):
        tp.evaluate(prediction, truth)
    found = tp.evaluate(prediction, truth, values={0: 0, 255: 1})
    assert found.to_json()["confusion"] == counted((maps[0], two))
    left = tp.evaluate(prediction, truth, ignore=255)
    assert "road 0" in left.table(), "what has no true pixel is said"


@pytest.mark.parametrize("kind", ["truth", "prediction"])
def test_a_class_that_a_file_calls_nodata_is_asked_about(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path, kind: str
) -> None:
    two = np.where(maps[1] == 255, 0, maps[1]).astype(np.uint8)
    odd = raster(tmp_path / "t.tif", two, nodata=0)
    asked = (odd, two) if kind == "prediction" else (prediction, odd)
    remedy = "gdal_edit.py -unsetnodata" if kind == "prediction" else r"`values=\{0: 0, 1: 1\}`; .* `ignore=0`"
    with pytest.raises(InputError, match=f"says that 0 is nodata, and 0 is the value of a class.*{remedy}"):
        tp.evaluate(*asked, classes=["field", "road"])
    if kind == "truth":
        assert tp.evaluate(*asked, values={0: 0, 1: 1}).to_json()["confusion"] == counted((maps[0], two))
        assert sum(tp.evaluate(*asked, ignore=0).to_json()["confusion"][0]) == 0


@pytest.mark.parametrize("kind", ["int32", "uint32", "float32", "float64"])
def test_whole_numbers_of_any_type_are_labels(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path, kind: str
) -> None:
    truth = raster(tmp_path / "t.tif", maps[1].astype(kind))
    assert tp.evaluate(prediction, truth).to_json()["confusion"] == counted(maps)


def test_values_beyond_any_class_are_found(prediction: Path, maps: tuple[np.ndarray, np.ndarray]) -> None:
    for value in (-1, -32768, 70000, -(2**40)):
        truth = maps[1].astype(np.int64)
        truth[40, 41] = value
        with pytest.raises(InputError, match=f"holds the value {value}, which is no class"):
            tp.evaluate(prediction, truth)


def test_a_prediction_of_another_program_needs_class_names(
    maps: tuple[np.ndarray, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = raster(tmp_path / "p.tif", maps[0]), raster(tmp_path / "t.tif", maps[1])
    assert main(["evaluate", str(first), str(second)]) == 2
    assert "p.tif does not name its classes" in capsys.readouterr().err
    assert scores(capsys, first, second, "--classes", "a,b")["confusion"] == counted(maps)
    assert main(["evaluate", str(first), str(second), "--classes", "a", "-q"]) == 4
    assert "p.tif holds the value 1, which is no class; name all classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"transform": Affine(0.5, 0, 300001.5, 0, -0.5, 5200000.75)}, r"one has the transform \(0.5, 0.0, 300000.25"),
        ({"transform": Affine(0.6, 0, 300000.25, 0, -0.6, 5200000.75)}, r"lie at different places: .*gdalwarp -r near"),
        ({"crs": "EPSG:32634"}, "one is in EPSG:32633, the other in EPSG:32634"),
    ],
)
def test_another_place_is_refused(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        tp.evaluate(prediction, raster(tmp_path / "t.tif", maps[1], **changed))


def test_a_rounded_transform_is_the_same_place(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path
) -> None:
    near = Affine(0.5000001, 0, 300000.2500001, 0, -0.5, 5200000.75)
    tp.evaluate(prediction, raster(tmp_path / "t.tif", maps[1], transform=near))


def test_another_size_without_a_position_is_refused_with_both(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path
) -> None:
    with pytest.raises(InputError, match=r"p\.tif is 150 x 210 pixels, x 300000.*; array is 100 x 210 pixels; compare"):
        tp.evaluate(prediction, maps[1][:100])


@pytest.mark.parametrize(
    ("truth", "sentence"),
    [
        (np.zeros((HEIGHT, WIDTH), np.float32), "no label map"),
        (np.zeros((3, HEIGHT, WIDTH), np.uint8), "no label map"),
    ],
)
def test_arrays_that_are_no_labels(prediction: Path, truth: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tp.evaluate(prediction, truth)


def test_pictures_that_are_no_labels(prediction: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(InputError, match="has 3 bands of uint8; labels are one band"):
        tp.evaluate(prediction, tmp_path / "rgb.png")
    (tmp_path / "text.png").write_text("hello")
    for name in ("text.png", "none.tif"):
        with pytest.raises(InputError, match=name):
            tp.evaluate(prediction, tmp_path / name)


def test_the_page_is_written_once(
    maps: tuple[np.ndarray, np.ndarray], prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, page = raster(tmp_path / "t.tif", maps[1]), tmp_path / "page.html"
    words = ["evaluate", str(prediction), str(truth), "-q", "--page"]
    assert main([*words, str(page)]) == 0
    text = page.read_text()
    assert "<h1>Prediction against truth</h1>" in text
    page.write_text("mine")
    assert main([*words, str(page)]) == 2
    assert page.read_text() == "mine"
    assert main([*words, str(page), "--overwrite"]) == 0
    assert page.read_text() == text
    assert main([*words, str(tmp_path / "none" / "page.html")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.qml", "p.tif", "p.tif.aux.xml", "page.html", "t.tif"]
    capsys.readouterr()


def test_unknown_settings_are_named(prediction: Path) -> None:
    with pytest.raises(UsageError, match="'clases' is not known"):
        tp.evaluate(prediction, prediction, clases=["a"])  # type: ignore[call-arg]


def test_the_width_is_asked_for(prediction: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scores(capsys, prediction, prediction, "--width", 5)["terms"]["width"] == 5
    assert main(["evaluate", str(prediction), str(prediction), "--width", "0"]) == 2
    assert "boundary width of 0 pixels" in capsys.readouterr().err


def test_what_segment_returns_can_be_scored(image: Path, model: Path, tmp_path: Path) -> None:
    result = tp.segment(image, model, tmp_path / "out.tif")
    found = tp.evaluate(result.labels, np.asarray(result.labels))
    assert found.confusion.accuracy == 1
