"""Identity: a hash that tells models apart in everything that is kept. This module imports no torch (`answers` does).

A model that has not been read has its identity in `facts`. Any other model is hashed by its contents; if the contents
do not say all, the model is called too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tilepipe.models.model import Model


@dataclass(frozen=True)
class Identity:
    """The hash that tells a model from all others, or the reason why there is none."""

    key: str
    """A sha256; a model without an identity gets another one in every call."""
    trouble: str = ""
    """Why the model has no identity, in a sentence; '' if it has one."""


# A context variable, since other threads may be in calls of their own.
_HELD: ContextVar[dict[Hashable, Any] | None] = ContextVar("identities", default=None)


@contextmanager
def identities_held() -> Iterator[None]:
    """Identify each model once while this lasts: models do not change during one call of tilepipe."""
    # A call within a call uses what the outer call has found.
    if _HELD.get() is not None:
        yield
        return
    token = _HELD.set({})
    try:
        yield
    finally:
        _HELD.reset(token)


def held_here() -> dict[Hashable, Any] | None:
    """Return what has been found about models in this call of tilepipe, by keys; None outside of a call."""
    return _HELD.get()


def model_identity(model: Model, device: str, precision: str) -> str:
    """Return the hash that tells a model from all others, on a device ('cpu', 'cuda:i') and in a precision."""
    return identify(model, device, precision).key


def identify(model: Model, device: str, precision: str, *, values: bool = True) -> Identity:
    """Return a model's identity, and the reason if it has none: its answers do not repeat, or it cannot be called.

    Device and precision count only if the model must be called: weights are the same everywhere. Without `values` the
    model is called on two small tiles only, which show its reach but not every threshold.
    """
    if model.facts is not None:
        return Identity(model.facts.identity)
    from tilepipe.models.answers import Asking, identified

    held, card = _HELD.get(), model.card_sha256()
    key = (model.module, card, device, precision, values)
    if held is not None and key in held:
        known: Identity = held[key]
        return known
    found = Identity(*identified(model, card, Asking(device, precision, values)))
    if held is not None:
        held[key] = found
    return found
