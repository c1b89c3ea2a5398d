"""Cards, ONNX files, state dicts and special files that would hang, fill the memory or run code: refused."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import shutil
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.onnx_files import pointwise, save, write_card
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import BUNDLED
from tilepipe.models.formats.convert import convert
from tilepipe.models.formats.directory import load_model


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED / "buildings.model", tmp_path / "m.model"))


def rewrite(directory: Path, **fields: Any) -> Path:
    card = json.loads((directory / "model.json").read_text())
    (directory / "model.json").write_text(json.dumps({**card, **fields}))
    return directory


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stride": 2**40}, "stride"),
        ({"halo": 2**40}, "halo"),
        ({"tile": 10**9}, "tile"),
        ({"tile": 2**70}, "tile"),
        ({"resolution": 1e-300}, "resolution"),
        ({"resolution": 1e300}, "resolution"),
        ({"resolution": float("nan")}, "resolution"),
        ({"resolution": float("inf")}, "resolution"),
        ({"mean": [float("nan")] * 3}, "nan is no number"),
        ({"mean": [float("inf")] * 3}, "inf is no number"),
        ({"mean": [1e38] * 3}, "1e[+]38 is no number"),
        ({"std": [1e-320] * 3}, "std"),
        ({"std": [0.0] * 3}, "std"),
        ({"std": [-1.0] * 3}, "std"),
        ({"name": "a\x1b[31mb"}, "control characters"),
        ({"classes": ["a", "b\nc"]}, "control characters"),
        ({"classes": ["a"] * 70000, "colors": []}, "at most 65535"),
        ({"arch": {"name": "unet", "depth": 2, "width": 10**9}}, "width"),
        ({"arch": {"name": "unet", "depth": 10**9, "width": 4}}, "depth"),
        ({"output": "masks"}, "output"),
    ],
)
def test_cards_have_ranges(bundled: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(rewrite(bundled, **fields))


@pytest.mark.parametrize("deep", ['{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "[" * 50_000])
def test_deep_and_large_cards(bundled: Path, deep: str) -> None:
    text = (bundled / "model.json").read_text()
    (bundled / "model.json").write_text(text[: text.rindex("}")] + f', "training": {deep}}}')
    with pytest.raises(ModelError):
        load_model(bundled)
    (bundled / "model.json").write_text(" " * (1 << 20) + text)
    with pytest.raises(ModelError, match="1048576"):
        load_model(bundled)
    with pytest.raises(ModelError, match="1048576"):
        ModelCard.load(bundled / "model.json")


def test_a_deep_certificate_is_not_used(bundled: Path) -> None:
    from tilepipe.models.probe.certificate_file import certified

    (bundled / "certificate.json").write_text('{"probe":' + "[" * 100_000)
    assert certified(load_model(bundled)) is None


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("kind", [pipe, device, unix_socket])
@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_special_files_in_a_model_directory(bundled: Path, kind: Any, name: str) -> None:
    (bundled / name).unlink()
    kind(bundled / name)
    word = {"pipe": "a named pipe", "device": "a device", "unix_socket": "a socket"}[kind.__name__]
    with pytest.raises(ModelError, match=f"{name} is {word} and no file"):
        load_model(bundled)


@pytest.mark.parametrize("suffix", ["onnx", "ts", "pt2", "pt", "safetensors", "model"])
@pytest.mark.parametrize("kind", [pipe, device])
def test_special_files_as_models(tmp_path: Path, kind: Any, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    kind(path)
    write_card(path)
    with pytest.raises(ModelError, match=r"is a (named pipe|device) and no file"):
        load_model(path)
    with pytest.raises(ModelError, match=r"is a (named pipe|device) and no file"):
        convert(path, tmp_path / "out.model", card=path.with_suffix(".json"))


def test_a_pipe_as_certificate_is_not_read(bundled: Path) -> None:
    (bundled / "certificate.json").unlink()
    pipe(bundled / "certificate.json")
    assert load_model(bundled).certificate == ""


@pytest.mark.parametrize("name", ["missing.onnx", "missing.pt2", "missing.safetensors"])
def test_a_missing_file_is_said(tmp_path: Path, name: str) -> None:
    write_card(tmp_path / name)
    with pytest.raises(ModelError, match=f"there is no model .*{name}"):
        load_model(tmp_path / name)


# --- ONNX


def network(nodes: list[Any], stored: list[Any] = [], **more: Any) -> Any:  # noqa: B006 - not changed
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", T.FLOAT, ["b", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", T.FLOAT, ["b", 2, "h", "w"])],
        [weight, *stored],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, **more)


CONV = helper.make_node("Conv", ["x", "w"], ["y"])


def whole(name: str, *values: int) -> Any:
    return numpy_helper.from_array(np.array(values if len(values) > 1 else values[0], np.int64), name)


def body(*more: Any) -> Any:
    return helper.make_graph(
        [helper.make_node("Identity", ["c_in"], ["c_out"]), *(more or [helper.make_node("Identity", ["v"], ["v2"])])],
        "l",
        [helper.make_tensor_value_info("i", T.INT64, []), helper.make_tensor_value_info("c_in", T.BOOL, []),
         helper.make_tensor_value_info("v", T.FLOAT, None)],
        [helper.make_tensor_value_info("c_out", T.BOOL, []), helper.make_tensor_value_info("v2", T.FLOAT, None)],
    )  # fmt: skip


def loop(trips: str, inner: Any = None, last: str = "z") -> list[Any]:
    yes = helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.array(True)))
    return [yes, helper.make_node("Loop", [trips, "t", "x"], [last], body=inner or body())]


def counted() -> list[Any]:
    """A number of passes that comes from the image."""
    shape = helper.make_node("Shape", ["x"], ["s"])
    return [shape, helper.make_node("Gather", ["s", "two"], ["m"], axis=0)]


NESTED = body(helper.make_node("Loop", ["m", "c_in", "v"], ["v2"], body=body()))
GROWS = body(helper.make_node("Concat", ["v", "v"], ["v2"], axis=0))
HUGE = [1, 2, 1 << 20, 1 << 20]
SPARSE = helper.make_sparse_tensor(
    numpy_helper.from_array(np.ones(1, np.float32), "v"), numpy_helper.from_array(np.zeros(1, np.int64), "i"), HUGE[2:]
)

ENDLESS: dict[str, tuple[Any, str]] = {
    "2^62 passes": (lambda: network([*loop("m"), CONV], [whole("m", 2**62)]), "4611686018427387904 passes"),
    "10,001 passes": (lambda: network([*loop("m"), CONV], [whole("m", 10_001)]), "10001 passes"),
    "until a condition": (lambda: network([*loop(""), CONV]), "number of passes is no constant"),
    "from the image": (lambda: network([*counted(), *loop("m"), CONV], [whole("two", 2)]), "no constant"),
    "200 times 200": (lambda: network([*loop("m", NESTED), CONV], [whole("m", 200)]), "40000 passes"),
    "growing": (lambda: network([*loop("m", GROWS), CONV], [whole("m", 60)]), "Concat inside a Loop"),
    "a constant shape": (
        lambda: network([helper.make_node("ConstantOfShape", ["s"], ["z"]), CONV], [whole("s", *HUGE)]),
        "2 x 1048576"
    ),
    "a computed shape": (
        lambda: network([helper.make_node("Mul", ["a", "a"], ["s"]), helper.make_node("ConstantOfShape", ["s"], ["y"])],
                        [whole("a", 1, 2, 1 << 14, 1 << 10)]), "'y' would have",
    ),
    "expand": (lambda: network([helper.make_node("Expand", ["k", "s"], ["z"]), CONV],
                               [whole("s", *HUGE), numpy_helper.from_array(np.float32(1), "k")]), "'z' would have"),
    "tile": (lambda: network([helper.make_node("Tile", ["x", "r"], ["z"]), CONV], [whole("r", 1, 1, 999, 999)]), "'z'"),
    "resize": (
        lambda: network([helper.make_node("Resize", ["x", "", "f"], ["z"], mode="nearest"), CONV],
                        [numpy_helper.from_array(np.array([1, 1, 900, 900], np.float32), "f")]), "'z' would have",
    ),
    "declared, not stored": (
        lambda: network([CONV], [T(name="big", data_type=T.FLOAT, dims=[1 << 20, 1 << 20])]), "big|not a valid",
    ),
    "sparse": (lambda: network([helper.make_node("Constant", [], ["z"], sparse_value=SPARSE), CONV]), "sparse"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_onnx_files_that_would_never_end_or_fill_the_memory(tmp_path: Path, name: str) -> None:
    make, said = ENDLESS[name]
    with pytest.raises(ModelError, match=said):
        load_model(write_card(save(make(), tmp_path / "m.onnx"), halo=0).with_suffix(".onnx"))


def test_functions_within_functions_are_counted(tmp_path: Path) -> None:
    """Twelve functions that each call the one before ten times: 10^12 operators in a kilobyte."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    calls = [helper.make_function("own", "f0", ["a"], ["k9"], [helper.make_node("Relu", ["a"], ["k9"])], opsets)]
    for level in range(1, 12):
        names = ["a", *(f"k{k}" for k in range(10))]
        steps = [helper.make_node(f"f{level - 1}", [a], [b], domain="own") for a, b in itertools.pairwise(names)]
        calls.append(helper.make_function("own", f"f{level}", ["a"], ["k9"], steps, opsets))
    model = network([helper.make_node("f11", ["x"], ["z"], domain="own"), CONV])
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.extend(calls)
    with pytest.raises(ModelError, match="operators, at most 200000"):
        load_model(write_card(save(model, tmp_path / "m.onnx")).with_suffix(".onnx"))


