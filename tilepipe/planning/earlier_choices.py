"""This module takes the choices of an earlier plan: a run that takes over labels must cut its image as that run did."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.base import missing, name_of, stated
from tilepipe.planning.memory import Load
from tilepipe.planning.plan import Plan
from tilepipe.planning.settings import Request
from tilepipe.tiling.tiling import Tiling

if TYPE_CHECKING:
    from tilepipe.models.model import Model


def hold_today(earlier: Plan, compute: Compute, request: Request) -> bool:
    """Return whether the choices of an earlier plan can be taken for another image.

    They cannot if its device or runtime is missing, or if the context of its tiles was measured on its own pixels.
    `compute` is the one asked for now.
    """
    cut, how = earlier.tiling, earlier.compute
    if (how.device, how.precision, how.batch) != (compute.device, compute.precision, compute.batch):
        return False
    # With less context than the reach, the patches of an image have decided how much is enough (see `reduced_halo`).
    measured = cut.halo is not None and cut.overlap < 2 * cut.halo and request.overlap is None
    name = name_of(how.runtime)
    return not measured and not missing(name) and stated(name) == how.runtime


def choices_of(earlier: Plan, model: Model, load: Load) -> tuple[Tiling, Load]:
    """Return the tiling of an earlier plan, and the load with its runtime and what its bands need."""
    tiling, needs = earlier.tiling, load.needs
    if tiling.bands:
        from tilepipe.inference.profile.bands import known_bands

        width = known_bands(model, tiling.bands, tiling.stride, load.compute, earlier.statistics).width
        needs = needs._replace(band=width)
    compute = replace(earlier.compute, workers=load.compute.workers)
    return tiling, replace(load, needs=needs, compute=compute)
