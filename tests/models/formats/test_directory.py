from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tilepipe.errors import ModelError, StorageError, UsageError
from tilepipe.models import facts
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import CARD, WEIGHTS
from tilepipe.models.formats import directory
from tilepipe.models.formats.directory import load_model, save_model
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build

ARCH = {"name": "unet", "width": 2, "depth": 2}
FIRST = "encoder.stages.0.block.conv1.weight"


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    card = ModelCard(bands=3, classes=("a", "b"), mean=(1, 2, 3), stride=4, arch=ARCH)
    return Model.from_torch(build(ARCH, 3, 2), card)


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    return save_model(model, tmp_path / "x.model")


def change(saved: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(saved / WEIGHTS)
    edit(tensors)
    save_file(tensors, saved / WEIGHTS)


def test_round_trip_is_exact(model: Model, saved: Path) -> None:
    again = load_model(saved)
    assert again.card == model.card
    assert again.sha256() == model.sha256()
    assert not again.module.training
    assert not any(p.requires_grad for p in again.module.parameters())
    assert sorted(p.name for p in saved.parent.iterdir()) == ["x.model"]


def test_half_stores_half_the_bytes_and_rounds_as_float16(model: Model, saved: Path, tmp_path: Path) -> None:
    half = save_model(model, tmp_path / "h.model", half=True)
    assert (half / WEIGHTS).stat().st_size < 0.75 * (saved / WEIGHTS).stat().st_size
    state, again = model.module.state_dict(), load_model(half).module.state_dict()
    assert again[FIRST].dtype == torch.float32
    assert torch.equal(again[FIRST], state[FIRST].half().float())
    assert torch.equal(
        again["encoder.stages.0.block.norm1.running_var"], state["encoder.stages.0.block.norm1.running_var"]
    )


def test_loading_leaves_the_random_state_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_and_extra_tensors_are_named(saved: Path) -> None:
    change(saved, lambda t: t.update(zebra=torch.zeros(1), **{"head.bias2": t.pop("head.bias")}))
    with pytest.raises(ModelError, match=r"1 missing: head\.bias; 2 extra: head\.bias2, zebra"):
        load_model(saved)


def test_a_misshapen_tensor_is_named_with_both_shapes(saved: Path) -> None:
    change(saved, lambda t: t.update({FIRST: torch.zeros(2, 3, 5, 5)}))
    with pytest.raises(ModelError, match=r"conv1\.weight is \(2, 3, 5, 5\), the network .* has \(2, 3, 3, 3\)"):
        load_model(saved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8, torch.complex64])
def test_another_type_is_refused(saved: Path, dtype: torch.dtype) -> None:
    change(saved, lambda t: t.update({FIRST: t[FIRST].to(dtype)}))
    with pytest.raises(ModelError, match="is stored as"):
        load_model(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(saved: Path, value: float) -> None:
    change(saved, lambda t: t[FIRST].view(-1)[3].fill_(value))
    with pytest.raises(ModelError, match=r"conv1\.weight holds NaN or infinity"):
        load_model(saved)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ({"name": "unett"}, "nearest is 'unet'"),
        ({"name": "unet", "widht": 2}, "nearest is 'width'"),
        ({"name": "unet", "bands": 3}, "bands"),
        ({"name": "unet", "width": 512, "depth": 7}, "is|missing"),
        (None, "arch is missing"),
    ],
)
def test_an_architecture_that_is_not_ours_or_does_not_fit(saved: Path, arch: object, words: str) -> None:
    card = json.loads((saved / CARD).read_text())
    (saved / CARD).write_text(json.dumps({**card, "arch": arch}))
    with pytest.raises(ModelError, match=words):
        load_model(saved)


