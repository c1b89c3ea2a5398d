import base64
import json
import re
import subprocess
import sys
from html import unescape
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.measure import label

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError, UsageError
from tilepipe.evaluation.accuracy import stream
from tilepipe.evaluation.accuracy.page import comparison_map, write_page
from tilepipe.evaluation.accuracy.stream import evaluate
from tilepipe.evaluation.accuracy.terms import Terms
from tilepipe.evaluation.metrics.boundary import boundary_of
from tilepipe.evaluation.metrics.coarseness import ideal
from tilepipe.evaluation.metrics.components import components_of
from tilepipe.evaluation.metrics.confusion import confusion_matrix, confusion_of
from tilepipe.evaluation.metrics.objects import object_scores
from tilepipe.evaluation.metrics.pair import pair


class Held:
    """A label map in memory, read by box; boxes must lie inside."""

    def __init__(self, labels):
        self.labels, self.shape = labels, labels.shape

    def read(self, box):
        assert Box.of_shape(*self.shape).contains(box)
        return self.labels[box.y0 : box.y1, box.x0 : box.x1]


def scene(seed, height=300, width=270):
    """(prediction, truth): blobs of three classes, the prediction shifted, speckled and with holes in both."""
    rng = np.random.default_rng(seed)
    truth = np.stack([gaussian_filter(rng.standard_normal((height, width)), 6) for _ in range(3)]).argmax(0)
    prediction = np.roll(truth, 2, 1).astype(np.uint8)
    speckle = rng.random(truth.shape)
    prediction[speckle < 0.01] = 1
    prediction[speckle > 0.999] = 255
    truth = truth.astype(np.uint8)
    truth[40:60, 100:170] = 9
    return prediction, truth


TERMS = Terms(("field", "forest", "<script>alert(1)</script>"), ignore=9, width=3, feature_stride=8, tile=16, step=16)


@pytest.mark.parametrize(("band", "columns"), [(2**22, 1024), (270 * 8, 64), (270 * 40, 104)])
def test_bands_give_the_figures_of_the_whole(monkeypatch, band, columns):
    prediction, truth = scene(0)
    monkeypatch.setattr(stream, "_BAND_PIXELS", band)
    monkeypatch.setattr(stream, "_COLUMNS", columns)
    monkeypatch.setattr(stream, "_COMPONENT_PIXELS", 270 * 11)
    events = []
    found = evaluate(Held(prediction), Held(truth), TERMS, events.append)
    maps = pair(prediction, truth, 3, ignore=9)
    assert found.confusion == confusion_matrix(prediction, truth, 3, ignore=9)
    assert found.boundaries == tuple(boundary_of(maps, width) for width in (1, 3, 8))
    assert found.boundary.width == 3
    whole = components_of(maps)
    assert (found.components.predicted, found.components.true) == (whole.predicted, whole.true)
    assert found.components.split == pytest.approx(whole.split)
    scored = (prediction != 255) & (truth != 9)
    for c, scores in enumerate(found.objects):
        wanted = object_scores(*(label((m == c) & scored, connectivity=1) for m in (prediction, truth)))
        assert (scores.matched, scores.predicted, scores.true) == (wanted.matched, wanted.predicted, wanted.true)
        assert scores.panoptic_quality == pytest.approx(wanted.panoptic_quality)
        assert scores.predicted > scores.matched > 0
    assert found.coarseness.ideal_iou == confusion_of(ideal(maps, 8)).mean_iou
    assert found.overview.scored.sum() == found.confusion.pixels
    assert found.overview.wrong.sum() == found.confusion.pixels - np.trace(found.confusion.matrix)
    assert found.seams.worst.seams == 34
    assert not found.seams.found
    assert (events[-1].done, events[-1].total) == (300, 300)


def test_cells_of_a_large_map_hold_its_errors(monkeypatch):
    monkeypatch.setattr(stream, "_OVERVIEW", 40)
    prediction, truth = scene(1)
    found = evaluate(Held(prediction), Held(truth), TERMS)
    assert found.overview.cell == 8
    wrong = (prediction != truth) & (prediction != 255) & (truth != 9)
    cells = [[wrong[y : y + 8, x : x + 8].sum() for x in range(0, 270, 8)] for y in range(0, 300, 8)]
    np.testing.assert_array_equal(found.overview.wrong, cells)


