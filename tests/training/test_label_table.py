"""Before the first step: a table of labels, warnings with numbers, a picture; after the last step: scores."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.small_training import SMALL, Stop, discs, stopped_at
from PIL import Image

from tilepipe.cli.main import main
from tilepipe.errors import UsageError
from tilepipe.events import Event
from tilepipe.models.formats.directory import load_model
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.dry_run import dry_run
from tilepipe.training.loop import fit
from tilepipe.training.preview import GREY

Configure = Callable[..., TrainConfig]
Write = Callable[..., Path]


def lines(config: TrainConfig) -> list[str]:
    return Dataset(config).check()


def numbers(line: str) -> list[float]:
    return [float(word.replace(",", "").rstrip("%")) for word in re.findall(r"[\d,]+(?:\.\d+)?%?", line)]


def test_the_table_counts_what_numpy_counts(write: Write, configure: Configure) -> None:
    (image, train), (other, score) = discs(seed=0), discs(seed=1)
    train[:8] = 9
    entries = [
        {"image": str(write(f"{k}.tif", pixels)), "label": str(write(f"{k}_label.tif", label))}
        for k, (pixels, label) in enumerate(((image, train), (other, score)))
    ]
    said = lines(configure(**SMALL, train=[entries[0] | {"columns": [0, 40]}], score=entries[1:], ignore=[9]))
    table = said[next(k for k, line in enumerate(said) if line.startswith("class")) :]
    part = train[8:, :40]
    for k, name in enumerate("ab"):
        assert table[k + 1].startswith(name)
        pixels, share, scored, of_score = numbers(table[k + 1])
        assert (pixels, scored) == ((part == k).sum(), (score == k).sum())
        assert share == pytest.approx(100 * (part == k).mean(), abs=0.06)
        assert of_score == pytest.approx(100 * (score == k).mean(), abs=0.06)
    assert numbers(table[3])[:2] == [87.5, 1]
    assert table[4].split()[2:5] == ["0.5002", "x", "0.5002"]  # metres on the ground
    crops = "a crop is 32 x 32 pixels, 16.01 x 16.01 m; 8 steps of 2 crops read each labelled pixel about 7.3 times"
    assert crops in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": 32}, r"few labels: the 4,096 labelled pixels fill 4 crops of 32 x 32 pixels, and below 20"),
        ({"crop": 32}, r"few labels: b has \d+ labelled pixels \(\d+\.\d+%\), 0\.\d+ crops\. .*balance \(now 0\.5\)"),
        ({"crop": 96}, r"0\.tif has 64 x 64 pixels to train on and is smaller than a crop"),
        ({"score": []}, r"no image is kept apart"),
    ],
)
def test_few_labels_are_said_with_numbers(small: Configure, changes: dict[str, Any], words: str) -> None:
    said = [line for line in lines(small(**changes)) if re.search(words, line)]
    assert len(said) == 1


def test_scores_on_trained_pixels_are_said(small: Configure) -> None:
    same = [entry.model_dump(exclude_defaults=True) for entry in small().train]
    upper, lower = ([{**same[0], "rows": rows}] for rows in ([0, 40], [32, 64]))
    said = [line for line in lines(small(train=upper, score=lower)) if "share" in line]
    assert len(said) == 1
    assert re.search(r"score and train share 512 pixels of \S+0\.tif \(rows 32 to 40\), so the scores", said[0])
    lower[0]["rows"] = [40, 64]
    assert not [line for line in lines(small(train=upper, score=lower)) if "share" in line]


def test_few_polygons_are_counted_on_the_part_that_is_trained_on(
    write: Write, configure: Configure, tmp_path: Path
) -> None:
    squares = [[[x, y], [x + 4, y], [x + 4, y + 4], [x, y + 4]] for y in (5, 45) for x in (5, 15, 25)]
    features = [{"type": "Polygon", "coordinates": [ring]} for ring in squares]
    (tmp_path / "p.geojson").write_text(json.dumps([{"geometry": g, "properties": {}} for g in features]))
    entry = {"image": str(write("i.png", discs()[0])), "label": "p.geojson", "rows": [0, 30]}
    said = lines(configure(**SMALL, train=[entry]))
    assert [
        line for line in said if line.startswith("warning: few labels: 3 polygons of b to train on; label 20 or more")
    ]
    assert "6 of 6 polygons lie on the images" in said


def test_polygons_without_a_class_beside_classified_ones_are_said(
    write: Write, configure: Configure, tmp_path: Path
) -> None:
    squares = [[[x, 5], [x + 4, 5], [x + 4, 9], [x, 9]] for x in (5, 15, 25)]
    named = [{"classification": {"name": "b"}}, {}, {}]
    features = [
        {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}
        for ring, properties in zip(squares, named, strict=True)
    ]
    (tmp_path / "p.geojson").write_text(json.dumps(features))
    entry = {"image": str(write("i.png", discs()[0])), "label": "p.geojson"}
    said = [line for line in lines(configure(**SMALL, train=[entry])) if "have no class" in line]
    assert len(said) == 1
    assert said[0].startswith("warning: 2 polygons of ")
    assert "have no class and others have, so they count as b; classify or remove them" in said[0]


def test_a_dry_run_takes_no_step_and_keeps_nothing(
    small: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(small().model_dump(mode="json", exclude_defaults=True, by_alias=True)))
    before = {file.name for file in tmp_path.iterdir()}
    assert main(["train", str(path), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["class", "a", "b"]
    assert err == ""
    assert {file.name for file in tmp_path.iterdir()} == before
    with pytest.raises(UsageError, match="crop 34 is not a multiple of the network's total stride 4; use 36"):
        dry_run(small(crop=34))


def test_the_preview_shows_the_labels_in_their_colours(small: Configure, write: Write, tmp_path: Path) -> None:
    image = np.full((3, 64, 64), 200, np.uint8)
    label = np.zeros((64, 64), np.uint8)
    label[16:48, 16:48], label[:, 60:] = 1, 9
    entry = {"image": str(write("flat.tif", image)), "label": str(write("flat_label.tif", label))}
    config = small(train=[entry], crop=64, ignore=[9], colors=["#0000ff", "#ff0000"], classes=["background", "b"])
    said = dry_run(config, tmp_path / "p.png").splitlines()
    assert [line.split(":")[0] for line in said[-4:]] == [f"crop {k} of the preview" for k in (1, 2, 3, 4)]
    assert said[-4].endswith("from row 0, column 0, around a pixel of b"), "the rarest class comes first"
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int)
    side = 64 * 8
    crop = picture[:side, :side]
    assert (crop[side // 2, side // 2] == [219, 130, 130]).all(), "35 % of the colour lies over the image"
    assert (crop[16 * 8, 20 * 8] == [255, 0, 0]).all(), "an edge is opaque"
    assert (crop[60, 60] == 200).all(), "background hides nothing"
    striped = (crop[:, 60 * 8 :] == GREY).all(-1)
    assert striped.mean() == pytest.approx(0.5, abs=0.05)
    assert not (crop[40:, : 60 * 8] == GREY).all(-1).any()


def test_a_preview_is_written_before_the_first_step_and_never_over_something(small: Configure, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    with pytest.raises(Stop):
        fit(small(), stopped_at(1), preview=picture)
    assert picture.exists()
    for wrong, words in (
        (picture, r"p\.png exists; use `overwrite=True`"),
        (tmp_path / "p.jpg", "is no name of a picture"),
        (tmp_path / "none" / "p.png", "folder .* does not exist"),
    ):
        with pytest.raises(UsageError, match=words):
            fit(small(), preview=wrong)
    before = picture.read_bytes()
    dry_run(small(seed=3), picture, overwrite=True)
    assert picture.read_bytes() != before


def test_the_end_shows_scores_and_a_command_that_works(
    small: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(small().model_dump(mode="json", exclude_defaults=True, by_alias=True)))
    assert main(["train", str(path), "--progress", "plain"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "m.model")]
    scores = load_model(tmp_path / "m.model").card.training["scores"]["model"]
    for name, iou in scores["iou"].items():
        objects = f"  object F1 {scores['object_f1'][name]:.3f}"
        assert f"  {name}     IoU {iou:.3f}  Dice {2 * iou / (1 + iou):.3f}{objects}" in err
    assert f"mean  IoU {scores['mean_iou']:.3f}; {scores['accuracy']:.1%} of the pixels are right" in err
    assert re.search(r"simple answers: the commonest class everywhere 0\.\d+, the best threshold 0\.\d+", err)
    command = err.splitlines()[-1].removeprefix("next: tilepipe ")
    assert command == "segment 1.tif -m m.model"
    assert main(shlex.split(command)) == 0
    assert main(["train", str(path), "-q"]) == 0
    assert "IoU" not in capsys.readouterr().err


def test_the_end_without_images_kept_apart_says_so(
    small: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    config = small(score=[], steps=1)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True, by_alias=True)))
    events: list[Event] = []
    fit(config, events.append)
    assert main(["train", str(path)]) == 0
    assert "no scores: no image was kept apart; name images under score" in capsys.readouterr().err
