"""certificate.json of a model directory holds the probe of its network, bound to the weights and the procedure."""

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
    """Return the text of certificate.json; `weights` is `network_sha256` of the network that was measured."""
    import torch

    # The weights are those of the certificate itself.
    evidence = {name: value for name, value in found.evidence.items() if name != "weights"}
    values = {
        "format": FORMAT,
        "procedure": VERSION,
        "weights": weights,
        "bands": bands,
        "versions": {"tilepipe": version("tilepipe"), "torch": torch.__version__},
        # Without the seconds that the probe took, so that the same network gives the same file.
        "probe": asdict(replace(found, seconds=0.0, evidence=evidence)),
        "halo": None if found.halo is None else asdict(found.halo),
        "sentence": str(found),
    }
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def certified(model: Model) -> Probe | None:
    """Return the probe in the model's certificate; None if there is none, or it is damaged or of another network.

    A certificate is bound to layers and weights, so it says nothing of a network with code of an unknown package.
    """
    with suppress(ValueError, KeyError, TypeError, AttributeError, StorageError):
        values = json_of(model.certificate or "")
        found = Probe.from_json(json.dumps(values["probe"]))
        same = (values["format"], values["procedure"], values["bands"]) == (FORMAT, VERSION, model.card.bands)
        # A probe takes the stride of the card for granted, so one that was made under another card may not fit.
        fits = found.stride is None or found.stride % model.card.stride == 0
        if not (same and fits):
            return None
        weights = values["weights"]
        if model.facts is not None:
            return found if weights == model.facts.network else None
        from tilepipe.models.unchanged import while_unchanged

        return found if while_unchanged(model.module, ("certified", weights), lambda: _is_of(weights, model)) else None
    return None


def _is_of(weights: str, model: Model) -> bool:
    """Return whether a certificate of these weights is the model's, and the model's layers are of known packages."""
    from tilepipe.models.contents import Contents, network_sha256

    return weights == network_sha256(model.module) and Contents(model.module).known


def known_probe(model: Model, listener: Listener = silent) -> Probe:
    """Return the certificate's probe, or measure it once for the same weights. Raises the errors of `probe_once`."""
    found = certified(model)
    if found is not None:
        return found
    from tilepipe.models.average import Average
    from tilepipe.models.probe.procedure import probe_once

    if isinstance(model.module, Average):
        # Measuring the average would take as long as measuring the network in each position, and say the same.
        return known_probe(replace(model, module=model.module.network), listener).on_all_sides()

    return probe_once(model.module, model.card.bands, model.card.stride, listener)


def with_certificate(model: Model) -> Model:
    """Return the model with a valid certificate, measured if there is none; without one if measuring fails."""
    try:
        found = known_probe(model)
    except Exception:  # planning says why a model cannot be measured
        return replace(model, certificate=None)
    from tilepipe.models.contents import network_sha256

    text = certificate_text(found, network_sha256(model.module), model.card.bands)
    return replace(model, certificate=text)
