"""Facts of a user's model directory are kept in the cache, so that the next process need not read the network.

An entry is bound to the bytes of card and weights, the names of the files beside them, tilepipe's own code that makes
networks, and the versions of the packages whose code is part of them. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tilepipe.cache import cache_directory, file_sha256, keep, recall
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import CARD, FORMAT, WEIGHTS, Facts
from tilepipe.models.model import with_stride

HUB = "hf:"
"""Beginning of the name of a model on the hub, which is no directory."""
LARGEST = 4 << 30
"""Largest file of weights that is hashed [bytes]; loading refuses larger ones."""
_PACKAGES = ("tilepipe", "torch", "torchvision", "timm", "segmentation-models-pytorch", "monai")
"""Packages whose code may be part of a network."""


@dataclass(frozen=True)
class KeptFacts:
    """What is known of the model of a directory."""

    facts: Facts
    """Facts of its network."""
    card: ModelCard
    """Its card, with the stride of the network if the file leaves it out."""


def directory_sha256(named: str) -> str | None:
    """Return the hash of all that decides the facts of a model directory; None if a path is no directory of ours."""
    folder = Path(named)
    with suppress(OSError):
        card, weights = folder / CARD, folder / WEIGHTS
        usual = not named.startswith(HUB) and card.is_file() and weights.is_file()
        if not usual or weights.stat().st_size > LARGEST or cache_directory() is None:
            return None
        # A file of another program beside the weights would be the model.
        names = sorted(path.name for path in folder.iterdir())
        told = [FORMAT, _versions(), _code(), names, file_sha256(card), file_sha256(weights)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return None


def kept_facts(named: str) -> KeptFacts | None:
    """Return what is kept of a model directory; None if nothing is, or if this process has imported torch."""
    # See `facts.read_facts` for the reason.
    if "torch" in sys.modules or (told := directory_sha256(named)) is None:
        return None
    with suppress(ValueError, TypeError, KeyError):
        values = json.loads(recall(_name(told), cache_directory()) or "")
        card = ModelCard.load(Path(named) / CARD)
        return KeptFacts(Facts(**values["facts"]), with_stride(card, values["stride"]))
    return None


def has_facts(told: str) -> bool:
    """Return whether facts are kept for a directory of this hash."""
    return recall(_name(told), cache_directory()) is not None


def keep_facts(told: str, facts: Facts, stride: int) -> None:
    """Keep the facts, and the total stride [pixels], of a model directory of this hash."""
    keep(_name(told), json.dumps({"facts": asdict(facts), "stride": stride}), cache_directory())


def _name(told: str) -> str:
    return f"facts-{told[:32]}.json"


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            # The processor that torch was built for changes no layer.
            found.append(f"{package} {version(package).partition('+')[0]}")
    return found


@cache
def _code() -> str:
    """Return the hash of the code of this room: between releases it changes without a new version."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
