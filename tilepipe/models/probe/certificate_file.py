"""certificate.json of a model directory: the probe of its network, bound to the weights and to the procedure."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version

from tilepipe.errors import StorageError
from tilepipe.events import Listener, silent
from tilepipe.models.model import Model
from tilepipe.models.probe.probe_cache import VERSION
from tilepipe.models.probe.result import Probe
from tilepipe.text import json_of

FORMAT = 1


def certificate_text(found: Probe, weights: str, bands: int) -> str:
    """Return the text of certificate.json; `weights` is `network_sha256` of what was measured.

    The seconds that it took are left out, so that the same network gives the same file.
    """
    import torch

    values = {
        "format": FORMAT,
        "procedure": VERSION,
        "weights": weights,
        "bands": bands,
        "versions": {"tilepipe": version("tilepipe"), "torch": torch.__version__},
        "probe": asdict(replace(found, seconds=0.0)),
        "halo": None if found.halo is None else asdict(found.halo),
        "sentence": str(found),
    }
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def certified(model: Model) -> Probe | None:
    """Return what the model's certificate says; None if there is none, or it is damaged or of something else.

    It is bound to layers and weights, so it says nothing of a network with code that is not of a known package.
    """
    with suppress(ValueError, KeyError, TypeError, AttributeError, StorageError):
        values = json_of(model.certificate or "")
        found = Probe.from_json(json.dumps(values["probe"]))
        same = (values["format"], values["procedure"], values["bands"]) == (FORMAT, VERSION, model.card.bands)
        fits = found.stride is None or found.stride % model.card.stride == 0
        return found if same and fits and _is_of(values["weights"], model) else None
    return None


def _is_of(weights: str, model: Model) -> bool:
    """Return whether a certificate of these weights is of this model, whose layers are of known packages."""
    if model.facts is not None:
        return weights == model.facts.network
    from tilepipe.models.contents import Contents, network_sha256

    return weights == network_sha256(model.module) and Contents(model.module).known


def known_probe(model: Model, listener: Listener = silent) -> Probe:
    """Return what the certificate says, or what is measured, once for the same weights; raises what that raises."""
    if found := certified(model):
        return found
    from tilepipe.models.probe.procedure import probe_once

    return probe_once(model.module, model.card.bands, model.card.stride, listener)


def with_certificate(model: Model) -> Model:
    """Return the model with a certificate that holds, measured where there is none; without where it cannot be."""
    try:
        found = known_probe(model)
    except Exception:  # a model that cannot be measured, for whatever reason: planning says it
        return replace(model, certificate=None)
    from tilepipe.models.contents import network_sha256

    text = certificate_text(found, network_sha256(model.module), model.card.bands)
    return replace(model, certificate=text)