def test_json_and_table():
    prediction, truth = scene(2)
    terms = Terms(("field", "forest", "water", "snow"), ignore=9)
    found = evaluate(Held(prediction), Held(truth), terms)
    figures = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert figures["mean_iou"] == found.confusion.mean_iou
    assert figures["classes"][3]["iou"] is None
    assert figures["classes"][1]["boundary_f1"] == found.boundary.f1[1]
    assert figures["seams"] is None
    assert [b["width"] for b in figures["boundary"]] == [1, 2, 8]
    assert figures["majority_baseline"]["mean_iou"] < figures["mean_iou"]
    assert [line["prediction"]["stride"] for line in figures["checkerboard"]] == [2, 4, 8, 16]
    table = found.table().splitlines()
    assert table[0].split()[:3] == ["class", "IoU", "Dice"]
    assert table[4].split()[:2] == ["snow", "-"]
    assert len({len(line) for line in table[:5]}) == 1
    assert any(line.startswith("components: ") for line in table)


def test_objects_come_after_iou_and_dice_and_the_background_has_none():
    truth = np.zeros((20, 20), np.uint8)
    truth[2:8, 2:8] = truth[12:18, 2:8] = truth[2:8, 12:18] = 1
    prediction = np.zeros_like(truth)
    prediction[2:8, 2:8] = 1  # one is found as it is
    prediction[12:18, 2:6] = 1  # one as two thirds of it, one not at all
    found = evaluate(Held(prediction), Held(truth), Terms(("background", "house")))
    head, background, house, mean, *lines = found.table().splitlines()
    assert head.split()[:5] == ["class", "IoU", "Dice", "object", "F1"]
    assert (background.split()[3], house.split()[3], mean.split()[3]) == ("-", "0.8000", "0.8000")
    assert lines[2].split()[:2] == ["class", "PQ"]
    assert [lines[k].split()[1] for k in (3, 4)] == ["-", "0.6667"]
    said = "objects (4-connected pixels of one class, IoU above 0.5): house 2 match of 2 predicted and 3 true"
    assert said in lines
    assert [row["object_f1"] for row in found.to_json()["classes"]] == [None, 0.8]
    assert found.to_json()["classes"][1]["objects"]["matched"] == 2


def test_a_perfect_prediction():
    _, truth = scene(3)
    found = evaluate(Held(truth), Held(truth), Terms(("a", "b", "c"), ignore=9, nodata=9))
    assert found.confusion.mean_iou == found.boundary.mean_f1 == found.boundary.mean_iou == 1
    assert found.components.ratio == 1
    assert found.coarseness.loss < 0
    assert all(p == t for p, t in found.checkerboards)


def test_small_and_empty_maps():
    one = evaluate(Held(np.zeros((1, 1), np.uint8)), Held(np.zeros((1, 1), np.uint8)), Terms(("a", "b")))
    assert one.confusion.accuracy == 1
    assert one.checkerboards == ()
    nothing = Held(np.full((40, 40), 255, np.uint8))
    empty = evaluate(nothing, nothing, Terms(("a",)))
    assert empty.to_json()["mean_iou"] is None
    assert "0 pixels scored" in empty.table()


def test_the_page_is_self_contained_escaped_and_has_pictures(tmp_path):
    prediction, truth = scene(4)
    found = evaluate(Held(prediction), Held(truth), TERMS)
    write_page(found, Held(prediction), Held(truth), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "default-src 'none'" in unescape(text)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r"(src|href)=\"(?!data:image/png)", text)
    pictures = [Image.open(BytesIO(base64.b64decode(d))) for d in re.findall(r"base64,([^\"]+)\"", text)]
    assert [picture.size for picture in pictures] == [(270, 300)] * 3 + [(256, 256)] * 2
    first, errors = np.asarray(pictures[0]), np.asarray(pictures[1])
    assert text.index("Dice</th>") < text.index("base64,") < text.index("All figures") < text.index("precision</th>")
    assert tuple(errors[50, 120]) == (200, 200, 200)  # not scored
    wrong = (prediction != truth) & (prediction != 255) & (truth != 9)
    np.testing.assert_array_equal((errors == (200, 0, 0)).all(-1), wrong)
    np.testing.assert_array_equal((first == (200, 0, 0)).all(-1), wrong)  # no class is called background
    outlines = np.asarray(pictures[2])
    colors = {tuple(color) for color in outlines.reshape(-1, 3)}
    assert {(0, 130, 60), (0, 70, 200), (200, 200, 200)} <= colors
    with pytest.raises(StorageError, match="cannot write"):
        write_page(found, Held(prediction), Held(truth), tmp_path / "none" / "page.html")


