"""Small runs in bands of rows: the sizes from which on bands pay are made small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tilepipe.execution.job import Job, make_job
from tilepipe.models.model import Model
from tilepipe.planning import band_tiling
from tilepipe.planning.settings import Request
from tilepipe.sources.base import Source


def small_bands(patch: pytest.MonkeyPatch, *, height: int = 16, kept: int = 96, rows: int = 1) -> None:
    """Let plans cut small images into columns that keep `kept` pixels, in bands of about `height` rows."""
    patch.setattr(band_tiling, "TALLEST", height)
    patch.setattr(band_tiling, "SAVED", -1)
    patch.setattr(band_tiling, "CLEARLY", 100.0)
    patch.setattr(band_tiling, "KEPT", (kept,))
    patch.setattr(band_tiling, "ROWS", rows)


def banded_job(source: Source, model: Model, directory: Path | None = None, **settings: Any) -> Job:
    """Return the job of the public functions on the CPU; it is in bands."""
    job = make_job(source, model, Request.of({"device": "cpu", **settings}))
    assert job.plan.tiling.bands is not None, job.plan
    return replace(job, directory=directory)
