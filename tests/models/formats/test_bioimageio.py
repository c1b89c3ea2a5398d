"""Packages of the BioImage Model Zoo: cards and labels as the description says them, computed with torch and numpy."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.bioimage_packages import (
    axes,
    checked,
    convolution,
    onnx_entry,
    onnx_of,
    pixels,
    script_of,
    space,
    write_package,
)
from helpers.without_torchvision import load

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import ModelError
from tilepipe.models.formats import bioimageio_package
from tilepipe.models.formats.convert import convert
from tilepipe.models.formats.directory import load_model
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bioimageio") is None, reason="bioimageio.spec is not installed: make setup"
)
FLOATS = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
"""A description that does not end with this casts its scaled pixels to the image's type."""
MICROMETRES = Resolution(0.5, 0.5, "um")
GAIN = {"id": "scale_linear", "kwargs": {"gain": 1 / 255}}
NORMAL = {
    "id": "fixed_zero_mean_unit_variance",
    "kwargs": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "axis": "channel"},
}
SIGMOID, SOFTMAX = {"id": "sigmoid"}, {"id": "softmax", "kwargs": {"axis": "channel"}}


def scaled(x: np.ndarray) -> np.ndarray:
    """Return GAIN and NORMAL by hand."""
    mean, std = (np.reshape(NORMAL["kwargs"][key], (1, 3, 1, 1)) for key in ("mean", "std"))  # type: ignore[index]
    return ((x / 255 - mean) / std).astype(np.float32)


def scores(net: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(x)).numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("a package was looked for in the network")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


def good(target: Path, **more: Any) -> Path:
    """Write a package of one sigmoid channel that comes out right."""
    net, x = convolution(3, 1), pixels()
    weights = more.pop("weights", onnx_entry(checked(onnx_of(net))))
    wanted = more.pop("wanted", sigmoid(scores(net, scaled(x))))
    return write_package(target, weights, x, wanted, **{"before": [GAIN, NORMAL, FLOATS], "after": [SIGMOID], **more})


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "zip"])
def test_a_package_gives_the_labels_of_its_network_and_its_card_says_the_steps(tmp_path: Path, folder: bool) -> None:
    package = good(tmp_path / ("blotches" if folder else "blotches.zip"), folder=folder)
    model = load_model(package)
    card = model.card
    assert (card.bands, card.classes, card.resolution, card.unit) == (3, ("background", "nucleus"), 0.5, "um")
    assert (card.stride, card.dtype, card.license, card.name) == (16, "uint8", "MIT", "blotch-finder")
    assert card.mean == pytest.approx([255 * m for m in (0.4, 0.5, 0.6)])
    assert card.std == pytest.approx([255 * s for s in (0.2, 0.25, 0.3)])
    image = np.random.default_rng(1).integers(0, 256, (3, 96, 112)).astype(np.uint8)
    expected = scores(convolution(3, 1), scaled(image[None]))[0, 0] > 0
    assert 0.2 < expected.mean() < 0.8
    labels = tp.predict(ArraySource(image, resolution=MICROMETRES), model)
    assert (labels == expected).all()


def test_converted_it_needs_neither_the_package_nor_the_library(tmp_path: Path) -> None:
    package = good(tmp_path / "blotches.zip")
    image = np.random.default_rng(1).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    first = tp.predict(ArraySource(image, resolution=MICROMETRES), load_model(package))
    made = convert(package, tmp_path / "blotches.model")
    package.unlink()
    assert sorted(path.name for path in made.iterdir()) == ["certificate.json", "model.json", "weights.onnx"]
    assert (tp.predict(ArraySource(image, resolution=MICROMETRES), load_model(made)) == first).all()


def test_torchscript_needs_trust_and_gives_the_same(tmp_path: Path) -> None:
    net = convolution(3, 1)
    weights = {"torchscript": {"source": script_of(net), "pytorch_version": "2.0"}}
    package = good(tmp_path / "script.zip", weights=weights)
    with zipfile.ZipFile(package) as archive:
        digest = hashlib.sha256(archive.read("torchscript.pt")).hexdigest()
    with pytest.raises(ModelError, match=digest):
        load_model(package)
    assert load_model(package, trust_model=f"sha256:{digest}").card.classes == ("background", "nucleus")


