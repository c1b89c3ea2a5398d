"""The switches: float32 is float32 whatever the caller has set, and all is as it was afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import backends

from tilepipe.models.precision import arithmetic, on_device

CPU = torch.device("cpu")
PLACES = [
    backends, backends.cudnn, backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul,
]  # fmt: skip
FLAGS = ("enabled", "benchmark", "deterministic")


def tf32_everywhere() -> None:
    backends.fp32_precision = "tf32"


def tf32_in_convolutions() -> None:
    backends.cudnn.conv.fp32_precision = "tf32"


def bf16_inside_float32() -> None:
    backends.mkldnn.conv.fp32_precision = "bf16"


def as_before_2_9() -> None:
    torch.set_float32_matmul_precision("medium")


def flags_turned_over() -> None:
    backends.cudnn.benchmark, backends.cudnn.deterministic, backends.cudnn.enabled = True, False, False


CALLERS = [lambda: None, tf32_everywhere, tf32_in_convolutions, bf16_inside_float32, as_before_2_9, flags_turned_over]


def state() -> list[Any]:
    found: list[Any] = [place.fp32_precision for place in PLACES]
    found += [getattr(backends.cudnn, flag) for flag in FLAGS]
    for legacy in (torch.get_float32_matmul_precision, lambda: backends.cudnn.allow_tf32):
        try:
            found.append(legacy())
        except RuntimeError:
            found.append("mixed")
    return [*found, torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()]


@pytest.fixture
def clean() -> Iterator[None]:
    """Leave the process as it was, with torch's own switches."""
    yield
    backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for place in PLACES[3:]:
        place.fp32_precision = "none"
    backends.cudnn.benchmark, backends.cudnn.deterministic, backends.cudnn.enabled = False, False, True


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "tf32"])
@pytest.mark.parametrize("caller", CALLERS)
def test_all_is_set_and_then_as_it_was(caller: Callable[[], None], precision: str) -> None:
    caller()
    before = state()
    with arithmetic(CPU, precision):
        convolutions = "tf32" if precision == "tf32" else "ieee"
        assert [place.fp32_precision for place in PLACES[2:]] == [convolutions, "ieee", "ieee", "ieee"]
        assert [getattr(backends.cudnn, flag) for flag in FLAGS] == [True, False, True]
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
    assert state() == before
    with pytest.raises(ValueError, match="in a model"), arithmetic(CPU, precision):
        raise ValueError("in a model")
    assert state() == before


@pytest.mark.usefixtures("clean")
def test_inherited_switches_go_on_inheriting() -> None:
    backends.cudnn.conv.fp32_precision = "none"
    backends.fp32_precision = "tf32"
    with arithmetic(CPU, "fp32"):
        pass
    backends.fp32_precision = "ieee"
    assert {place.fp32_precision for place in PLACES[2:]} == {"ieee"}


@pytest.mark.usefixtures("clean")
def test_threads_do_not_see_each_others_switches() -> None:
    inside, seen = threading.Event(), []

    def other() -> None:
        inside.wait(10)
        with arithmetic(CPU, "fp32"):
            seen.append(backends.cudnn.conv.fp32_precision)

    thread = threading.Thread(target=other)
    before = state()
    with arithmetic(CPU, "tf32"):
        thread.start()
        inside.set()
        thread.join(0.2)
        assert thread.is_alive()
        assert not seen
    thread.join(10)
    assert (seen, state()) == (["ieee"], before)


def test_the_callers_own_autocast_does_not_count() -> None:
    layer, x = torch.nn.Conv2d(1, 1, 3), torch.ones(1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16), arithmetic(CPU, "fp32"):
        assert layer(x).dtype == torch.float32
    with arithmetic(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16


def test_on_the_cpu_a_module_is_itself() -> None:
    net = torch.nn.Conv2d(1, 1, 1).train()
    assert on_device(net, CPU) is net
    assert not net.training
    elsewhere = on_device(net, torch.device("meta"))
    assert (elsewhere.weight.device.type, net.weight.device.type) == ("meta", "cpu")


def test_in_fp64_a_module_is_a_copy() -> None:
    net = torch.nn.Conv2d(1, 1, 1)
    wide = on_device(net, CPU, "fp64")
    assert (wide.weight.dtype, net.weight.dtype) == (torch.float64, torch.float32)
    assert wide.weight.detach().float().equal(net.weight)
    assert on_device(net, torch.device("meta"), "fp64").weight.dtype == torch.float64
