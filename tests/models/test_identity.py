"""Two models of one class and the same weights that answer differently are two models, in any process."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tilepipe.models.card import ModelCard
from tilepipe.models.classical_fit import fit
from tilepipe.models.contents import Contents, hash_of
from tilepipe.models.function import from_function
from tilepipe.models.identity import identify, identities_held, model_identity
from tilepipe.models.model import Model
from tilepipe.testing import random_unet
from tilepipe.training.fit_classical import as_model

CARD = ModelCard(bands=1, classes=["dark", "bright"])


SAMPLE = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), dtype=np.uint8)


def bits(x: Tensor, rule: Tensor) -> Tensor:
    """Logits of two classes from where a rule holds."""
    return torch.cat((1 - rule.float(), rule.float()), 1) + 0 * x


class Net(nn.Module):
    """A class whose behaviour lies in what it is made with."""

    def __init__(self, rule: Any = None, **more: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)
        self.rule = rule
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return bits(x, self.rule(self.conv(x)))


class Listed(Net):
    def forward(self, x: Tensor) -> Tensor:
        levels: Any = self.levels
        return bits(x, self.conv(x) > levels[0])


class Runtime:
    """Stands for a session in C: nothing of it can be looked at."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[np.ndarray], np.ndarray]) -> None:
        self.run = run


class Wrapped(Net):
    def forward(self, x: Tensor) -> Tensor:
        return bits(x, torch.from_numpy(self.session.run(self.conv(x).numpy())))


class Lut(Net):
    """A table that is no buffer, or a buffer that is in no state dict."""

    def forward(self, x: Tensor) -> Tensor:
        return bits(x, self.table[x.clamp(0, 255).long()] > 0)


class Shared(Net):
    """Layers in a plain list: torch does not see their weights."""

    def forward(self, x: Tensor) -> Tensor:
        return bits(x, self.layers[0](x) > 100)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = [factor]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor[0]


def above(level: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x > level


def below(level: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x < level


def table(level: int) -> Tensor:
    return (torch.arange(256) > level).long()


def buffered(level: int) -> Lut:
    net = Lut()
    net.register_buffer("table", table(level), persistent=False)
    return net


def scaled(factor: float) -> nn.Module:
    layer = nn.Conv2d(1, 1, 1)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    nn.init.constant_(layer.weight, factor)
    return layer


def convolution() -> nn.Module:
    net = nn.Conv2d(1, 2, 1, bias=False)
    nn.init.ones_(net.weight)
    return net


def patched(factor: float) -> nn.Module:
    net = convolution()
    inner = net.forward
    net.forward = lambda x: inner(x) * torch.tensor([factor, 1.0]).view(1, 2, 1, 1)  # type: ignore[method-assign]
    return net


def hooked(factor: float) -> nn.Module:
    net = convolution()
    net.register_forward_hook(lambda module, inputs, output: output * factor)
    return net


def prepared(factor: float) -> nn.Module:
    net = convolution()
    net.register_forward_pre_hook(lambda module, inputs: inputs[0] * factor)
    return net


def parametrized(factor: float) -> nn.Module:
    net = convolution()
    parametrize.register_parametrization(net, "weight", Times(factor))
    return net


def acting(function: Callable[[Tensor], Tensor]) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 1, activation=function)
    torch.manual_seed(0)
    for weights in layer.parameters():
        nn.init.normal_(weights)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            cut = x.flatten()[:64].view(1, 16, 4) / 255
            return bits(x, x > self.layer(cut).mean())

    return Attends()


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "a function handed in": (lambda: Net(above(100)), lambda: Net(below(100))),
    "what a function closes over": (lambda: Net(above(100)), lambda: Net(above(101))),
    "a list": (lambda: Listed(levels=[100.0]), lambda: Listed(levels=[101.0])),
    "a plain tensor": (lambda: Lut(table=table(100)), lambda: Lut(table=table(101))),
    "an array": (
        lambda: Listed(levels=np.array([100.0], np.float32)),
        lambda: Listed(levels=np.array([101.0], np.float32)),
    ),
    "an object": (
        lambda: Net(rule=above(9), levels=SimpleNamespace(of=1)),
        lambda: Net(rule=above(9), levels=SimpleNamespace(of=2)),
    ),
    "a buffer that is in no state dict": (lambda: buffered(100), lambda: buffered(101)),
    "layers in a list": (lambda: Shared(layers=[scaled(1.0)]), lambda: Shared(layers=[scaled(1.1)])),
    "a runtime": (
        lambda: Wrapped(session=Runtime(lambda x: x > 100)),
        lambda: Wrapped(session=Runtime(lambda x: x > 101)),
    ),
    "a replaced forward": (lambda: patched(1.0), lambda: patched(2.0)),
    "a hook": (lambda: hooked(1.0), lambda: hooked(2.0)),
    "a hook before": (lambda: prepared(1.0), lambda: prepared(2.0)),
    "a parametrization": (lambda: parametrized(1.0), lambda: parametrized(2.0)),
    "a function in a layer of torch": (lambda: acting(lambda x: x.relu()), lambda: acting(lambda x: x.abs())),
}


