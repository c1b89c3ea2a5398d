"""Identity: what a model is told by wherever something of it is kept; knows no torch (`answers` does).

A model that has not been read says its own (`facts`); any other is looked at, and asked where that does not say all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tilepipe.models.model import Model


@dataclass(frozen=True)
class Identity:
    """What a model is told by."""

    key: str
    """A sha256; another one in every call for a model that has none."""
    trouble: str = ""
    """Why the model has no identity, in a sentence; '' if it has one."""


_HELD: ContextVar[dict[Hashable, Identity] | None] = ContextVar("identities", default=None)


@contextmanager
def identities_held() -> Iterator[None]:
    """While this lasts each model is identified once: the models of one call of tilepipe do not change in it."""
    if _HELD.get() is not None:
        yield
        return
    token = _HELD.set({})
    try:
        yield
    finally:
        _HELD.reset(token)


def model_identity(model: Model, device: str, precision: str) -> str:
    """Return the hash that tells a model from every other one, on a device ('cpu', 'cuda:i') in a precision."""
    return identify(model, device, precision).key


def identify(model: Model, device: str, precision: str, *, values: bool = True) -> Identity:
    """Return a model's identity, and why it has none where its answers do not repeat or it cannot be asked.

    Device and precision count only where the model must be asked: weights are the same everywhere. Without `values` it
    is asked for two small tiles alone, which tell how it sees, but not every threshold.
    """
    if model.facts is not None:
        return Identity(model.facts.identity)
    from tilepipe.models.answers import Asking, identified

    held, card = _HELD.get(), model.card_sha256()
    key = (model.module, card, device, precision, values)
    if held is not None and key in held:
        return held[key]
    found = Identity(*identified(model, card, Asking(device, precision, values)))
    if held is not None:
        held[key] = found
    return found