def test_a_short_loop_and_a_large_network_are_taken(tmp_path: Path) -> None:
    model = network([*loop("m", last="z"), helper.make_node("Conv", ["z", "w"], ["y"])], [whole("m", 7)])
    assert load_model(write_card(save(model, tmp_path / "m.onnx"), halo=0).with_suffix(".onnx")).card.bands == 3
    deep = [helper.make_node("Identity", [f"t{k}" if k else "x"], [f"t{k + 1}"]) for k in range(3000)]
    model = network([*deep, helper.make_node("Conv", ["t3000", "w"], ["y"])])
    assert load_model(write_card(save(model, tmp_path / "d.onnx"), halo=0).with_suffix(".onnx")).card.bands == 3


@pytest.mark.parametrize(
    "words",
    [{"resolution": "1e-300"}, {"tiles_size": "99999999999"}, {"class_names": "9**9**9**9"},
     {"class_names": "(" * 5000 + ")" * 5000}, {"standardization_std": "[0, 0, 0]"}],
)  # fmt: skip
def test_hostile_words_of_an_onnx_file(tmp_path: Path, words: dict[str, str]) -> None:
    model = pointwise()
    for key, text in ({"class_names": '{"0": "a", "1": "b"}'} | words).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    with pytest.raises(ModelError):
        load_model(save(model, tmp_path / "m.onnx"))