def test_sizes_are_capped_before_reading(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MAX_WEIGHTS_BYTES", 100)
    with pytest.raises(ModelError, match=r"bytes, at most 100 are read"):
        load_model(saved)
    (saved / CARD).write_text(" " * (directory.MAX_CARD_BYTES + 1))
    with pytest.raises(ModelError, match=r"model\.json has 1048577 bytes"):
        load_model(saved)


@pytest.mark.parametrize("missing", [CARD, WEIGHTS])
def test_a_missing_file_is_named(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        load_model(saved)


@pytest.mark.parametrize("suffix", [".pt", ".PTH", ".pt2", ".ts", ".ckpt", ".pkl", ".bin"])
def test_files_that_run_code_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    with pytest.raises(ModelError, match=f"model{suffix} does not exist"):
        load_model(path)
    path.write_bytes(b"not even a pickle")
    with pytest.raises(ModelError, match="can run code when they are loaded"):
        load_model(path)


def test_a_name_that_is_not_there_gets_the_bundled_ones_and_the_nearest(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("buildings", "nuclei"):
        shutil.copytree(saved, tmp_path / f"bundle/{name}.model")
    monkeypatch.setattr(facts, "BUNDLED", tmp_path / "bundle")
    assert load_model("nuclei").name == "nuclei"
    with pytest.raises(
        ModelError, match=r"no model 'bulidings': did you mean 'buildings'\? bundled are buildings, nuclei"
    ):
        load_model("bulidings")
    with pytest.raises(ModelError, match=r"model\.json is a file; a model is a directory"):
        load_model(saved / CARD)


def test_saving_refuses_what_exists_and_what_could_not_be_loaded(model: Model, saved: Path, tmp_path: Path) -> None:
    before = (saved / WEIGHTS).read_bytes()
    with pytest.raises(UsageError, match="exists"):
        save_model(model, saved)
    assert (saved / WEIGHTS).read_bytes() == before
    save_model(model, saved, half=True, overwrite=True)
    assert len((saved / WEIGHTS).read_bytes()) < len(before)
    wrapped = Model.from_torch(nn.Conv2d(1, 2, 1), ModelCard(bands=1, classes=("a", "b")))
    with pytest.raises(ModelError, match="not one of tilepipe's architectures"):
        save_model(wrapped, tmp_path / "y.model")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        save_model(model, tmp_path / "file" / "y.model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "x.model"]


FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.data())
def test_damaged_bytes_give_model_errors_only(saved: Path, data: st.DataObject) -> None:
    whole = (saved / WEIGHTS).read_bytes()
    header = struct.unpack("<Q", whole[:8])[0] + 8
    damaged = bytearray(whole)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, header - 1), st.integers(0, 255)), max_size=8)):
        damaged[place] = value
    cut = data.draw(st.sampled_from([len(damaged), header, header - 3, 8, 7, 0]))
    try_bytes(saved, bytes(damaged[:cut]), whole)


@FUZZ
@given(st.one_of(st.binary(max_size=64), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_strange_headers_give_model_errors_only(saved: Path, header: bytes | str) -> None:
    text = header if isinstance(header, bytes) else header.encode()
    try_bytes(saved, struct.pack("<Q", len(text)) + text + bytes(16), (saved / WEIGHTS).read_bytes())


def try_bytes(saved: Path, damaged: bytes, whole: bytes) -> None:
    """Load `damaged` in place of the weights: the only error is `ModelError`; unchanged bytes load."""
    copy = saved.with_name("damaged.model")
    copy.mkdir(exist_ok=True)
    shutil.copy(saved / CARD, copy / CARD)
    (copy / WEIGHTS).write_bytes(damaged)
    if damaged == whole:
        load_model(copy)
    else:
        with contextlib.suppress(ModelError):  # bytes of the header's padding or of a tensor's metadata may not matter
            load_model(copy)


@pytest.mark.parametrize("entry", [{"data_offsets": [0, 2**62], "shape": [2**60], "dtype": "F32"}, {"shape": "x"}, 7])
def test_a_header_that_lies_about_sizes_takes_no_memory(saved: Path, entry: object) -> None:
    header = json.dumps(dict.fromkeys(load_file(saved / WEIGHTS), entry)).encode()
    (saved / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_model(saved)


def test_a_model_in_the_same_folder_is_meant_before_a_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corrected.model").mkdir()
    (tmp_path / "corrected.model" / "model.json").write_text("{}")
    (tmp_path / "buildinks.tif").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"did you mean 'corrected\.model'\?"):
        load_model("corected.model")
    with pytest.raises(ModelError, match=r"did you mean 'buildings'\?"):
        load_model("buildinks")
    with pytest.raises(ModelError) as said:
        load_model("zzz.model")
    assert "did you mean" not in str(said.value)
