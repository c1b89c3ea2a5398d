"""This module defines what a run reports while it works; the command line shows events as bars, lines or JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilepipe.text import JSON


@dataclass(frozen=True)
class Event:
    """One step of progress."""

    stage: str
    """Name of the stage: 'plan', 'changes', 'predict', 'export', 'publish', 'train' or 'done'."""
    done: int = 0
    """Number of finished units, including units of an earlier run that is resumed."""
    total: int = 0
    """Number of all units; 0 if it is unknown."""
    message: str = ""
    """Sentence for people; it may be empty."""
    data: JSON = field(default_factory=dict)
    """Figures for machines; JSON types only."""


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore the event."""