# --- state dicts


class Evil:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.flag}",)


def zip_bomb(path: Path) -> None:
    """A state dict whose one tensor unpacks to 1 GiB from 1 MB."""
    plain = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, plain)
    source = zipfile.ZipFile(io.BytesIO(plain.getvalue()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in source.infolist():
            tensor = entry.filename.endswith("data/0")
            bomb.writestr(entry.filename, bytes(64 << 20) if tensor else source.read(entry))


@pytest.mark.parametrize("kind", ["pickle", "pickle in torch.save", "bomb", "huge view", "sparse", "header"])
def test_state_dicts_that_run_code_or_fill_the_memory(tmp_path: Path, bundled: Path, kind: str) -> None:
    path, flag = tmp_path / ("s.safetensors" if kind == "header" else "s.pth"), tmp_path / "RUN"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil(flag)))
    elif kind == "pickle in torch.save":
        torch.save({"state_dict": Evil(flag)}, path)
    elif kind == "bomb":
        zip_bomb(path)
    elif kind == "huge view":
        torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)
    elif kind == "sparse":
        place = torch.tensor([[0], [10**9]])
        torch.save({"a": torch.sparse_coo_tensor(place, [1.0], (2, 2**40), check_invariants=True)}, path)
    else:
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 4]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ModelError, match=r"s[.]"):
        convert(path, tmp_path / "out.model", card=bundled / "model.json")
    assert not flag.exists()
    assert not (tmp_path / "out.model").exists()


def test_an_archive_that_unpacks_to_more_than_it_holds_is_not_unpacked(tmp_path: Path, bundled: Path) -> None:
    zip_bomb(tmp_path / "s.pth")
    with pytest.raises(ModelError, match="unpacks to more than it holds"):
        convert(tmp_path / "s.pth", tmp_path / "out.model", card=bundled / "model.json")


def test_the_checker_of_this_file_is_the_one_of_onnx() -> None:
    """The files above are valid but for what is refused: the loop that is taken passes the checker."""
    onnx.checker.check_model(network([*loop("m"), CONV], [whole("m", 7)]))
