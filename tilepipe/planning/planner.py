"""From a source, a model card and settings to a `Plan`: every choice that the user left open is made here."""

from __future__ import annotations

from tilepipe.errors import UsageError
from tilepipe.models.card import ModelCard
from tilepipe.planning.memory import Needs, layers_of, promises
from tilepipe.planning.plan import Plan
from tilepipe.planning.receptive_field import reach_of_card
from tilepipe.planning.resolution import check_fits, output_shape, predicted_shape, resolution_of
from tilepipe.planning.settings import RegionRequest, Settings, check_numbers, compute_of
from tilepipe.planning.tile_size import fit_memory
from tilepipe.sources.bands import Picked
from tilepipe.sources.base import Source


def make_plan(
    source: Source, card: ModelCard, asked: RegionRequest, settings: Settings, *, device: str, needs: Needs
) -> Plan:
    """Return the plan for what is `asked` of `source`.

    `device` is resolved ('cpu', 'cuda:0'); `needs` is what the model takes in memory. Raises `InputError` when the
    image does not fit the model, `UsageError` when settings contradict each other.
    """
    check_numbers(settings)
    check_fits(source, card)
    shape, pixel_size = (source.shape[1], source.shape[2]), settings.get("pixel_size")
    resolution, predicted = resolution_of(source, card, pixel_size), predicted_shape(source, card, pixel_size)
    if card.output == "labels" and settings.get("layers"):
        raise UsageError(
            f"model {card.name} gives labels and no probabilities, of which layers are made; leave --layers out"
        )
    compute = compute_of(settings, device)
    tiling, memory = fit_memory(card, settings, promises(source, card, settings, compute, needs, asked.region))
    picked: Picked = getattr(source, "picked", Picked())
    return Plan(
        source=source.name, picked=picked.bands, valid_band=picked.valid,
        model=card.name, bands=source.shape[0], dtype=str(source.dtype), shape=shape,
        predicted=predicted, output=output_shape(shape, predicted, resolution, settings.get("resolution", "full")),
        region=asked.region, mask=asked.mask, tiling=tiling, compute=compute, classes=len(card.classes),
        label_dtype=card.label_dtype, nodata=card.nodata, memory=memory,
        reach=reach_of_card(card), layers=layers_of(settings, tiling),
    )  # fmt: skip