def identity(net: nn.Module, card: ModelCard = CARD) -> str:
    found = identify(Model(card, net.eval()), "cpu", "fp32")
    assert found.trouble == ""
    return found.key


@pytest.mark.parametrize("kind", PAIRS)
def test_behaviour_beside_the_weights_is_identity(kind: str) -> None:
    one, two = PAIRS[kind]
    assert not Contents(one()).known
    assert identity(one()) == identity(one()), "made again it is the same model"
    assert identity(one()) != identity(two())


class Opaque(nn.Module):
    """Reads its behaviour where no look at the module can find it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        level, low = (float(os.environ[f"{self.name}_{end}"]) for end in ("LEVEL", "LOW"))
        return bits(x, (x > level) & (x > low))


@pytest.mark.parametrize(
    ("card", "one", "two"),
    [
        (CARD, 100, 101),
        (CARD, 0.50, 0.51),
        (CARD, 30_000, 30_020),
        (CARD, -0.9, -0.91),
        (CARD.model_copy(update={"mean": (127.0,), "std": (60.0,)}), 0.1, 0.12),
        (CARD.model_copy(update={"mean": (900.0,), "std": (300.0,), "dtype": "uint16"}), 0.1, 0.102),
    ],
)
def test_answers_tell_models_that_look_the_same(
    card: ModelCard, one: float, two: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for level in (one, two):
        monkeypatch.setenv("IDENTITY_LEVEL", str(level))
        monkeypatch.setenv("IDENTITY_LOW", "-1e9")
        found.append(identity(Opaque("IDENTITY"), card))
    assert found[0] != found[1]


def cell(text: str) -> Any:
    """Run a notebook cell that defines a forward, and return it."""
    names: dict[str, Any] = {"bits": bits, "LEVEL": 100.0}
    exec(f"def forward(self, x):\n    return bits(x, self.conv(x) {text})\n", names)
    return names["forward"]


def test_an_edited_forward_is_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    monkeypatch.setattr(Net, "forward", cell("> LEVEL"))
    before = identity(net)
    monkeypatch.setattr(Net, "forward", cell("> LEVEL"))
    assert identity(net) == before, "the cell was run again as it was"
    monkeypatch.setattr(Net, "forward", cell("< LEVEL"))
    assert identity(net) != before
    monkeypatch.setattr(Net, "forward", cell("> LEVEL"))
    Net.forward.__globals__["LEVEL"] = 101.0
    assert identity(net) != before, "a global that it reads"


def test_what_a_user_replaces_in_a_class_of_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    net = convolution()
    assert Contents(net).known
    inner = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: 2 * inner(self, x))
    assert not Contents(net).known
    doubled = identity(net)
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: 3 * inner(self, x))
    assert identity(net) != doubled


def test_known_networks_are_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilepipe.models.answers.fixed_tiles", lambda *_: pytest.fail("asked"))
    found = model_identity(random_unet(), "cpu", "fp32")
    assert found == model_identity(random_unet(), "cuda:0", "fp16"), "weights are the same on every device"
    assert found != model_identity(random_unet(seed=1), "cpu", "fp32")
    levels = [as_model(fit("threshold", sample, 2), ("dark", "bright"), 1) for sample in (SAMPLE, SAMPLE // 2)]
    assert len({model_identity(model, "cpu", "fp32") for model in levels}) == 2, "our own functions are looked at"


def test_the_card_is_part_of_it_but_words_for_people_are_not() -> None:
    net = Net(above(100))
    assert identity(net) != identity(net, CARD.model_copy(update={"mean": (1.0,)}))
    assert identity(net) == identity(net, CARD.model_copy(update={"description": "better"}))


def test_a_function_needs_no_honest_name() -> None:
    one, two = (
        from_function(lambda tile, k=k: np.concatenate([tile * 0, tile > k]).astype(np.float32), CARD, "mine")
        for k in (100, 101)
    )
    assert model_identity(one, "cpu", "fp32") != model_identity(two, "cpu", "fp32")


class Chance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return bits(x, x > torch.rand(()) * 255)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return bits(x, x > self.calls)


@pytest.mark.parametrize("net", [Chance(), Counting()], ids=["random", "stateful"])
def test_answers_that_do_not_repeat_have_no_identity(net: nn.Module) -> None:
    model = Model(CARD, net.eval())
    one, two = (identify(model, "cpu", "fp32") for _ in range(2))
    assert "differently" in one.trouble
    assert one.key != two.key
    with identities_held():
        assert model_identity(model, "cpu", "fp32") == model_identity(model, "cpu", "fp32"), "one call, one model"


def test_the_callers_chance_is_not_disturbed() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    identify(Model(CARD, Chance()), "cpu", "fp32")
    assert torch.equal(torch.rand(3), wanted)


class Keeps(nn.Module):
    """Answers always the same, and remembers: a count and what it made for the last size."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen, self.grid = 0, [], None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x.shape)
        self.grid = torch.arange(x.shape[-1])
        self.late = "made by the first call"
        return bits(x, x + self.grid > 100)


