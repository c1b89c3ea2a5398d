"""An ONNX file's own metadata make its card: the keys of tilepipe, or those of the QGIS plugin Deepness."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.onnx_graph import Graph
from tilepipe.text import JSON, json_of

OWN = "tilepipe_card"
"""Key of a card of ours in the metadata."""
_CARD_HELP = "write one as {} (bands, classes, mean, std, stride)"


def has_card(graph: Graph) -> bool:
    """Return whether a file's metadata name its classes."""
    return any(key in graph.metadata for key in (OWN, "class_names", "names"))


def card_of(graph: Graph, path: Path, wanted: Path) -> ModelCard:
    """Return the card that a file's metadata make: a card of ours (`onnx_export`), or the keys of Deepness.

    Deepness divides pixels from 0 to 255 by 255, names classes by number, and gives the resolution in centimetres
    (https://qgis-plugin-deepness.readthedocs.io, creators). `wanted` is the path of a card that could lie beside the
    file. Raises `ModelError` if there is no class name, or if a word has no meaning here.
    """
    if OWN in graph.metadata:
        return ModelCard.from_json(graph.metadata[OWN], f"{path}: {OWN}")
    said = {key: _value(text) for key, text in graph.metadata.items()}
    kind = str(said.get("model_type", "segmentor")).lower()
    if kind != "segmentor":
        raise ModelError(f"{path} says that it is a {kind}; tilepipe reads models that give a class per pixel")
    names = said.get("class_names", said.get("names"))
    if names is None or graph.bands is None:
        raise ModelError(f"{path} has no card: {_CARD_HELP.format(wanted)}")
    if isinstance(names, list) and len(names) > 1 and all(isinstance(item, Mapping) for item in names):
        raise ModelError(f"{path} names the classes of {len(names)} outputs; {_CARD_HELP.format(wanted)}, with key")
    tile = graph.height or said.get("tiles_size", said.get("tile_size"))
    try:
        names = names[0] if isinstance(names, list) and len(names) == 1 else names
        by_number = {int(key): str(name) for key, name in names.items()}
        classes = tuple(by_number[k] for k in range(len(by_number)))
        mean, std = (_scaled(said.get(f"standardization_{word}"), graph.bands) for word in ("mean", "std"))
        resolution = float(said["resolution"]) / 100 if said.get("resolution") else None
        tile = int(tile) if tile else None
        small = int(said.get("seg_small_segment") or 0)
        least = None if said.get("seg_thresh") is None else float(said["seg_thresh"])
    except (TypeError, ValueError, AttributeError, KeyError):
        raise ModelError(f"{path}: its own words cannot be read; {_CARD_HELP.format(wanted)}") from None
    if len(classes) == 1 and graph.channels == 1:
        classes = ("background", *classes)  # Deepness names the class of a sigmoid alone
    blur = f"Deepness smooths its labels with a median of {small // 2 * 2 + 1} px; tilepipe does not." * (small > 1)
    return ModelCard(
        name=path.stem, bands=graph.bands, classes=classes, mean=mean or (), std=std or (255.0,) * graph.bands,
        # The metadata name no stride. 32 is that of five halvings; a fixed tile must be a multiple of it.
        dtype="uint8", resolution=resolution, tile=tile, stride=math.gcd(32, tile or 32), description=blur,
        **_threshold(least, len(classes), graph, path),
    )  # fmt: skip


def _threshold(least: float | None, classes: int, graph: Graph, path: Path) -> JSON:
    """Return the card's field `threshold` for Deepness' seg_thresh; empty if it changes no label.

    Deepness sets values below `least` to 0. One channel is the second class if its value is not 0 then; of several
    channels the largest is taken, and the first if all are 0.
    """
    if least is None or graph.channels is None:
        return {}
    wanted = f"write a card as {path.with_suffix('.json')}"
    single = graph.channels == 1
    if not graph.shares or not (single or graph.softmax):
        end = "in a sigmoid for each of several classes" if graph.shares else "neither in a sigmoid nor in a softmax"
        raise ModelError(
            f"{path}: seg_thresh {least:g} is compared with an output that ends {end}, so it is no threshold here; "
            f"{wanted}, with output and threshold"
        )
    if not single and 0 <= least <= 1 / graph.channels:  # the largest of K probabilities is never below 1 / K
        return {}
    if not 0 < least < 1:
        raise ModelError(f"{path}: seg_thresh {least:g} is no probability; {wanted}")
    return {"threshold": least if single or classes != 2 else max(least, 0.5)}


def _scaled(values: Any, bands: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    listed = values if isinstance(values, list | tuple) else [values] * bands
    return tuple(255 * float(value) for value in listed)


def _value(text: str) -> Any:
    # Some exporters write Python's notation, like {0: 'road'}, which is no JSON.
    for parse in (json_of, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return text
