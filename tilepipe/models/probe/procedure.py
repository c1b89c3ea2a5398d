"""The probe's steps run in order, and their findings become the fields of a `Probe`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from tilepipe.box import Sides
from tilepipe.cache import cache_directory
from tilepipe.errors import ModelError, public
from tilepipe.events import Event, Listener, silent
from tilepipe.models.card import ModelCard
from tilepipe.models.contents import network_sha256
from tilepipe.models.probe.architecture import architecture_of, reads_values, with_drawn_weights
from tilepipe.models.probe.global_layers import Findings, FixGlobals, watch
from tilepipe.models.probe.probe_cache import cache_key, keep, layers_key, recall
from tilepipe.models.probe.result import Probe
from tilepipe.models.probe.steadiness import refuse_unsteady
from tilepipe.models.probe.stride_and_field import Measured, measure
from tilepipe.models.probe.subject import Subject, adopt
from tilepipe.models.unchanged import while_unchanged
from tilepipe.text import JSON

if TYPE_CHECKING:
    from torch import Tensor, nn


_SEEN: dict[str, Probe] = {}


def run_probe(forward: object, bands: int, declared: int | None, cache: Path | None) -> Probe:
    """Return the probe of `forward`; see `probe`."""
    module = forward if isinstance(forward, nn.Module) else getattr(forward, "module", None)
    if cache is None or not isinstance(module, nn.Module):
        return _run(adopt(forward, bands, declared), declared)
    return _kept(cache_key(module, bands, declared), cache, lambda: _run(adopt(forward, bands, declared), declared))


def probe_once(module: nn.Module, bands: int, declared: int | None, listener: Listener = silent) -> Probe:
    """Return the probe of a module, measured once for its architecture, or once while the module is the same.

    A module of known layers, or of code in Python that reads no values of tensors, is measured with drawn weights, and
    the result holds for all weights; it is told when it is used for others. Any other module is measured once for its
    weights, its settings and its answers. The probe is kept in this process and in the cache directory, unless the
    module's answers do not repeat. The listener is told before the measuring begins.
    """
    asked = ("probe", bands, declared)
    return while_unchanged(module, asked, lambda: _of_architecture(module, bands, declared, listener))


def _of_architecture(module: nn.Module, bands: int, declared: int | None, listener: Listener) -> Probe:
    layers = architecture_of(module)
    if layers is None:
        return probe_of_weights(module, bands, declared, listener)
    key, directory = layers_key(module, layers, bands, declared), cache_directory()
    found = _SEEN.get(key) or (recall(directory, key) if directory else None)
    if found is None:
        found = _drawn(module, bands, declared, listener)
        if found is None:
            return probe_of_weights(module, bands, declared, listener)
        if directory:
            keep(directory, key, found)
    elif found.evidence.get("weights") != network_sha256(module):
        listener(Event("plan", message="stride and reach follow from the model's layers, which were measured before"))
    _SEEN[key] = found
    return found


def _drawn(module: nn.Module, bands: int, declared: int | None, listener: Listener) -> Probe | None:
    """Measure a module with drawn weights; None if it must be measured with its own."""
    try:
        with torch.random.fork_rng(devices=[]):  # a layer that draws numbers must not disturb the caller's
            subject = adopt(with_drawn_weights(module), bands, declared)
            whole = subject.noise(subject.quantum, subject.quantum)
            if not isinstance(subject.forward, nn.Module) or subject.black_box or reads_values(subject.forward, whole):
                return None
        listener(Event("plan", message="measuring the model's stride and reach"))
        found = _run(subject, declared)
    except Exception:  # whatever the module does with drawn weights, its own decide
        return None
    return replace(found, evidence={**found.evidence, "weights": network_sha256(module)})


def probe_of_weights(module: nn.Module, bands: int, declared: int | None, listener: Listener) -> Probe:
    """Return the probe of a module with its own weights, measured once while it is the same."""
    key = cache_key(module, bands, declared)
    if key in _SEEN:
        return _SEEN[key]

    def measured() -> Probe:
        listener(Event("plan", message="measuring the model's stride and reach"))
        return _run(adopt(module, bands, declared), declared)

    found = _kept(key, cache_directory(), measured)
    if key is not None:
        _SEEN[key] = found
    return found


def _kept(key: str | None, directory: Path | None, measured: Callable[[], Probe]) -> Probe:
    """Return the probe kept under a key; if there is none, measure and keep it."""
    if key is None or directory is None:
        return measured()
    found = recall(directory, key)
    if found is None:
        found = measured()
        keep(directory, key, found)
    return found


def _run(subject: Subject, declared: int | None) -> Probe:
    began = perf_counter()
    findings = watch(subject)
    refuse_unsteady(subject, findings)
    cell: int | None = getattr(subject.forward, "cell", None)
    if cell is not None:
        return _of_cells(subject, cell, began)
    fields = (_global if findings.global_ops else _local)(subject, findings, declared)
    return Probe(**fields, seconds=round(perf_counter() - began, 3))


def _of_cells(subject: Subject, cell: int, began: float) -> Probe:
    """Return the probe of a network that is called on each square of `cell` pixels alone, which needs no measuring."""
    notes = (f"Each square of {cell} px is classified alone.",)
    evidence = {"black_box": subject.black_box, "cell": cell}
    seconds = round(perf_counter() - began, 3)
    return Probe(subject.quantum, Sides(0, 0, 0, 0), notes=notes, evidence=evidence, seconds=seconds)


def _local(subject: Subject, findings: Findings, declared: int | None) -> JSON:
    """Return the fields of a probe for a model without an operation that is global for certain; measuring decides."""
    many = subject.black_box or bool(findings.swallowed)
    measured = measure(subject, declared, many)
    named = findings.wide_ops if measured.reach is None else {}
    return {
        "stride": measured.stride,
        "reach": measured.reach,
        "global_layers": _layers(named),
        "notes": _notes(measured, findings, declared),
        "evidence": _evidence(subject, measured),
    }


def _global(subject: Subject, findings: Findings, declared: int | None) -> JSON:
    """Return the fields of a probe for a global model: stride and reach while its global operations are held fixed."""
    if "attention" in findings.global_ops.values():
        measured = Measured(declared, None, 0, 0)  # these operations have no local stand-in
    else:
        frozen = subject.under(lambda: FixGlobals(subject.modules, findings))
        measured = measure(frozen, declared, bool(findings.swallowed))
    return {
        "stride": measured.stride,
        "reach": None,
        "global_layers": _layers(findings.global_ops),
        "frozen_reach": measured.reach if findings.freezable else None,
        "notes": _notes(measured, findings, declared),
        "evidence": _evidence(subject, measured),
    }


def _layers(named: dict[tuple[str, str], str]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys((layer, kind) for (layer, _), kind in named.items()))


def _notes(measured: Measured, findings: Findings, declared: int | None) -> tuple[str, ...]:
    notes = [f"Not local: {measured.note}."] if measured.note else []
    if declared and measured.stride and declared % measured.stride:
        notes.append(f"The declared stride {declared} is wrong: tiles must be multiples of {measured.stride}.")
    for (layer, _), what in findings.swallowed.items():
        notes.append(f"{what} in layer '{layer}': the reach rests on finite draws there.")
    return tuple(notes)


def _evidence(subject: Subject, measured: Measured) -> JSON:
    stopped = {} if measured.at_least is None else {"at_least": measured.at_least}
    return {
        **stopped,
        "stride_precision": str(subject.dtype).removeprefix("torch."),
        "window": measured.side,
        "draws_per_side": measured.draws,
        "black_box": subject.black_box,
    }


class HasModule(Protocol):
    """A `Model`: anything that holds a torch module."""

    @property
    def module(self) -> nn.Module:
        """Network from (B, bands, H, W) float32 to logits (B, classes, H, W)."""


@public
def probe(
    forward: Callable[[Tensor], Tensor] | nn.Module | HasModule,
    bands: int | None = None,
    *,
    declared_stride: int | None = None,
    cache: Path | None = None,
) -> Probe:
    """Measure the total stride of a network, its reach per side, and the operations that mix the whole tile.

    A module is copied to the CPU and called on about 50 small inputs; the caller's own module is not changed.

    Args:
        forward: A `Model`, a torch module, or a function. It maps (B, bands, H, W) float32 to (B, classes, H, W). A
            function is called as it is, with tensors on the CPU.
        bands: Number of bands that are read; the card's number if `forward` is a `Model`.
        declared_stride: Total stride in pixels that the card says. The result is a multiple of it.
        cache: Directory that keeps the results of modules. Results of functions are not kept.

    Returns:
        Stride and reach in pixels. `reach` is None if no context is enough.

    Raises:
        ModelError: The model is random, keeps state, is in training mode, depends on the other tiles of a batch, or
            gives NaN; or its output has another height or width than its input.

    Example:
        >>> import torch
        >>> import tilepipe as tp
        >>> found = tp.probe(torch.nn.Conv2d(3, 2, kernel_size=5, padding=2).eval(), bands=3)
        >>> found.stride, found.reach
        (1, Sides(top=2, bottom=2, left=2, right=2))
    """
    card: ModelCard | None = getattr(forward, "card", None)
    if card is not None:
        bands = card.bands if bands is None else bands
        declared_stride = card.stride if declared_stride is None else declared_stride
    if bands is None:
        raise ModelError(
            "bands are missing; say how many the model reads, or give a tilepipe Model, whose card says it"
        )
    return run_probe(forward, bands, declared_stride, cache)