def test_memory_that_changes_no_answer_is_no_identity() -> None:
    net = Keeps()
    first = identity(net)
    net(torch.zeros(1, 1, 64, 64))
    assert identity(net) == first == identity(Keeps())


class Fixed(nn.Module):
    """Takes tiles of 512 pixels alone."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (512, 512):
            raise ValueError("512 only")
        return bits(x, x > 100)


class Never(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("never")


def test_a_model_of_one_size_is_told_by_that_size() -> None:
    assert identity(Fixed()) == identity(Fixed())
    assert "fails" in identify(Model(CARD, Never()), "cpu", "fp32").trouble


def session(level: float) -> Any:
    """Return an onnxruntime session that says where x lies above a level."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    sides = ["n", "c", "h", "w"]
    graph = make.make_graph(
        [make.make_node("Greater", ["x", "level"], ["above"]), make.make_node("Cast", ["above"], ["y"], to=number)],
        "threshold",
        [make.make_tensor_value_info("x", number, sides)],
        [make.make_tensor_value_info("y", number, sides)],
        [make.make_tensor("level", number, [], [level])],
    )
    file = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
    return onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])


class Onnx(nn.Module):
    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    def forward(self, x: Tensor) -> Tensor:
        return bits(x, torch.from_numpy(self.session.run(None, {"x": x.numpy()})[0]))


def test_a_wrapped_onnx_session_is_told_by_what_it_answers() -> None:
    assert identity(Onnx(session(100.0))) == identity(Onnx(session(100.0)))
    assert identity(Onnx(session(100.0))) != identity(Onnx(session(101.0)))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(plain, plain)
def test_values_have_one_hash_exactly_where_they_are_the_same(one: Any, two: Any) -> None:
    assert hash_of(one) == hash_of(copy.deepcopy(one))
    assert (hash_of(one) == hash_of(two)) == (repr(one) == repr(two))
    assert hash_of([one, two]) != hash_of([[one, two]])


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import test_identity as t
import torch
torch.manual_seed({seed})
nets = [one() for one, _ in t.PAIRS.values()]
torch.manual_seed(0)
nets.append(torch.nn.Sequential(*[t.Deep(16) for _ in range(2)]))
print(*(t.identity(net, t.card_of(net)) for net in nets))
"""


class Deep(nn.Module):
    """Has a sum so long that more threads add it up in another order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(2, width, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x).exp().sum() / 1e9


def card_of(net: nn.Module) -> ModelCard:
    return CARD.model_copy(update={"bands": 2}) if isinstance(net, nn.Sequential) else CARD


@pytest.mark.long
def test_it_is_the_same_in_every_process_with_any_number_of_threads() -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    found = []
    for threads in (1, 2):
        script = SCRIPT.format(paths=paths, seed=threads)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(threads)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        found.append(done.stdout.split())
    assert len(found[0]) == len(PAIRS) + 1
    assert found[0] == found[1]
