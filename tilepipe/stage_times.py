"""This module measures how long this process spends in each stage of its blocks; it imports nothing of others.

Stages are `read` (reading and decoding), `wait` (for pixels), `compute` (the model), `blend` and `write` (labels to the
work directory). Time of a stage within another one counts for the inner stage only. Threads add up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

STAGES = ("read", "wait", "compute", "blend", "write")
"""Names of the stages."""
WORDS = {
    "compute": "the model",
    "wait": "reading the image",
    "read": "reading the image",
    "blend": "putting tiles together",
    "write": "writing labels to the work directory",
    "products": "writing the products",
    "idle": "waiting for work",
}
"""What takes the time in each stage, in words."""

_seconds = dict.fromkeys(STAGES, 0.0)
_lock = threading.Lock()
_inner = threading.local()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of the block under a stage; it may be used in any thread."""
    outer, _inner.seconds = getattr(_inner, "seconds", 0.0), 0.0
    began = perf_counter()
    try:
        yield
    finally:
        taken = perf_counter() - began
        with _lock:
            _seconds[name] += taken - _inner.seconds
        _inner.seconds = outer + taken


def taken_so_far() -> dict[str, float]:
    """Return the seconds of each stage since the process began."""
    with _lock:
        return dict(_seconds)


def bottleneck(stages: Mapping[str, float]) -> str:
    """Return in a sentence what took most of the time; '' if nothing was measured.

    `stages` has the seconds of each stage, and of `elapsed`, `idle` and `products`. Reading beside the model costs
    nothing, so only the time counts that the model has waited for pixels.
    """
    whole, idle = stages.get("elapsed", 0.0), stages.get("idle", 0.0)
    shown = {name: stages[name] for name in WORDS if name in stages and name not in ("read", "idle")}
    if whole <= 0 or not any(shown.values()):
        return ""
    name = max(shown, key=lambda each: shown[each])
    total = sum(shown.values()) + idle
    said = f"{WORDS[name]} took {100 * shown[name] / total:.0f} % of the time and is the bottleneck"
    # This happens in short runs, and if other programs take the processor.
    waited = f"; for {100 * idle / total:.0f} % nothing worked, as while libraries start"
    return said + waited if idle > shown[name] else said
