"""Unread: a model whose network is read only when it is used, as its facts are known. This module imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tilepipe.errors import ModelError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import CARD, WEIGHTS, Facts, bundled, certificate_in, read_facts
from tilepipe.models.kept_facts import kept_facts
from tilepipe.models.model import Model

if TYPE_CHECKING:
    from torch import nn


AnyModel: TypeAlias = "str | os.PathLike[str] | Model | Sequence[str | os.PathLike[str] | Model]"
"""What may stand for a model: the name of a bundled model, a path, a `Model`, or a list of these, which are
averaged."""


def open_model(name_or_path: str | Path, *, trust_model: str | None = None) -> Model:
    """Return the model as `load_model` does, with its network unread if its facts are right. Raises `ModelError`."""
    name = str(name_or_path)
    if (folder := bundled(name)) is not None:
        card = ModelCard.load(folder / CARD)
        if facts := read_facts(card, folder / WEIGHTS):
            return Unread(card, name, folder, facts)
    elif (kept := kept_facts(name)) is not None:
        return Unread(kept.card, name, Path(name), kept.facts)
    from tilepipe.models.formats.directory import load_model

    return load_model(name_or_path, trust_model=trust_model)


def open_models(model: AnyModel, tta: str = "none", *, trust_model: str | None = None) -> Model:
    """Return one model, or the ensemble of several; its probabilities are averaged over the positions `tta`.

    Raises `ModelError` if a model is refused or several do not fit each other, and `UsageError` if none is given.
    """
    named = list(model) if isinstance(model, list | tuple) else [model]
    if not named:
        raise UsageError("no model is given; name one with `model`")
    found = [_opened(one, trust_model) for one in named]
    if tta == "none" and len(found) == 1:
        return found[0]
    # This import opens torch, which a plan with one bundled model does without.
    from tilepipe.models.joint import ensemble

    return ensemble(found, tta)


def _opened(model: object, trust_model: str | None) -> Model:
    if isinstance(model, Model):
        return model
    if isinstance(model, str | os.PathLike):
        return open_model(os.fspath(model), trust_model=trust_model)
    raise ModelError(
        f"a {type(model).__name__} is no model; give a name, a path or a tp.Model. A torch module becomes a model by "
        "tp.Model.from_torch(module, tp.ModelCard(bands=3, classes=['background', 'building']))"
    )


class Unread(Model):
    """A model whose facts are known and that has not been read yet: a bundled one, or one that was read before."""

    def __init__(self, card: ModelCard, name: str, folder: Path, facts: Facts) -> None:
        """Keep card, name and facts; `folder` is the model directory."""
        # A frozen dataclass takes no assignments, and its own `__init__` would want the network.
        self.__dict__.update(card=card, name=name, certificate=certificate_in(folder), facts=facts, folder=folder)

    @cached_property
    def module(self) -> nn.Module:
        """Read the network and return it. Raises `ModelError` if the facts are of another network."""
        from tilepipe.models.contents import network_sha256
        from tilepipe.models.formats.directory import load_model

        found = load_model(self.__dict__["folder"]).module
        if self.facts is None or network_sha256(found) != self.facts.network:
            raise ModelError(f"{self.name} was changed while it was used; run the command again")
        return found

    def sha256(self) -> str:
        """Return the hash of weights, layers, their settings, and the card without words for people."""
        assert self.facts is not None
        return self.facts.sha256

    def __reduce__(self) -> tuple[type[Model], tuple[object, ...]]:
        return Model, (self.card, self.module, self.name, self.certificate)
