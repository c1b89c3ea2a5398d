"""Facts: what a plan must know of a network, kept beside it as facts.json, so that planning need not read the network.

Facts are computed from the network (`identity.facts_of`). They are bound to the bytes of card and weights and to the
versions of tilepipe and torch that computed them. Facts that do not fit are ignored, and the network is read. This
module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tilepipe.errors import StorageError
from tilepipe.models.card import ModelCard
from tilepipe.paths import refuse_special
from tilepipe.text import json_of

CARD, WEIGHTS, CERTIFICATE, FACTS = "model.json", "weights.safetensors", "certificate.json", "facts.json"
"""Files of a model directory."""
BUNDLED = Path(__file__).parents[1] / "bundled"
FORMAT = 1
LARGEST = 1 << 20
"""Largest facts.json or certificate.json that is read, in bytes."""
_WORDS_FOR_PEOPLE = {"band_names", "description", "license", "name", "tile", "training"}
"""Fields of a card that change no label; they are not part of a model's identity."""
# These fields came later. A card without them has the identity that it had before.
_IF_STATED = ("channels", "layout", "pad", "scale", "threshold")
"""Fields that are part of a card's identity only if the card states them."""


@dataclass(frozen=True)
class Facts:
    """Values computed from a network; all its code is of packages that are known by name and version."""

    network: str
    """`contents.network_sha256` of the network."""
    sha256: str
    """`Model.sha256` of the model."""
    identity: str
    """`identity.model_identity` of the model, which is the same on every device."""
    weights: int
    """Size of the weights in fp32, in bytes."""
    peak: int
    """Memory of a forward pass in fp32, in bytes per input pixel (`footprint`)."""


def bundled_models() -> list[str]:
    """Return the names of the models that come with tilepipe."""
    return sorted(path.name.removesuffix(".model") for path in BUNDLED.glob("*.model"))


def bundled(name: str) -> Path | None:
    """Return the directory of the bundled model of this name; None if there is none."""
    return BUNDLED / f"{name}.model" if name in bundled_models() else None


def card_text(card: ModelCard) -> str:
    """Return the card as JSON, without the fields that are only words for people."""
    fields = card.model_dump(mode="json", exclude=_WORDS_FOR_PEOPLE)
    return json.dumps(
        {name: value for name, value in fields.items() if value or name not in _IF_STATED}, sort_keys=True
    )


def facts_text(facts: Facts, card: ModelCard, weights: Path) -> str:
    """Return the text of the facts.json that lies beside the file of the weights."""
    return json.dumps({**_bound_to(card, weights), **asdict(facts)}, indent=1, sort_keys=True) + "\n"


def read_facts(card: ModelCard, weights: Path) -> Facts | None:
    """Return the facts beside the file of the weights; None if there are none, or they are of another model.

    The result is also None if this process has imported torch.
    """
    # Reading the network costs little then, and somebody may have changed what torch or a network does.
    if "torch" in sys.modules:
        return None
    with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
        path = weights.with_name(FACTS)
        values = json_of(path.read_text(encoding="utf-8")) if path.stat().st_size <= LARGEST else {}
        bound = {name: values.pop(name) for name in ("format", "versions", "card", "file")}
        return Facts(**values) if bound == _bound_to(card, weights) else None
    return None


def certificate_in(directory: Path) -> str | None:
    """Return the text of certificate.json, '' if it cannot be read, None if there is none."""
    path = directory / CERTIFICATE
    try:
        refuse_special(path, StorageError)
        return path.read_text(encoding="utf-8") if path.stat().st_size <= LARGEST else ""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, StorageError):
        return ""


def _bound_to(card: ModelCard, weights: Path) -> dict[str, object]:
    """Return all that facts depend on; the processor that torch was built for is left out, as it changes no layer."""
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    versions = {"tilepipe": version("tilepipe"), "torch": version("torch").partition("+")[0]}
    return {
        "format": FORMAT,
        "versions": versions,
        "card": hashlib.sha256(card_text(card).encode()).hexdigest(),
        "file": found,
    }
