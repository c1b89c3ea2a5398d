"""What a run says while it works; the command line turns events into bars, lines or JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilepipe.text import JSON


@dataclass(frozen=True)
class Event:
    """One step of progress."""

    stage: str
    """'plan', 'predict', 'export', 'publish', 'train' or 'done'."""
    done: int = 0
    """Units finished, counting those of an earlier run that is resumed."""
    total: int = 0
    """Units in all; 0 when unknown."""
    message: str = ""
    """One sentence for people; may be empty."""
    data: JSON = field(default_factory=dict)
    """Figures for machines; JSON types only."""


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listen to nothing."""
