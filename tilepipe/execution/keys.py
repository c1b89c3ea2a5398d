"""Keys: what a run was asked for, what it computes, and whether its image is still the one it was.

    request key   image, model, settings as the user gave them, format: names the work directory, decides resume and
                  "unchanged"; needs no plan
    run key       the same with the choices made automatically, which plan.json keeps: carried by run.json

Left out of the request key: what changes neither a label nor a choice of the plan (`LEFT_OUT`). A limit on memory
decides the tiles, so it is in; worker processes do not, so a run may go on with more or fewer of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.box import Box
from tilepipe.errors import ChangedError, InputError, StorageError, TilepipeError
from tilepipe.models.identity import identify
from tilepipe.planning.plan import FORMAT, Plan
from tilepipe.planning.region import TISSUE
from tilepipe.planning.settings import Request
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.base import Source
from tilepipe.sources.content import identity_of
from tilepipe.sources.geo_vectors import vector_files
from tilepipe.sources.open import image_files
from tilepipe.storage import read_json, write_json
from tilepipe.text import JSON

if TYPE_CHECKING:
    from tilepipe.models.model import Model

PLAN = "plan.json"
LEFT_OUT = {
    "allow",
    "overwrite",
    "record",
    "since",
    "on_tile_error",
    "tile_timeout",
    "scheduler",
    "workers",
    "trust_model",
    "of",
    *VectorOptions.names(),
}
"""Settings that change neither a label nor a choice of the plan."""
DEFAULTS: JSON = {"mask": "auto", "grid": "image", "resolution": "full", "workers": 0, "tta": "none"} | dict.fromkeys(
    ("tile", "overlap", "window_shape", "statistics", "device", "precision", "runtime"), "auto"
)
"""Default of each setting: a setting that is given with its default changes nothing."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, and times of the last change of content and of status (ns)."""


@dataclass(frozen=True)
class Keys:
    """The identities of an image and a model when a command began."""

    image: JSON
    """Identity of the source."""
    stamps: dict[str, Stamp | None]
    """State of each of the image's files, read before the files were hashed."""
    model: str
    """Identity of the model."""
    trouble: str = ""
    """Reason why the model has no identity that another process would find; '' if it has one."""

    @classmethod
    def of(cls, full: Source, model: Model, request: Request) -> Keys:
        """Read the state of the image's files, hash them, and identify the model for the device and precision.

        Raises `InputError` if a file cannot be read; also raises `DeviceError` and `UsageError`.
        """
        # Stamps come before hashing: if the file changes while it is hashed, its stamp differs later.
        compute, stamps = request.compute(model), _stamps(full)
        found = identify(model, compute.device, compute.precision)
        return cls(identity_of(full), stamps, found.key, found.trouble)

    def request(self, request: Request) -> str:
        """Return the request key."""
        asked = {"format": FORMAT, "image": self.image, "model": self.model, "settings": _as_given(request)}
        return _hash(asked)

    def asked(self, request: Request) -> str:
        """Return a hash of all that decides labels and layers but the image and the choices of the plan."""
        return _hash({"format": FORMAT, "model": self.model, "settings": _as_given(request)})

    def run(self, plan: Plan) -> str:
        """Return the run key."""
        return plan.key(self.image, self.model)

    def still(self, full: Source) -> bool:
        """Return whether the image is unchanged: its files have the same stamps, or else the same content."""
        if _stamps(full) == self.stamps:
            return True
        try:
            return identity_of(full) == self.image
        except (ChangedError, InputError):
            return False


def asked_of(model: Model, request: Request) -> str:
    """Return a hash of all that decides labels and products but the image. Raises `DeviceError` and `UsageError`."""
    compute = request.compute(model)
    found = identify(model, compute.device, compute.precision)
    products = {"of": request.products, "options": request.polygons.to_dict()}
    return _hash({"format": FORMAT, "model": found.key, "settings": _as_given(request), **products})


def _hash(fields: JSON) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _stamps(full: Source) -> dict[str, Stamp | None]:
    found: dict[str, Stamp | None] = {}
    named = image_files(full)
    for file in chain(named, *(folder.rglob("*") for folder in named if folder.is_dir())):
        try:
            state = os.stat(file)
        except OSError:
            found[str(file)] = None
        else:
            # The time of the last status change is kept too: rsync and cp -p set the time of the content back, but
            # nothing sets this time back.
            found[str(file)] = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return found


def _as_given(request: Request) -> JSON:
    """Return the settings that a user gave in one form, as JSON: defaults are left out, files are content."""
    # The request has the layers in one form: 'margin,entropy' and a list of both names ask for the same.
    asked = {**request.given, "layers": request.layers}
    # Products change no label, but a run without probabilities has none that a later command could write.
    if request.probabilities:
        asked["probabilities"] = True
    given = {name: _plain(value) for name, value in asked.items() if name not in LEFT_OUT}
    # A run that was interrupted must not go on with tissue that is found by another rule.
    if given.get("mask") == "tissue":
        given["mask"] = TISSUE
    # The default of `layers` is an empty list, which no other setting can be.
    return {name: value for name, value in given.items() if value != DEFAULTS.get(name, [])}


def _plain(value: object) -> object:
    if isinstance(value, Box):
        return value.to_list()
    if isinstance(value, str | Path) and Path(value).is_file():
        # Files count by content: a polygon file that was edited under the same name asks for other labels.
        # The classes of a Shapefile's polygons stand in a file beside it.
        return hashlib.sha256(b"".join(part.read_bytes() for part in vector_files(Path(value)))).hexdigest()
    if isinstance(value, str | Path):
        return str(value)
    # 512.0 from a jobs file and 512 from the command line are the same request.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class KeptPlan:
    """The content of plan.json."""

    plan: Plan
    """The plan, made once."""
    request: str
    """Request key that the plan was made for."""


def write_plan(directory: Path, plan: Plan, request: str) -> None:
    """Write plan.json into a work directory, durably. Raises `StorageError`."""
    write_json(directory / PLAN, {**plan.to_dict(), "format": FORMAT, "request": request})


def read_plan(directory: Path) -> KeptPlan:
    """Return what plan.json of a work directory holds. Raises `StorageError` if the file is missing or damaged."""
    fields = read_json(directory / PLAN)
    try:
        return KeptPlan(Plan.from_json(json.dumps(fields)), str(fields["request"]))
    except (TilepipeError, KeyError) as error:
        raise StorageError(f"{directory / PLAN} was written by another version ({error})") from None


def kept_plan(directory: Path, request: str) -> Plan | None:
    """Return the plan that an earlier run of this request has kept; None if there is no usable plan."""
    try:
        kept = read_plan(directory)
    except StorageError:
        return None
    return kept.plan if kept.request == request else None
