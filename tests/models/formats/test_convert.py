"""State dicts become model directories; what is no plain state dict is refused and runs nothing."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.onnx_files import pointwise, save, write_card
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from tilepipe.errors import ModelError, UsageError
from tilepipe.models.formats import tensors
from tilepipe.models.formats.convert import convert
from tilepipe.models.formats.directory import load_model
from tilepipe.models.nets.zoo import build

ARCH = {"name": "unet", "width": 2, "depth": 2}
CARD = {"bands": 3, "classes": ["a", "b"], "arch": ARCH}
State = dict[str, Tensor]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(4)
    return build(ARCH, 3, 2).eval()


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "the card.json"
    path.write_text(json.dumps(CARD))
    return path


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "DataParallel": lambda state: prefixed(state, "module."),
    "checkpoint": lambda state: {"epoch": 3, "model_state_dict": prefixed(state, "module._orig_mod.")},
    "lightning": lambda state: {"state_dict": prefixed(state, "model."), "global_step": 7},
    "half": lambda state: {k: t.half() if t.is_floating_point() else t for k, t in state.items()},
    "double": lambda state: {k: t.double() if t.is_floating_point() else t for k, t in state.items()},
    "old": lambda state: {k: t for k, t in state.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("form", FORMS)
def test_state_dicts_as_programs_write_them(net: nn.Module, card: Path, tmp_path: Path, form: str) -> None:
    torch.save(FORMS[form](net.state_dict()), tmp_path / "w.pth")
    model = load_model(convert(tmp_path / "w.pth", tmp_path / "x.model", card=card))
    assert model.card.stride == 4
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(model.module(x), net(x), atol=1e-2 if form == "half" else 0)


@pytest.mark.parametrize("form", ["plain", "DataParallel"])
def test_safetensors_state_dicts(net: nn.Module, card: Path, tmp_path: Path, form: str) -> None:
    save_file(FORMS[form](net.state_dict()), tmp_path / "w.safetensors")
    model = load_model(convert(tmp_path / "w.safetensors", tmp_path / "x.model", card=card))
    assert torch.equal(model.module.head.weight, net.head.weight)  # type: ignore[union-attr,arg-type]


def test_the_architecture_may_be_given_apart(net: nn.Module, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "w.pt")
    (tmp_path / "w.json").write_text(json.dumps({**CARD, "arch": None}))
    with pytest.raises(ModelError, match="needs the name of its network"):
        convert(tmp_path / "w.pt", tmp_path / "x.model")
    load_model(convert(tmp_path / "w.pt", tmp_path / "x.model", arch=ARCH))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.update({"head.bias2": s.pop("head.bias")}), r"1 missing: head\.bias; 1 extra: head\.bias2"),
        (lambda s: s.update({"head.bias": torch.zeros(5)}), r"head\.bias is \(5,\), the network .* has \(2,\)"),
        (lambda s: s.update({"head.bias": torch.zeros(2, dtype=torch.int32)}), "stored as other"),
        (lambda s: s["head.bias"].fill_(torch.nan), "NaN"),
        (lambda s: s.update({"head.bias": 3}), "does not hold a state dict"),
        (lambda s: s.clear(), "does not hold a state dict"),
    ],
)
def test_what_does_not_fit_is_named(
    net: nn.Module, card: Path, tmp_path: Path, change: Callable[[Any], object], sentence: str
) -> None:
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=sentence):
        convert(tmp_path / "w.pt", tmp_path / "x.model", card=card)
    assert not (tmp_path / "x.model").exists()


class Touch:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Options:
    """Arguments of a module, as Lightning keeps them; making one would leave a mark."""

    made: list[object] = []  # noqa: RUF012 - shared on purpose

    def __init__(self) -> None:
        self.width = 2

    def __setstate__(self, state: object) -> None:
        self.made.append(state)


def test_a_checkpoint_of_lightning_needs_neither_lightning_nor_its_objects(
    net: nn.Module, card: Path, tmp_path: Path
) -> None:
    """The keys are those that pytorch_lightning 2.6 writes (read from one of its own checkpoints)."""
    state = {**prefixed(net.state_dict(), "model."), "criterion.weight": torch.ones(2), "score.total": torch.zeros(())}
    torch.save(
        {
            "epoch": 1, "global_step": 2, "pytorch-lightning_version": "2.6.6", "state_dict": state, "loops": {},
            "callbacks": {"ModelCheckpoint": {"dirpath": Path("runs")}}, "optimizer_states": [{"state": {}}],
            "lr_schedulers": [], "hparams_name": "kwargs",
            "hyper_parameters": {"options": Options(), "namespace": argparse.Namespace(a=1)},
        },
        tmp_path / "last.ckpt",
    )  # fmt: skip
    made = load_model(convert(tmp_path / "last.ckpt", tmp_path / "x.model", card=card))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(made.module(x), net(x))
    assert Options.made == []


def test_lightning_itself_writes_such_checkpoints(net: nn.Module, card: Path, tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class Task(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self, options: Any) -> None:
            super().__init__()
            self.save_hyperparameters(ignore=())
            self.model, self.criterion = net, nn.CrossEntropyLoss(weight=torch.ones(2))

        def training_step(self, batch: Any, index: int) -> Tensor:
            return self.criterion(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-3)

    task = Task(argparse.Namespace(a=1))
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = (torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long))
        trainer.fit(task, torch.utils.data.DataLoader([batch], batch_size=None))
        trainer.save_checkpoint(tmp_path / "last.ckpt")
    made = load_model(convert(tmp_path / "last.ckpt", tmp_path / "x.model", card=card))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(made.module(x), task.model.eval()(x), atol=1e-6)


def test_weights_of_monai(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(1)
    options = {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1}
    theirs = nets.UNet(spatial_dims=2, in_channels=3, out_channels=2, **options).eval()
    torch.save({"model": theirs.state_dict()}, tmp_path / "model.pt")
    (tmp_path / "card.json").write_text(json.dumps({"bands": 3, "classes": ["a", "b"]}))
    arch = {"name": "monai.UNet", "spatial_dims": 2, **options}
    made = load_model(convert(tmp_path / "model.pt", tmp_path / "x.model", card=tmp_path / "card.json", arch=arch))
    assert made.card.stride == 4
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(made.module(x), theirs(x))
    for wrong, said in (
        ({**arch, "spatial_dims": 3}, "3 dimensions|spatial_dims 3"),
        ({**arch, "name": "monai.ViT"}, "ViT"),
        ({**arch, "colour": 1}, "cannot make UNet"),
    ):
        with pytest.raises(ModelError, match=said):
            convert(tmp_path / "model.pt", tmp_path / "y.model", card=tmp_path / "card.json", arch=wrong)


def test_pickles_run_nothing(net: nn.Module, card: Path, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "w.pt"
    evil = {**net.state_dict(), "x": Touch(mark)}
    torch.save(evil, path)
    legacy = tmp_path / "legacy.pt"
    torch.save(evil, legacy, _use_new_zipfile_serialization=False)
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(evil))
    torch.save(net, tmp_path / "whole.pt")
    for name in ("w.pt", "legacy.pt", "raw.pkl", "whole.pt"):
        with pytest.raises(ModelError, match="is not a plain state dict, and nothing else is read"):
            convert(tmp_path / name, tmp_path / "x.model", card=card)
    assert not mark.exists()


def test_an_archive_that_unpacks_to_too_much(card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MAX_WEIGHTS_BYTES", 100_000)
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(ModelError, match="unpacks to more than it holds"):
        convert(tmp_path / "bomb.pt", tmp_path / "x.model", card=card)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_model_errors_only(card: Path, tmp_path: Path, data: st.DataObject) -> None:
    torch.manual_seed(0)
    torch.save(build(ARCH, 3, 2).state_dict(), tmp_path / "good.pt")
    damaged = bytearray((tmp_path / "good.pt").read_bytes())
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8)):
        damaged[place] = value
    (tmp_path / "bad.pt").write_bytes(damaged[: data.draw(st.sampled_from([len(damaged), len(damaged) - 9, 40, 0]))])
    with contextlib.suppress(ModelError):
        convert(tmp_path / "bad.pt", tmp_path / "x.model", card=card, overwrite=True)


def test_onnx_becomes_a_directory_with_the_same_bytes(tmp_path: Path) -> None:
    path = write_card(save(pointwise(), tmp_path / "p.onnx"))
    made = convert(path, tmp_path / "p.model")
    assert sorted(p.name for p in made.iterdir()) == ["certificate.json", "model.json", "weights.onnx"]
    assert (made / "weights.onnx").read_bytes() == path.read_bytes()
    assert load_model(made).sha256() == load_model(path).sha256()


def test_torchscript_stays_refused_in_a_directory(tmp_path: Path) -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2] * 2

    import warnings

    path = write_card(tmp_path / "d.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Double(), torch.zeros(1, 3, 4, 4)), path)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    with pytest.raises(ModelError, match="is refused"):
        convert(path, tmp_path / "d.model")
    made = convert(path, tmp_path / "d.model", trust_model=digest)
    with pytest.raises(ModelError, match=r"weights\.ts is refused"):
        load_model(made)
    assert load_model(made, trust_model=digest).card.classes == ("other", "thing")


def test_nothing_is_overwritten_unasked(net: nn.Module, card: Path, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "w.pt")
    made = convert(tmp_path / "w.pt", tmp_path / "x.model", card=card)
    before = (made / "weights.safetensors").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        convert(tmp_path / "w.pt", made, card=card)
    with pytest.raises(ModelError, match="needs a card"):
        convert(tmp_path / "w.pt", made, overwrite=True)
    with pytest.raises(ModelError, match="cannot be read"):
        convert(tmp_path / "w.pt", made, card=tmp_path / "none.json", overwrite=True)
    with pytest.raises(ModelError, match="there is no model"):
        convert(tmp_path / "none.xyz", made, overwrite=True)
    assert (made / "weights.safetensors").read_bytes() == before


def test_a_directory_of_ours_takes_another_card(net: nn.Module, card: Path, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "w.pt")
    made = convert(tmp_path / "w.pt", tmp_path / "x.model", card=card)
    card.write_text(json.dumps({**CARD, "classes": ["c", "d"], "mean": [1, 2, 3]}))
    again = load_model(convert(made, tmp_path / "y.model", card=card))
    assert (again.card.classes, again.card.mean, again.card.arch) == (("c", "d"), (1, 2, 3), ARCH)