@pytest.mark.parametrize("band", [2**22, 70 * 8])
def test_the_first_picture_shows_what_is_found_missed_and_invented(monkeypatch, band):
    monkeypatch.setattr(stream, "_BAND_PIXELS", band)
    monkeypatch.setattr(stream, "_OVERVIEW", 30)
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 4, (2, 61, 70)).astype(np.uint8)
    prediction[prediction == 3] = 255
    truth[truth == 3] = 255
    found = evaluate(Held(prediction), Held(truth), Terms(("background", "house", "road")))
    cell = found.overview.cell
    assert cell == 3
    rows, columns = (np.minimum(np.arange(-(-n // cell)) * cell + cell // 2, n - 1) for n in truth.shape)
    p, t = prediction[rows[:, None], columns], truth[rows[:, None], columns]
    wanted = np.full((*p.shape, 3), 255)
    wanted[(p == t) & (t > 0)] = 150, 205, 165
    wanted[(p != t) & (p > 0) & (t > 0)] = 235, 145, 0
    wanted[(p == 0) & (t > 0)] = 200, 0, 0
    wanted[(p > 0) & (t == 0)] = 0, 70, 200
    wanted[(p == 255) | (t == 255)] = 200
    np.testing.assert_array_equal(comparison_map(found), wanted)


def test_bad_input_is_refused():
    maps = Held(np.zeros((4, 5), np.uint8)), Held(np.zeros((5, 4), np.uint8))
    with pytest.raises(InputError, match="prediction is 4 x 5 pixels, truth 5 x 4"):
        evaluate(*maps, Terms(("a",)))
    with pytest.raises(InputError, match="truth holds the value 7, but there are 2 classes"):
        evaluate(maps[0], Held(np.full((4, 5), 7, np.uint8)), Terms(("a", "b")))
    for wrong, message in (
        ({"classes": ()}, "no classes"),
        ({"width": 0}, "width of 0 pixels"),
        ({"feature_stride": 65}, "feature stride of 65"),
        ({"step": 3}, "step of 3 without"),
    ):
        with pytest.raises(UsageError, match=message):
            Terms(**{"classes": ("a",)} | wrong)


LARGE = """
import sys
import numpy as np
from scipy.ndimage import gaussian_filter
from tilepipe.evaluation.accuracy.stream import evaluate
from tilepipe.evaluation.accuracy.terms import Terms
side = int(sys.argv[1])
rng = np.random.default_rng(0)
scores = [gaussian_filter(rng.standard_normal((640, 640)), 5, mode="wrap") for _ in range(3)]
unit = np.stack(scores).argmax(0).astype(np.uint8)
class Tiled:
    shape = side, side
    def __init__(self, shift):
        self.shift = shift
    def read(self, box):
        rows, columns = np.arange(box.y0, box.y1) % 640, (np.arange(box.x0, box.x1) + self.shift) % 640
        return unit[np.ix_(rows, columns)]
def peak():  # ru_maxrss would count the process that started this one
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
found = evaluate(Tiled(2), Tiled(0), Terms(("a", "b", "c"), tile=640, step=512))
assert found.confusion.pixels == side * side, found.confusion.pixels
print(peak())
"""


@pytest.mark.long
def test_a_pair_of_20000_x_20000_stays_under_1_gib():
    done = subprocess.run([sys.executable, "-c", LARGE, "20000"], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 1024**2


def test_an_array_against_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder and the other map is none"):
        tp.evaluate(np.zeros((2, 2), np.uint8), tmp_path, classes=["a", "b"])
