"""ONNX files against torch, through tiles; and files that must be refused."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_files import export, external, pointwise, save, write_card
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn

import tilepipe as tp
from tilepipe.errors import DeviceError, ModelError
from tilepipe.inference.profile.footprint import footprint
from tilepipe.models.formats.directory import load_model
from tilepipe.models.formats.onnx import start_session
from tilepipe.models.model import Model
from tilepipe.testing import random_unet


def picture(height: int, width: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (bands, height, width)).astype(np.uint8)


@pytest.fixture(scope="module")
def unet() -> Model:
    return random_unet()


@pytest.fixture(scope="module")
def exported(unet: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = export(unet.module, tmp_path_factory.mktemp("onnx") / "unet.onnx")
    path.with_suffix(".json").write_text(unet.card.model_copy(update={"arch": {}}).to_json())
    return path


def logits(model: Model, tiles: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.module(model.normalise(torch.from_numpy(tiles)))
    return found


def test_labels_are_torchs(unet: Model, exported: Path) -> None:
    image = picture(150, 131)
    ours, theirs = (tp.predict(image, model, tile=96) for model in (unet, exported))
    top = logits(unet, picture(152, 132)[None]).topk(2, dim=1).values
    assert np.unique(ours).size > 1
    assert float((top[:, 0] - top[:, 1]).median()) > 1e-2  # so that rounding cannot decide many labels
    assert (ours == theirs).mean() > 0.9999


def test_fp64_is_not_what_the_file_computes_in(exported: Path) -> None:
    with pytest.raises(ModelError, match=r"precision fp64 is not available for ONNX models.*; use fp32"):
        tp.plan(picture(150, 131), exported, precision="fp64")


def test_logits_are_torchs_for_every_batch_and_size(unet: Model, exported: Path) -> None:
    model = load_model(exported)
    for shape in ((1, 3, 32, 32), (3, 3, 64, 96)):
        tiles = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
        assert torch.allclose(logits(model, tiles), logits(unet, tiles), atol=1e-3)


def test_a_region_is_a_crop_of_the_whole(exported: Path) -> None:
    image = picture(170, 190)
    cut = {"tile": 96, "block": 100}
    whole = tp.predict(image, exported, **cut)
    part = tp.predict(image, exported, tp.Box(20, 41, 150, 171), **cut)
    assert np.array_equal(part, whole[20:150, 41:171])


@pytest.mark.long
def test_worker_processes_give_the_same(exported: Path, tmp_path: Path) -> None:
    image = picture(170, 190)
    result = tp.segment(image, exported, tmp_path / "out.tif", tile=96, block=100, workers=1)
    assert np.array_equal(np.asarray(result.labels), tp.predict(image, exported, tile=96, block=100))


@pytest.mark.long
def test_it_is_measured_like_the_network_it_came_from(unet: Model, exported: Path) -> None:
    ours, theirs = tp.probe(unet), tp.probe(load_model(exported))
    assert (ours.stride, ours.reach) == (theirs.stride, theirs.reach)
    assert theirs.evidence["black_box"]


def test_pickles_without_its_session_and_keeps_its_identity(exported: Path, tmp_path: Path) -> None:
    model, tile = load_model(exported), picture(32, 32)[None]
    before = logits(model, tile)
    again = pickle.loads(pickle.dumps(model))
    assert again.module._live == {}
    assert torch.equal(logits(again, tile), before)
    other = tmp_path / "elsewhere.onnx"
    other.write_bytes(exported.read_bytes())
    other.with_suffix(".json").write_text(exported.with_suffix(".json").read_text())
    assert load_model(other).sha256() == again.sha256() == model.sha256()
    other.write_bytes(save(pointwise(), tmp_path / "p.onnx").read_bytes())
    write_card(other)
    assert load_model(other).sha256() != model.sha256()


def test_its_bytes_count_as_weights(exported: Path) -> None:
    assert footprint(load_model(exported))[0] == exported.stat().st_size


def test_a_fixed_tile_and_batch_run_on_small_and_larger_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    path = write_card(export(net, tmp_path / "fixed.onnx", free=False, side=32), mean=[127] * 3, std=[60] * 3, halo=1)
    model = load_model(path)
    assert model.card.tile == 32
    same = Model.from_torch(net, model.card)
    for image in (picture(20, 27), picture(70, 90)):
        assert (tp.predict(image, model, batch=3) == tp.predict(image, same, batch=3)).mean() > 0.999
    with pytest.raises(ModelError, match=r"reads tiles of 32 x 32 px, not 64 x 64; use `tile=32`"):
        tp.predict(picture(70, 90), model, tile=64)


@pytest.mark.parametrize(("last", "channels"), [("Identity", 2), ("Softmax", 2), ("Identity", 1), ("Sigmoid", 1)])
def test_one_channel_and_probabilities_mean_the_same(tmp_path: Path, last: str, channels: int) -> None:
    path = write_card(save(pointwise(last, channels), tmp_path / "p.onnx"))
    image = picture(9, 11)
    labels = tp.predict(image, path)
    assert np.array_equal(labels, (image[0] > image[1]).astype(np.uint8))


def test_the_card_may_say_what_comes_out(tmp_path: Path) -> None:
    path = save(pointwise("Sigmoid"), tmp_path / "p.onnx")
    tile = picture(3, 3)[None] // 100
    scores = {}
    for output in ("logits", "probabilities"):
        write_card(path, arch={"name": "onnx", "output": output})
        scores[output] = logits(load_model(path), tile)
    assert torch.allclose(scores["logits"].clamp_min(torch.finfo(torch.float32).tiny).log(), scores["probabilities"])
    write_card(path, arch={"name": "unet"})
    with pytest.raises(ModelError, match=r"arch .*unet.* does not fit"):
        load_model(path)


def test_half_precision_is_fed_half_precision(tmp_path: Path) -> None:
    model = pointwise(dtype=TensorProto.FLOAT16)
    weight = model.graph.initializer[0]
    values = np.frombuffer(weight.raw_data, np.float32).astype(np.float16)
    weight.data_type, weight.raw_data = TensorProto.FLOAT16, values.tobytes()
    image = picture(9, 11)
    assert np.array_equal(
        tp.predict(image, write_card(save(model, tmp_path / "h.onnx"))), (image[0] > image[1]).astype(np.uint8)
    )


def test_a_model_directory_holds_it(tmp_path: Path) -> None:
    directory = tmp_path / "x.model"
    directory.mkdir()
    write_card(save(pointwise(), directory / "weights.onnx"))
    (directory / "weights.json").rename(directory / "model.json")
    assert load_model(directory).card.classes == ("other", "thing")
    assert load_model(directory / "weights.onnx").sha256() == load_model(directory).sha256()


DEEPNESS = {
    "model_type": json.dumps("Segmentor"), "class_names": json.dumps({"0": "field", "1": "road"}),
    "resolution": "20", "tiles_size": "256", "tiles_overlap": "15",
    "standardization_mean": "[0.5, 0.4, 0.3]", "standardization_std": "[0.2, 0.2, 0.1]",
}  # fmt: skip


def with_words(words: dict[str, str]) -> Any:
    model = pointwise()
    for key, value in words.items():
        model.metadata_props.add(key=key, value=value)
    return model


def test_deepness_files_bring_their_card(tmp_path: Path) -> None:
    card = load_model(save(with_words(DEEPNESS), tmp_path / "d.onnx")).card
    assert (card.bands, card.classes, card.resolution, card.unit, card.tile) == (3, ("field", "road"), 0.2, "m", 256)
    assert card.mean == pytest.approx((127.5, 102, 76.5))
    assert card.std == pytest.approx((51, 51, 25.5))
    bare = load_model(save(with_words({"class_names": "{0: 'field', 1: 'road'}"}), tmp_path / "b.onnx")).card
    assert (bare.classes, bare.mean, bare.std, bare.dtype) == (("field", "road"), (), (255.0,) * 3, "uint8")
    write_card(tmp_path / "d.onnx")
    assert load_model(tmp_path / "d.onnx").card.classes == ("other", "thing")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({}, r"has no card: write one as .*w\.json"),
        ({**DEEPNESS, "model_type": '"Detector"'}, "is a detector"),
        ({**DEEPNESS, "class_names": "[1, 2]"}, "cannot be read"),
        ({**DEEPNESS, "class_names": '{"1": "field", "2": "road"}'}, "cannot be read"),
        ({**DEEPNESS, "class_names": "__import__('os').system('touch ran')"}, "cannot be read"),
        ({**DEEPNESS, "standardization_std": "[1, 2]"}, "std has 2 values for 3 bands"),
        ({**DEEPNESS, "resolution": '"fine"'}, "cannot be read"),
    ],
)
def test_files_without_a_usable_card_are_refused(tmp_path: Path, words: dict[str, str], sentence: str) -> None:
    path = save(with_words(words), tmp_path / "w.onnx")
    with pytest.raises(ModelError, match=sentence):
        load_model(path)


def test_a_card_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = save(pointwise(), tmp_path / "p.onnx")
    write_card(path, bands=4)
    with pytest.raises(ModelError, match=r"reads 3 bands .*, the card says 4"):
        load_model(path)
    write_card(path, classes=["a", "b", "c"])
    with pytest.raises(ModelError, match="gives 2 channels, the card names 3 classes"):
        load_model(path)
    fixed = export(nn.Conv2d(3, 2, 1), tmp_path / "f.onnx", free=False, side=32)
    with pytest.raises(ModelError, match=r"reads tiles of 32 x 32 px, the card says 64"):
        load_model(write_card(fixed, tile=64))


@pytest.mark.parametrize("link", ["traversal", "symlink", "hardlink", "absolute"])
def test_tensors_in_other_files_are_refused(tmp_path: Path, link: str) -> None:
    secret, folder = tmp_path / "secret.bin", tmp_path / "model"
    folder.mkdir()
    secret.write_bytes(bytes(range(24)))
    where = {"traversal": "../secret.bin", "absolute": str(secret)}.get(link, "data.bin")
    if link in ("symlink", "hardlink"):
        {"symlink": os.symlink, "hardlink": os.link}[link](secret, folder / where)
    model = pointwise()
    model.graph.initializer[0].CopyFrom(external(where))
    with pytest.raises(ModelError, match="keeps tensor 'w' in another file"):
        load_model(write_card(save(model, folder / "m.onnx")))


def test_tensors_in_other_files_are_found_wherever_they_hide(tmp_path: Path) -> None:
    hidden = helper.make_node("Constant", [], ["c"], value=external("x"))
    inner = helper.make_graph([hidden], "inner", [], [helper.make_tensor_value_info("c", 1, None)])
    branch = helper.make_node("If", ["q"], ["z"], then_branch=inner, else_branch=inner)
    function = helper.make_function("own", "F", ["a"], ["b"], [hidden], [helper.make_opsetid("", 17)])
    for change in (lambda m: m.graph.node.append(branch), lambda m: m.functions.append(function)):
        model = pointwise()
        change(model)
        with pytest.raises(ModelError, match="in another file"):
            load_model(write_card(save(model, tmp_path / "m.onnx")))


def test_operators_that_are_not_standard_are_refused(tmp_path: Path) -> None:
    model = pointwise("Gelu", domain="com.microsoft")
    with pytest.raises(ModelError, match=r"operator com\.microsoft\.Gelu, which is not standard"):
        load_model(write_card(save(model, tmp_path / "m.onnx")))
    # a function of the file's own does not open its whole domain
    model.functions.append(
        helper.make_function("com.microsoft", "Other", ["a"], ["b"],
                             [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)])
    )  # fmt: skip
    with pytest.raises(ModelError, match="not standard"):
        load_model(write_card(save(model, tmp_path / "m.onnx")))


def test_more_than_one_map_or_another_shape_is_refused(tmp_path: Path) -> None:
    two = pointwise()
    two.graph.output.append(helper.make_tensor_value_info("s", 1, ["b", 2, "h", "w"]))
    with pytest.raises(ModelError, match=r"has 2 outputs \('y', 's'\)"):
        load_model(write_card(save(two, tmp_path / "m.onnx")))
    flat = pointwise()
    del flat.graph.output[0].type.tensor_type.shape.dim[1:]
    with pytest.raises(ModelError, match=r"output 'y' has 1 axes"):
        load_model(write_card(save(flat, tmp_path / "m.onnx")))


FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.data())
def test_damaged_files_give_model_errors_only(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(pointwise().SerializeToString())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        whole[place] = value
    path = write_card(tmp_path / "m.onnx")
    path.write_bytes(whole[: data.draw(st.sampled_from([len(whole), len(whole) - 7, 5, 0]))])
    with contextlib.suppress(ModelError):
        load_model(path)


def test_cuda_is_not_replaced_by_the_cpu_silently() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    with pytest.raises(DeviceError, match="pip install onnxruntime-gpu"):
        start_session(pointwise().SerializeToString(), torch.device("cuda:0"))


@pytest.mark.parametrize("package", [pytest.param("onnx", marks=pytest.mark.long), "onnxruntime"])
def test_a_missing_package_is_one_sentence(tmp_path: Path, package: str) -> None:
    path = write_card(save(pointwise(), tmp_path / "m.onnx"))
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from tilepipe.models.formats.directory import load_model\nfrom tilepipe.errors import ModelError\n"
        f"try:\n    load_model({str(path)!r})\nexcept ModelError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{package} ")
    assert done.stdout.endswith("run: pip install 'tilepipe[onnx]'\n")