@pytest.mark.long
def test_a_state_dict_of_a_network_in_the_allow_list_is_rebuilt(tmp_path: Path) -> None:
    smp = load("segmentation_models_pytorch")
    torch.manual_seed(0)
    options = {"encoder_name": "resnet18", "decoder_channels": [32, 16, 8, 8, 4]}
    net = smp.Unet(encoder_weights=None, in_channels=3, classes=1, **options).eval()
    state = io.BytesIO()
    torch.save(net.state_dict(), state)
    kwargs = {**options, "encoder_weights": None, "in_channels": 3, "classes": 1}
    architecture = {"import_from": "segmentation_models_pytorch", "callable": "Unet", "kwargs": kwargs}
    entry = {"source": state.getvalue(), "architecture": architecture, "pytorch_version": "2.0"}
    x = pixels()
    package = write_package(
        tmp_path / "unet.zip", {"pytorch_state_dict": entry}, x, sigmoid(scores(net, scaled(x))),
        before=[GAIN, NORMAL, FLOATS], after=[SIGMOID],
        change=lambda fields: [
            axis.update(size={"min": 32, "step": 32}) for axis in fields["inputs"][0]["axes"][2:]
        ],
    )  # fmt: skip
    model = load_model(package)
    assert (model.card.arch or {})["name"] == "smp.Unet"
    assert model.card.stride == 32
    assert (convert(package, tmp_path / "unet.model") / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ({"import_from": "os", "callable": "system", "kwargs": {"command": "touch ran"}}, "is of os"),
        ({"import_from": "segmentation_models_pytorch", "callable": "Nonet", "kwargs": {}}, "Nonet"),
        ({"source": "net.py", "callable": "Net", "kwargs": {}}, "code in net.py, which is not run"),
    ],
    ids=["other library", "other network", "code"],
)
def test_other_state_dicts_are_refused_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: dict[str, Any], said: str
) -> None:
    load("segmentation_models_pytorch")
    monkeypatch.chdir(tmp_path)
    if "source" in architecture:
        (tmp_path / "net.py").write_text("open('ran', 'w')\nclass Net: pass\n")
        architecture["source"] = str(tmp_path / "net.py")
    entry = {"source": b"no pickle", "architecture": architecture, "pytorch_version": "2.0"}
    package = good(tmp_path / "state.zip", weights={"pytorch_state_dict": entry})
    with pytest.raises(ModelError, match=said):
        load_model(package)
    assert not (tmp_path / "ran").exists()


