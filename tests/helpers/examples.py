"""How many examples slow property tests draw."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

FEW = 20
"""Examples of a property test in `make test`, if it says nothing else."""


def drawn(count: int, **more: Any) -> settings:
    """Draw `count` examples in `make test`, and as many times more in `make test-long` as other tests do there."""
    return settings(max_examples=count * settings().max_examples // FEW, deadline=None, **more)
