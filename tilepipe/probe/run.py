"""The probe's steps in order, and its fields from what they found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import nn

from tilepipe.cache import cache_directory
from tilepipe.events import Event, Listener, silent
from tilepipe.probe.cache import cache_key, keep, recall
from tilepipe.probe.measure import Measured, measure
from tilepipe.probe.refuse import refuse_unsteady
from tilepipe.probe.result import Probe
from tilepipe.probe.subject import Subject, adopt
from tilepipe.probe.watch import Findings, Freeze, watch

_SEEN: dict[str, Probe] = {}


def run_probe(forward: Any, bands: int, declared: int | None, cache: Path | None) -> Probe:
    """See `tilepipe.probe.probe`."""
    module = forward if isinstance(forward, nn.Module) else getattr(forward, "module", None)
    if cache is None or not isinstance(module, nn.Module):
        return _run(forward, bands, declared)
    return _kept(cache_key(module, bands, declared), cache, lambda: _run(forward, bands, declared))


def probe_once(module: nn.Module, bands: int, declared: int | None, listener: Listener = silent) -> Probe:
    """Return the probe of a module, measured once while it is the same: its weights, its settings and its answers.

    Kept in this process and in the cache directory; not where the module's answers do not repeat. The listener hears
    that something is measured, before it is.
    """
    key = cache_key(module, bands, declared)
    if key in _SEEN:
        return _SEEN[key]

    def measured() -> Probe:
        listener(Event("plan", message="measuring the model's stride and reach"))
        return _run(module, bands, declared)

    found = _kept(key, cache_directory(), measured)
    if key is not None:
        _SEEN[key] = found
    return found


def _kept(key: str | None, directory: Path | None, measured: Callable[[], Probe]) -> Probe:
    """Return the probe kept under a key; where there is none, measure and keep it."""
    if key is None or directory is None:
        return measured()
    found = recall(directory, key)
    if found is None:
        found = measured()
        keep(directory, key, found)
    return found


def _run(forward: Any, bands: int, declared: int | None) -> Probe:
    began = perf_counter()
    subject = adopt(forward, bands, declared)
    findings = watch(subject)
    refuse_unsteady(subject, findings)
    fields = (_global if findings.global_ops else _local)(subject, findings, declared)
    return Probe(**fields, seconds=round(perf_counter() - began, 3))


def _local(subject: Subject, findings: Findings, declared: int | None) -> dict[str, Any]:
    """Fields of a probe for a model in which no operation is global for certain; measuring decides."""
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


def _global(subject: Subject, findings: Findings, declared: int | None) -> dict[str, Any]:
    """Fields of a probe for a global model: stride and reach of the rest, with the global operations held fixed."""
    if "attention" in findings.global_ops.values():
        measured = Measured(declared, None, 0, 0)  # no local stand-in
    else:
        frozen = subject.under(lambda: Freeze(subject.modules, findings))
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


def _evidence(subject: Subject, measured: Measured) -> dict[str, Any]:
    stopped = {} if measured.at_least is None else {"at_least": measured.at_least}
    return {
        **stopped,
        "stride_precision": str(subject.dtype).removeprefix("torch."),
        "window": measured.window,
        "draws_per_side": measured.draws,
        "black_box": subject.black_box,
    }