def test_softmax_binarize_and_unpadded_convolutions(tmp_path: Path) -> None:
    x = pixels()
    net = convolution(3, 3)
    logits = scores(net, (x / 255).astype(np.float32))
    shares = torch.from_numpy(logits).softmax(1).numpy()
    soft = write_package(
        tmp_path / "s.zip", onnx_entry(onnx_of(net)), x, shares, before=[GAIN, FLOATS], after=[SOFTMAX]
    )
    assert load_model(soft).card.classes == ("class 0", "class 1", "class 2")

    single = convolution(3, 1)
    wanted = (sigmoid(scores(single, scaled(x))) > 0.3).astype(np.uint8)
    cut = good(
        tmp_path / "b.zip", wanted=wanted, after=[SIGMOID, {"id": "binarize", "kwargs": {"threshold": 0.3}}]
    )  # fmt: skip
    assert load_model(cut).card.threshold == 0.3

    bare = convolution(3, 1, padding=0)
    inner = sigmoid(scores(bare, scaled(x)))

    def shrinks(fields: dict[str, Any]) -> None:
        for axis in fields["outputs"][0]["axes"][2:]:
            axis["size"]["offset"] = -2

    unpadded = good(tmp_path / "p.zip", weights=onnx_entry(onnx_of(bare)), wanted=inner, change=shrinks)
    assert load_model(unpadded).card.pad == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"before": [GAIN]}, "ensure_dtype dtype uint8"),
        (
            {"before": [{"id": "zero_mean_unit_variance", "kwargs": {}}, FLOATS]},
            "zero_mean_unit_variance measures every image",
        ),
        ({"before": [GAIN, {"id": "clip", "kwargs": {"min": 0.0, "max": 0.5}}]}, "clip min 0.0, max 0.5"),
        ({"before": [{"id": "scale_linear", "kwargs": {"gain": -1.0}}, FLOATS]}, "gain -1"),
        ({"after": [{"id": "scale_linear", "kwargs": {"gain": 2.0}}]}, "post-processing scale_linear"),
        ({"after": [{"id": "scale_range", "kwargs": {}}]}, "post-processing scale_range"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_steps_without_a_place_in_a_card_are_refused_by_name(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(good(tmp_path / "odd.zip", **more))


def test_a_probability_for_each_of_several_channels_is_no_class(tmp_path: Path) -> None:
    net, x = convolution(3, 2), pixels()
    wanted = sigmoid(scores(net, scaled(x)))
    package = write_package(
        tmp_path / "two.zip", onnx_entry(onnx_of(net)), x, wanted, before=[GAIN, NORMAL, FLOATS], after=[SIGMOID]
    )  # fmt: skip
    with pytest.raises(ModelError, match="class 0, class 1 have a probability each"):
        load_model(package)


def test_axes_sizes_and_formats_that_tilepipe_does_not_read_are_named(tmp_path: Path) -> None:
    def deep(fields: dict[str, Any]) -> None:
        for tensor, size in ((fields["inputs"][0], {"min": 1, "step": 1}), (fields["outputs"][0], None)):
            z = size or {"tensor_id": "raw", "axis_id": "z"}
            tensor["axes"].insert(2, space("z", z))

    def coarse(fields: dict[str, Any]) -> None:
        fields["outputs"][0]["axes"] = axes(
            ["nucleus"], *({"tensor_id": "raw", "axis_id": axis} for axis in "yx"), scale=1.0
        )

    def oblong(fields: dict[str, Any]) -> None:
        for tensor in (fields["inputs"][0], fields["outputs"][0]):
            tensor["axes"][3]["scale"] = 0.7

    volume = pixels()[:, :, None]
    for name, change, said in (
        ("z", deep, "axes batch, channel, z, y, x"),
        ("c", coarse, "scale 1"),
        ("o", oblong, "differ"),
    ):
        x = volume if name == "z" else pixels()
        package = write_package(
            tmp_path / f"{name}.zip", onnx_entry(onnx_of(convolution(3, 1))), x,
            np.ones((1, 1, *(x[..., ::2, ::2] if name == "c" else x).shape[2:]), np.float32), change=change,
        )  # fmt: skip
        with pytest.raises(ModelError, match=said):
            load_model(package)


def test_wrong_test_tensors_refuse_the_model_with_the_numbers(tmp_path: Path) -> None:
    wanted = sigmoid(scores(convolution(3, 1), scaled(pixels())))
    wanted[0, 0, :8] += 0.01
    with pytest.raises(ModelError, match=r"12\.50% of 4096 values differ from the package's own, by up to 0\.01"):
        load_model(good(tmp_path / "wrong.zip", wanted=wanted))


def changed(package: Path, **files: bytes) -> Path:
    """Return a copy of a zip in which members have another content."""
    copy = package.with_name(f"changed-{package.name}")
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, files.get(name.replace(".", "_"), old.read(name)))
    return copy


def described(package: Path) -> dict[str, Any]:
    with zipfile.ZipFile(package) as archive:
        return dict(yaml.safe_load(archive.read("rdf.yaml")))


def test_members_are_compared_by_hash_and_stay_inside_the_package(tmp_path: Path) -> None:
    package = good(tmp_path / "p.zip")
    with pytest.raises(ModelError, match=r"onnx\.onnx is not the file that was described"):
        load_model(changed(package, onnx_onnx=onnx_of(convolution(3, 2))))
    for place in ("/etc/passwd", "../secret.onnx", "https://example.com/net.onnx", "file:///etc/passwd"):
        fields = described(package)
        fields["weights"]["onnx"]["source"] = place
        with pytest.raises(ModelError):
            load_model(changed(package, rdf_yaml=yaml.safe_dump(fields).encode()))
    fields = described(package)
    del fields["weights"]["onnx"]["sha256"]
    with pytest.raises(ModelError, match="gives no sha256"):
        load_model(changed(package, rdf_yaml=yaml.safe_dump(fields).encode()))


def test_a_link_out_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    package = good(tmp_path / "p", folder=True)
    (package / "onnx.onnx").rename(tmp_path / "outside.onnx")
    (package / "onnx.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(ModelError, match="outside the package"):
        load_model(package)


def test_zips_and_descriptions_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = good(tmp_path / "p.zip")
    with pytest.raises(ModelError, match="unpacks to"):
        load_model(changed(package, in_npy=bytes(40_000_000)))
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for k in range(1001):
            archive.writestr(f"{k}", "")
        archive.writestr("rdf.yaml", "type: model")
    with pytest.raises(ModelError, match="1002 members"):
        load_model(tmp_path / "many.zip")
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ModelError, match="more than 50000 values"):
        load_model(changed(package, rdf_yaml=laughs.encode()))
    monkeypatch.setattr(bioimageio_package, "MAX_WEIGHTS", 10)
    fields = {**described(package), "format_version": "0.4.10"}
    older = changed(package, rdf_yaml=yaml.safe_dump(fields).encode())
    with pytest.raises(ModelError, match=r"format_version 0\.4"):
        load_model(older)


def test_a_model_that_measures_each_image_is_used_with_a_card_of_fixed_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    net, x = convolution(3, 1), pixels().astype(np.float32)
    own = (x - x.mean((0, 2, 3), keepdims=True)) / (x.std((0, 2, 3), keepdims=True) + 1e-6)
    step = {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["batch", "y", "x"]}}
    package = write_package(
        tmp_path / "z.zip", onnx_entry(onnx_of(net)), pixels(), sigmoid(scores(net, own)),
        before=[step, FLOATS], after=[SIGMOID],
    )  # fmt: skip
    fixed = ["--set", "mean=[100, 110, 120]", "--set", "std=[60, 61, 62]"]
    assert main(["model", "card", "z.zip", "--init", *fixed]) == 0
    assert main(["model", "convert", str(package), "z.model", "--card", "z.json"]) == 0
    assert load_model("z.model").card.mean == (100, 110, 120)
    capsys.readouterr()


def test_without_the_library_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    package = good(tmp_path / "p.zip")
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(ModelError, match=r"pip install 'tilepipe\[bioimageio\]'"):
        load_model(package)
