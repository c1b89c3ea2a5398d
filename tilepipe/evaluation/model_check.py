"""This module measures a model and compares the results with its card."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tilepipe.errors import ModelError, UsageError
from tilepipe.inference.banded.lookup import NotBandedError
from tilepipe.inference.banded.network import banded
from tilepipe.inference.device import Compute, resolve_device, resolve_precision, usual_batch
from tilepipe.inference.predictor import Predictor
from tilepipe.inference.profile.measure_reproducibility import Setting, known_reproducibility
from tilepipe.inference.profile.reproducibility import Reproducibility
from tilepipe.inference.statistics.trial import operations
from tilepipe.models.card import ModelCard
from tilepipe.models.contents import network_sha256
from tilepipe.models.facts import CARD, CERTIFICATE
from tilepipe.models.formats import load
from tilepipe.models.formats.directory import load_model
from tilepipe.models.formats.opaque import Packaged
from tilepipe.models.model import Model
from tilepipe.models.probe.certificate_file import certificate_text
from tilepipe.models.probe.procedure import probe
from tilepipe.models.probe.result import Probe
from tilepipe.models.probe.upsampling_lint import Finding, lint
from tilepipe.planning.receptive_field import contradictions
from tilepipe.storage import write_durably
from tilepipe.text import JSON
from tilepipe.tiling.statistics_grid import Statistics

_TRIAL = 64  # the least side of the tile that the model is tried on (pixels)


@dataclass(frozen=True)
class ModelCheck:
    """The measurements of a model, and the statements of its card that differ."""

    name: str
    """Name of the model."""
    card: ModelCard
    """Card of the model."""
    probe: Probe
    """Measured total stride, reach and global layers."""
    findings: tuple[Finding, ...]
    """Findings about up-sampling layers that can leave a checkerboard."""
    problems: tuple[str, ...]
    """Sentences about the card's contradictions to the measurement; with these, tiles would show."""
    notes: tuple[str, ...]
    """Sentences about other things worth knowing."""
    level: Reproducibility
    """How exactly the device keeps promises about tiles of this model."""
    weights: str
    """Hash (sha256) of the network that was measured."""
    not_banded: str
    """Operation because of which a tile cannot be computed in bands of rows; '' if it can."""

    @property
    def halo(self) -> int | None:
        """Largest reach rounded up to the measured stride (pixels); None if the reach is not bounded."""
        return None if self.probe.halo is None else max(self.probe.halo)

    def measured(self) -> ModelCard:
        """Return the card with the measured stride and halo."""
        fields = {**self.card.model_dump(mode="json"), "stride": self.probe.stride or self.card.stride}
        return ModelCard(**{**fields, "halo": self.halo})

    def to_json(self) -> JSON:
        """Return all fields as JSON types."""
        return {
            "model": self.name,
            "stride": self.probe.stride,
            "halo": self.halo,
            "card": {"stride": self.card.stride, "halo": self.card.halo},
            "probe": asdict(self.probe),
            "checkerboard": [asdict(finding) for finding in self.findings],
            "level": asdict(self.level),
            "bands": {"possible": not self.not_banded, "in_the_way": self.not_banded},
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Return the lines to print."""
        found, sides = self.probe, self.probe.reach
        unbounded = "not bounded" if found.global_layers or found.stride is not None else "unknown"
        reach = unbounded if sides is None else "{} up, {} down, {} left, {} right px".format(*sides)
        layers = [f"{kind} ({layer or 'outside a named layer'})" for layer, kind in found.global_layers]
        lines = [
            f"stride        {found.stride or 'none up to 384'} px",
            f"reach         {reach}",
            f"halo          {'none is enough' if self.halo is None else f'{self.halo} px'}",
            f"global        {', '.join(layers) or ('none' if found.local else 'no layer could be named')}",
            f"checkerboard  {len(self.findings) or 'nothing'} found",
        ]
        lines += [finding.sentence for finding in self.findings]
        lines.append(f"arithmetic    {self.level.sentence}")
        lines.append(f"in bands      {f'no: {self.not_banded}' if self.not_banded else 'yes: rows can be streamed'}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *(f"wrong: {problem}" for problem in self.problems)])


def check_model(
    name: str | Path | Model, *, trust_model: str | None = None, device: str = "cpu", precision: str = "auto"
) -> ModelCheck:
    """Measure a model, and its arithmetic on a device in a precision, and compare its card with the measurement.

    Raises `ModelError` if the model cannot be measured at all, `DeviceError` if the device is missing.
    """
    device = resolve_device(device)
    model = name if isinstance(name, Model) else load_model(name, trust_model=trust_model)
    compute = Compute(device, resolve_precision(precision, device, model), usual_batch(device), 0)
    packed = isinstance(model.module, Packaged)
    card = model.card
    found = probe(model)
    stride = found.stride or card.stride
    side = -(-max(_TRIAL, card.tile or 0) // stride) * stride
    # The labels are not needed: a model that cannot run on a tile at all fails here with its own error.
    Predictor(model, (side, side), Compute()).labels(np.zeros((1, card.bands, side, side), np.float32))
    notes = (*found.notes, *(("the layers of the file cannot be seen: no checkerboard lint",) if packed else ()))
    findings = () if packed else tuple(lint(model.module))
    halo = max(found.halo) if found.halo else None
    level = known_reproducibility(model, Setting((side, side), stride, halo, compute, card.dtype or "float32"))
    assert level is not None
    weights = network_sha256(model.module)
    problems = tuple(
        f"{problem}; correct the card, or let `tilepipe model check {name} --write` do it"
        for problem in contradictions(card, found)
    )
    in_the_way = "the layers of the file cannot be seen" if packed else _in_the_way(model, found, stride)
    return ModelCheck(model.name, card, found, findings, problems, notes, level, weights, in_the_way)


def _in_the_way(model: Model, found: Probe, stride: int) -> str:
    """Return the operation because of which the network cannot be computed in bands of rows; '' if it can.

    A run can hold the statistics of norms and poolings over the whole image fixed, so these are no obstacle as such.
    """
    module, bands, side, statistics = model.module, model.card.bands, math.lcm(stride, _TRIAL), None
    try:
        if found.global_layers:
            statistics = Statistics("field", side, operations(module, bands, found))
        banded(module, bands, side, statistics)
    except (NotBandedError, ModelError) as problem:
        return str(problem)
    return ""


def card_file(name: str) -> Path:
    """Return the path of a model's card. Raises `UsageError` if the model is bundled or comes from Python."""
    path = Path(name)
    if not path.exists():
        raise UsageError(f"{name} has no card of its own to write to; give a model directory or file by its path")
    return path / CARD if path.is_dir() else load.card_path(path)


def write_measured(check: ModelCheck) -> Path:
    """Write the measured stride and halo into the model's card and return its path; the rest of the card stays.

    A model directory gets its certificate.json too. Raises `UsageError` if the model has no card of its own,
    `StorageError` if a file cannot be written.
    """
    card = card_file(check.name)
    write_durably(card, check.measured().to_json())
    # A model that is one file has no folder in which a certificate could lie.
    if Path(check.name).is_dir():
        write_durably(card.with_name(CERTIFICATE), certificate_text(check.probe, check.weights, check.card.bands))
    return card
