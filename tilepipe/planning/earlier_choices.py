"""This module takes the choices of an earlier plan: a run that takes over labels must cut its image as that run did."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tilepipe.inference.runtimes.base import missing, name_of, stated
from tilepipe.planning.memory import Load
from tilepipe.planning.plan import Plan
from tilepipe.planning.settings import Request
from tilepipe.tiling.tiling import Tiling

if TYPE_CHECKING:
    from tilepipe.models.model import Model


def choices_of(earlier: Plan, model: Model, request: Request, load: Load) -> tuple[Tiling, Load] | None:
    """Return the tiling of an earlier plan, and the load with its runtime and what its bands need.

    Returns None if these choices cannot be taken for another image: if the device or runtime is missing or another one,
    or if the context of the tiles was measured on the pixels of that image.
    """
    tiling, how, needs = earlier.tiling, earlier.compute, load.needs
    if (how.device, how.precision, how.batch) != (load.compute.device, load.compute.precision, load.compute.batch):
        return None
    name = name_of(how.runtime)
    # With less context than the reach, the patches of an image have decided how much is enough (see `reduced_halo`).
    measured = tiling.halo is not None and tiling.overlap < 2 * tiling.halo and request.overlap is None
    if measured or missing(name) or stated(name) != how.runtime:
        return None
    if tiling.bands:
        from tilepipe.inference.profile.bands import known_bands

        width = known_bands(model, tiling.bands, tiling.stride, load.compute, earlier.statistics).width
        needs = needs._replace(band=width)
    return tiling, replace(load, needs=needs, compute=replace(how, workers=load.compute.workers))
