"""What is known of a model's reach before a plan: the card's word, a measurement, or why there is none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tilepipe as tp
import tilepipe.models.probe.procedure
from tilepipe.box import Sides
from tilepipe.errors import ModelError
from tilepipe.models.formats.directory import save_model
from tilepipe.models.probe.result import Probe
from tilepipe.planning import receptive_field
from tilepipe.planning.certify import certificate_of
from tilepipe.planning.plan import Plan
from tilepipe.testing import codes_model, noise, random_unet, whole_image


def local_net() -> tp.Model:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 2, 2, stride=2))
    return tp.Model.from_torch(net, tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3))


def normed_net() -> tp.Model:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1))
    return tp.Model.from_torch(net, tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3))


class Dice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] + torch.rand(())


@pytest.fixture(scope="module")
def local() -> tp.Model:
    return local_net()


def test_a_module_without_a_halo_is_measured_and_runs_exactly(local: tp.Model, tmp_path: Path) -> None:
    image = noise(150, 210)
    result = tp.segment(image, local, tmp_path / "labels.tif", tile=64)
    assert result.plan.reach == receptive_field.Reach(Sides(2, 2, 2, 2), "measured")
    assert (result.plan.tiling.stride, result.plan.tiling.halo, result.plan.tiling.window) == (2, 2, "crop")
    aligned = tp.Model.from_torch(local.module, local.card.model_copy(update={"stride": 2}))
    assert (np.asarray(result.labels) == whole_image(aligned, image)).all()
    assert result.certificate.mode == "EXACT"
    assert result.certificate.reach == Sides(2, 2, 2, 2)
    assert result.certificate.cost == pytest.approx(result.plan.work, abs=1e-3)


def test_it_is_measured_once_for_the_same_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = local_net(), []
    answer = Probe(2, Sides(2, 2, 2, 2))
    monkeypatch.setenv("TILEPIPE_CACHE", "")
    monkeypatch.setattr(sys.modules["tilepipe.models.probe.procedure"], "_SEEN", {})
    monkeypatch.setattr(sys.modules["tilepipe.models.probe.procedure"], "_run", lambda *_: calls.append(1) or answer)
    said: list[str] = []
    for _ in range(2):
        assert receptive_field.measure_receptive_field(model, lambda event: said.append(event.message))[0].halo == 2
    assert len(calls) == 1
    assert said == ["measuring the model's stride and reach"]
    with torch.no_grad():
        model.module[0].weight[0, 0, 0, 0] += 1
    receptive_field.measure_receptive_field(model, lambda event: said.append(event.message))
    assert len(calls) == 1
    assert said[1:] == ["stride and reach follow from the model's layers, which were measured before"]


def test_a_global_model_is_named_and_blended(tmp_path: Path) -> None:
    plan = tp.plan(noise(300, 300), normed_net(), tile=64, statistics="tile")
    assert (plan.tiling.overlap, plan.tiling.window, plan.tiling.halo) == (32, "gaussian", None)
    assert "instance norm (1)" in str(plan)
    assert Plan.from_json(plan.to_json()) == plan
    certificate = certificate_of(plan, normed_net())
    assert certificate.mode == "BLEND"
    assert "uncertified" in certificate.sentences[0]
    assert "instance norm (1)" in certificate.sentences[0]


def test_a_random_model_is_refused() -> None:
    model = tp.Model.from_torch(Dice(), tp.ModelCard(bands=3, classes=["a", "b"]))
    with pytest.raises(tp.TilepipeError, match="random"):
        tp.plan(noise(64, 64), model)


def test_a_model_that_cannot_be_measured_still_runs() -> None:
    plan = tp.plan(noise(900, 900, bands=1), codes_model())
    assert plan.tiling.window == "gaussian"
    assert "cannot be measured" in plan.seams


def test_what_only_the_card_says_is_not_certified() -> None:
    model = codes_model(halo=8)
    plan = tp.plan(noise(900, 900, bands=1), model)
    assert (plan.tiling.overlap, plan.tiling.window, plan.exact) == (16, "crop", False)
    assert plan.seams.startswith(
        "not certified: 8 px of context, as far as the model's card says that it sees, not measu"
    )
    certificate = certificate_of(plan, model)
    assert (certificate.mode, certificate.reach) == ("UNCERTIFIED", Sides(8, 8, 8, 8))
    assert "may depend on how the image was cut (uncertified)" in certificate.sentences[0]
    assert "as far as the model's card says that it sees, not measured" in certificate.sentences[0]
    assert Plan.from_json(plan.to_json()) == plan


def test_a_measure_that_takes_too_long_confirms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", "")
    monkeypatch.setattr(sys.modules["tilepipe.models.probe.stride_and_field"], "PATIENCE", 0.0)
    net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=150, dilation=150))
    says = {halo: tp.Model.from_torch(net, tp.ModelCard(bands=3, classes=["a", "b"], halo=halo)) for halo in (90, 150)}
    with pytest.raises(ModelError, match="the card says halo 90, measured reach is at least 96"):
        receptive_field.measure_receptive_field(says[90])
    card, found = receptive_field.measure_receptive_field(says[150])
    assert (card.halo, found.sides, found.measured) == (150, Sides(150, 150, 150, 150), False)
    assert "wider inputs take too long to measure" in found.known


@pytest.mark.long
def test_a_region_by_a_models_path_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    model = random_unet()
    card = model.card.model_copy(update={"arch": {"name": "unet", "width": 4, "depth": 2}})
    path = save_model(replace(model, card=card), tmp_path / "net.model")
    run, calls = sys.modules["tilepipe.models.probe.procedure"], []
    measure = run._run
    monkeypatch.setattr(run, "_SEEN", {})
    monkeypatch.setattr(run, "_run", lambda *known: calls.append(1) or measure(*known))
    for box in (tp.Box(0, 0, 40, 40), tp.Box(20, 30, 90, 80)):
        tp.predict(noise(100, 100), str(path), box, tile=64)
    tp.segment(noise(100, 100), str(path), tmp_path / "a.tif", tile=64, workers=1)
    assert len(calls) == 1
    assert not (path / "certificate.json").exists(), "a model directory may be somebody else's"


def test_an_overlap_of_the_user_is_held_against_what_was_measured() -> None:
    image, model = noise(300, 300), local_net()
    enough, less = (tp.plan(image, model, tile=64, overlap=overlap, window_shape="crop") for overlap in (8, 0))
    assert enough.tiling.halo == less.tiling.halo == 2
    assert enough.exact
    assert less.seams == "not certified: an overlap of 4 with crop windows would be exact"


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "EXACT"),
        ({"overlap": 32}, "BLEND"),
        ({"overlap": 32, "window_shape": "crop"}, "UNCERTIFIED"),
        ({"overlap": 64, "window_shape": "hann"}, "BLEND"),
    ],
)
def test_modes(settings: dict[str, object], mode: str) -> None:
    model = random_unet()
    certificate = certificate_of(tp.plan(noise(300, 400), model, tile=128, **settings), model)  # type: ignore[arg-type]
    assert (certificate.mode, certificate.known) == (mode, "measured")
    assert certificate.versions["weights"] == model.sha256()


def test_one_tile_cuts_nothing() -> None:
    model = normed_net()
    certificate = certificate_of(tp.plan(noise(60, 60), model), model)
    assert (certificate.mode, certificate.whole, certificate.cost) == ("EXACT", True, 1.0)
    assert "one tile covers it" in certificate.sentences[0]


def test_probe_takes_a_model(local: tp.Model) -> None:
    assert tp.probe(local).stride == 2
    with pytest.raises(tp.TilepipeError, match="bands are missing"):
        tp.probe(local.module)
