"""Several models: labels of the mean of their probabilities, whatever the tiles, against torch on the whole image."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from helpers.fakes import global_model
from helpers.small_runs import StopError, stop_at
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.cli.main import main
from tilepipe.errors import InputError, ModelError, UsageError
from tilepipe.evaluation.verify.verify import verify
from tilepipe.execution.batch import run_batch
from tilepipe.models.model import Model
from tilepipe.testing import noise, random_unet, write_geotiff, write_model

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
PIXELS = noise(120, 168).read(Box(0, 0, 120, 168))
CROP: dict[str, Any] = {"tile": 72, "overlap": 48, "window_shape": "crop", "block": 72}
HANN: dict[str, Any] = {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 64}


def member(seed: int, depth: int, mean: float) -> Model:
    found = random_unet(depth=depth, seed=seed)
    return Model(found.card.model_copy(update={"mean": (mean,) * 3, "colors": ()}), found.module)


MODELS = [member(1, 1, 127.0), member(2, 2, 100.0)]


def probabilities() -> NDArray[np.float64]:
    """Probabilities (members, classes, height, width) of one pass of each model over the whole image."""
    found = []
    for model in MODELS:
        with torch.inference_mode():
            scores = model.module(model.normalise(torch.from_numpy(PIXELS[None])))
        found.append(scores.double().softmax(1)[0].numpy())
    return np.stack(found)


def entropy(p: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(-(p * np.log(np.maximum(p, 1e-300))).sum(axis) / np.log(p.shape[axis]))


def bands(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def test_labels_layers_and_probabilities_are_those_of_the_mean(tmp_path: Path) -> None:
    image, of, layers = noise(120, 168), "cog,probabilities", "margin,mutual-information"
    result = tp.segment(image, MODELS, tmp_path / "a.tif", of=of, layers=layers, **CROP)
    each = probabilities()
    mean = each.mean(0)
    first, second = np.sort(mean, 0)[::-1][:2]
    assert (result.labels[:] == mean.argmax(0))[first - second > 1e-5].all()
    for one in each:
        assert (one.argmax(0) != mean.argmax(0)).mean() > 0.05, "the members say something else"
    assert np.abs(bands(tmp_path / "a.probabilities.tif") - 254 * mean).max() < 0.51
    information = entropy(mean, 0) - entropy(each, 1).mean(0)
    assert information.max() > 0.1
    layer = result.layers["mutual-information"]
    assert np.abs(layer[:] * layer.scale - information).max() < 0.51 / 254
    assert [path.name for path in result.paths][2:] == ["a.margin.tif", "a.mutual-information.tif"]
    plan = result.plan
    assert (result.certificate.mode, plan.exact, plan.reach.sides) == (
        "EXACT", True, tp.plan(image, MODELS[1]).reach.sides
    )  # fmt: skip
    assert verify(tmp_path / "a.tif", image, MODELS[::-1], windows=0).holds
    with pytest.raises(InputError, match="is not what"):
        verify(tmp_path / "a.tif", image, MODELS[0], windows=0)


@pytest.mark.parametrize(
    ("tta", "cut"),
    [
        pytest.param("none", HANN, id="none-hann"),
        pytest.param("d4", CROP, id="d4-crop", marks=pytest.mark.long),
        pytest.param("none", CROP, id="none-crop", marks=pytest.mark.long),
        pytest.param("d4", HANN, id="d4-hann", marks=pytest.mark.long),
    ],
)
def test_the_same_bytes_in_any_order_of_models_and_blocks(cut: dict[str, Any], tta: Any, tmp_path: Path) -> None:
    valid = np.ones((120, 168), bool)
    valid[50:80, 40:90] = False
    image = tp.sources.array.ArraySource(PIXELS, valid=valid)  # type: ignore[attr-defined]
    asked: dict[str, Any] = {**cut, "tta": tta, "of": "cog,probabilities", "layers": "mutual-information"}
    first = tp.segment(image, MODELS, tmp_path / "a.tif", **asked)
    with pytest.raises(StopError):
        tp.segment(image, MODELS[::-1], tmp_path / "b.tif", listener=stop_at("predict", 2), **asked)
    other = tp.segment(image, MODELS, tmp_path / "b.tif", **asked)
    assert first.record["key"] == other.record["key"]
    third = tp.segment(image, MODELS[::-1], tmp_path / "c.tif", **{**asked, "block": 144})
    for path, again, blocks in zip(first.paths, other.paths, third.paths, strict=True):
        assert path.read_bytes() == again.read_bytes() == blocks.read_bytes()
    part = tp.predict(image, MODELS, Box(20, 30, 100, 150), **cut, tta=tta)
    assert (part == first.labels[20:100, 30:150]).all()
    assert (first.layers["mutual-information"][:][~valid] == 255).all()


@pytest.mark.long
def test_the_command_line_and_the_command_that_makes_it_again(tmp_path: Path, capsys: Any) -> None:
    image = write_geotiff(tmp_path / "in.tif", PIXELS)
    models = [str(write_model(tmp_path / f"{name}.model", random_unet(depth=1, seed=k))) for k, name in enumerate("ab")]
    labels = tmp_path / "out.tif"
    named = ["-m", models[0], "-m", models[1]]
    assert (
        main(["segment", str(image), str(labels), *named, "--of", "cog,report", "--layers", "mutual-information"]) == 0
    )
    read = [tp.load_model(path) for path in models]
    assert (bands(labels)[0] == tp.predict(image, read)).all()
    (record,) = tmp_path.glob(".out.tif.tilepipe/*/run.json")
    command = shlex.split(tp.storage.read_json(record)["command"])  # type: ignore[attr-defined]
    assert [command[at + 1] for at, word in enumerate(command) if word == "-m"] == models
    assert main([*command[1:], "--quiet"]) == 0
    assert "a.model" in (tmp_path / "out.html").read_text()
    assert main(["verify", str(labels), "--quiet"]) == 0
    assert main(["verify", str(labels), *named[2:], *named[:2], "--quiet"]) == 0
    capsys.readouterr()
    assert main(["plan", str(image), *named]) == 0
    assert "model + model: 3 classes" in capsys.readouterr().out
    assert main(["plan", str(image), *named, "-m", models[0]]) == 5
    assert "a model is given twice" in capsys.readouterr().err


@pytest.mark.long
def test_a_jobs_file_may_name_several_models(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "in.tif", PIXELS)
    for k, name in enumerate("ab"):
        write_model(tmp_path / f"{name}.model", random_unet(depth=1, seed=k))
    (tmp_path / "jobs.yaml").write_text(
        "images: in.tif\nmodel: [a.model, b.model]\noutput: out/{stem}.labels.tif\nof: [cog, probabilities]\n"
    )
    report = run_batch.run(tmp_path / "jobs.yaml")
    assert [entry.status for entry in report.entries] == ["done"]
    models = [tp.load_model(tmp_path / f"{name}.model") for name in "ba"]
    assert (bands(tmp_path / "out/in.labels.tif")[0] == tp.predict(tmp_path / "in.tif", models)).all()
    assert bands(tmp_path / "out/in.labels.probabilities.tif").shape == (3, 120, 168)
    assert [entry.status for entry in run_batch.run(tmp_path / "jobs.yaml").entries] == ["unchanged"]


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    image = noise(120, 168)
    with pytest.raises(UsageError, match="layer mutual-information compares the answers of several models"):
        tp.plan(image, MODELS[0], layers="mutual-information")
    assert tp.plan(image, MODELS[0], layers="mutual-information", tta="d4").layers == ("mutual-information",)
    with pytest.raises(ModelError, match="cannot be averaged"):
        tp.segment(image, [MODELS[0], random_unet(classes=2)], tmp_path / "a.tif")
    plan = tp.plan(image, [global_model("instance"), global_model("group")], tile=64)
    assert (plan.statistics, plan.exact) == (None, False)
    assert "not fixed for the mean of several models" in plan.seams
    sizes = [tp.plan(image, MODELS, layers=layers, **HANN).memory for layers in ((), ("mutual-information",))]
    assert sizes[0].model < sizes[1].model
    assert sizes[0].blocks < sizes[1].blocks, "one plane of sums more"
