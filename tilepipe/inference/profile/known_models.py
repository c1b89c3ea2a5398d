"""Known models: a model directory is read once on a machine; the next process opens it by its facts, without torch."""

from __future__ import annotations

import os
from pathlib import Path

from tilepipe.models.facts import bundled
from tilepipe.models.kept_facts import directory_sha256, has_facts, keep_facts
from tilepipe.models.model import Model
from tilepipe.models.unread import AnyModel, open_models


def open_known(model: AnyModel, tta: str = "none", *, trust_model: str | None = None) -> Model:
    """Return what `open_models` returns, and keep the facts of a directory that was read. Raises its errors."""
    only = model[0] if isinstance(model, list | tuple) and len(model) == 1 else model
    named = os.fspath(only) if isinstance(only, str | os.PathLike) and tta == "none" else ""
    told = directory_sha256(named) if named and bundled(named) is None else None
    found = open_models(model, tta, trust_model=trust_model)
    if told is not None and found.facts is None and not has_facts(told):
        _keep(named, told, found)
    return found


def _keep(named: str, told: str, model: Model) -> None:
    """Keep the facts of a model that was just read from a directory, if the directory alone says all of the network."""
    from tilepipe.inference.profile.footprint import facts_of
    from tilepipe.models.formats.directory import is_own

    # The files may have been changed while they were read, and nobody knows which of the two is the model.
    if is_own(Path(named)) and (facts := facts_of(model)) and directory_sha256(named) == told:
        keep_facts(told, facts, model.card.stride)
