"""Reads the metadata of a Zarr image: its axes, its levels and the size of its pixels (NGFF 0.4, 0.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zarr

from tilepipe.errors import InputError, UsageError
from tilepipe.sources.base import Resolution
from tilepipe.sources.checks import given_resolution
from tilepipe.text import JSON

if TYPE_CHECKING:
    from zarr.types import AnyArray

MICROMETRES = {"angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4}
METRES = {"meter": 1.0, "kilometer": 1e3}
PLAIN_AXES = {2: "yx", 3: "cyx", 4: "tcyx", 5: "tczyx"}
"""Axes of an array without axis names, by their number."""


@dataclass(frozen=True)
class Metadata:
    """The axes, the levels and the pixel size of an image in its arrays."""

    axes: str
    """Letters of the axes in their order: some of t, c, z, y and x."""
    levels: tuple[str, ...] = ("",)
    """Path of the array of each level below the image; '' for the image itself."""
    resolution: Resolution | None = None
    """Pixel size at full resolution; None if the metadata do not say it."""
    images: int = 1
    """Number of multiscale images that the group lists."""


def array_axes(name: str, array: AnyArray) -> str:
    """Return the letters of the axes of an array. Raises `InputError` if they are not known."""
    names = getattr(array.metadata, "dimension_names", None)
    # Names such as 'channel' and 'time' begin with the letter of their axis.
    given = "".join(str(axis)[:1].lower() for axis in names or ())
    if {"y", "x"} <= set(given) and len(set(given)) == array.ndim and set(given) <= set("tczyx"):
        return given
    if array.ndim not in PLAIN_AXES:
        raise InputError(f"{name} has {array.ndim} axes without names; 2 to 5 are read, as (y, x) to (t, c, z, y, x)")
    return PLAIN_AXES[array.ndim]


def pick_several(name: str, scene: int | None, several: int) -> tuple[int, tuple[str, ...]]:
    """Return which of the multiscale images of one group is read, from 0, and sentences about this choice.

    Raises `UsageError` if the group has no such image.
    """
    if scene is not None and not 0 <= scene < several:
        raise UsageError(f"{name} has scene=0 to scene={several - 1}; scene={scene} was asked for")
    said = f"{name} lists {several} multiscale images; the first, 0, is read; `scene` chooses another"
    return scene or 0, (said,) if several > 1 and scene is None else ()


def multiscale(name: str, group: zarr.Group, scene: int | None) -> Metadata:
    """Return the metadata of an OME-Zarr image.

    Raises `InputError` if the group holds no such image, and `UsageError` if there is no image number `scene`.
    """
    attributes: JSON = dict(group.attrs)
    # NGFF 0.5 keeps its metadata under 'ome', and 0.4 at the top.
    attributes = attributes.get("ome", attributes)
    try:
        several = len(attributes["multiscales"])
        scales = attributes["multiscales"][pick_several(name, scene, several)[0]]
        # NGFF 0.3 lists axes as plain letters.
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales["axes"]]
        letters = "".join(str(axis["name"]) for axis in axes)
        paths = [str(data["path"]) for data in scales["datasets"]]
        steps = [
            # The scale of the level comes first, and the scale of the whole multiscale after it.
            *scales["datasets"][0].get("coordinateTransformations", ()),
            *scales.get("coordinateTransformations", ()),
        ]
        found = _pixel_size(letters, axes, steps)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        inside = f"; name an array in it, such as {sorted(group)[0]}" if len(group) else ""
        raise InputError(f"{name} is a Zarr group without an OME-Zarr image in it{inside}") from error
    except ValueError as error:
        raise InputError(
            f"{name} has scales of pixels that are no numbers, or not one for each of its axes; correct its metadata"
        ) from error
    if len(letters) != len(axes) or not {"y", "x"} <= set(letters) or not set(letters) <= set("tczyx") or not paths:
        raise InputError(f"{name} has axes {[axis['name'] for axis in axes]}; y and x with c, z, t are read")
    if any(".." in Path(part).parts or Path(part).is_absolute() for part in paths):
        raise InputError(f"{name} lists levels outside itself: {paths}")
    return Metadata(letters, tuple(paths), found, several)


def _pixel_size(letters: str, axes: Sequence[JSON], steps: Sequence[JSON]) -> Resolution | None:
    """Return the size of a pixel from scale transformations and units; None if units are missing or mixed."""
    size = dict.fromkeys(letters, 1.0)
    scales = [step["scale"] for step in steps if step.get("type") == "scale"]
    for scale in scales:
        size = {letter: value * float(factor) for (letter, value), factor in zip(size.items(), scale, strict=True)}
    units = {letter: axes[letters.index(letter)].get("unit") for letter in "yx"}
    for unit, known in (("um", MICROMETRES), ("m", METRES)):
        if scales and units["y"] in known and units["x"] in known:
            return given_resolution(
                Resolution(size["y"] * known[units["y"]], size["x"] * known[units["x"]], unit), unit
            )
    return None


def planes(array: AnyArray, axes: str, axis: str) -> int:
    """Return the length of an axis; 1 if there is no such axis."""
    return int(array.shape[axes.index(axis)]) if axis in axes else 1
