"""Runtimes beside torch as parameters of tests; one that is not installed is skipped with the reason."""

from __future__ import annotations

import pytest

from tilepipe.inference.runtimes.base import missing

RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(bool(missing(name)), reason=missing(name) or "installed"))
    for name in ("onnxruntime", "openvino")
]
"""Names of runtimes."""
