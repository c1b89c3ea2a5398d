"""This module finds the part that two maps share if they lie on one lattice of pixels and cover different ground."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.evaluation.accuracy.class_map import RawMap
from tilepipe.sources.georeference import disagreement, pixels_at, placed, same_crs, where

T = TypeVar("T")
NEAR = 0.02
"""Largest distance between pixels that are taken for the same (pixels), since programs round transforms."""


def common_part(first: RawMap, second: RawMap) -> tuple[RawMap, RawMap, str]:
    """Return the parts of a prediction and a truth that cover the same pixels, and a sentence if that is not all.

    Raises `InputError` with both extents if the maps share no pixel, or do not lie on one lattice.
    """
    if tuple(first.shape) == tuple(second.shape) and not disagreement(
        first.georeference, second.georeference, *first.shape
    ):
        return first, second, ""
    offset = _offset(first, second)
    sizes = [
        f"{raw.shape[0]} x {raw.shape[1]} pixels, {where(raw.georeference, *raw.shape)}" for raw in (first, second)
    ]
    both = f"{first.name} is {sizes[0].rstrip(', ')}; {second.name} is {sizes[1].rstrip(', ')}"
    if offset is None:
        raise InputError(_apart(first, second, both))
    own, other = Box.of_shape(*first.shape), Box.of_shape(*second.shape)
    shared = own & other.shift(*offset)
    if shared is None:
        raise InputError(f"{first.name} and {second.name} share no pixel: {both}. Give labels of the same place")
    said = (
        f"the {shared.height} x {shared.width} pixels that both maps cover are compared: {shared.area / own.area:.1%} "
        f"of {first.name}, {shared.area / other.area:.1%} of {second.name}"
    )
    return part_of(first, shared), part_of(second, shared.shift(-offset[0], -offset[1])), said


def part_of(raw: RawMap, box: Box) -> RawMap:
    """Return a part of a map as a map of its own, without a position."""
    return replace(
        raw, shape=box.shape, read=partial(_shifted, raw.read, box), valid=partial(_shifted, raw.valid, box),
        georeference=None,
    )  # fmt: skip


def _shifted(read: Callable[[Box], T], part: Box, box: Box) -> T:
    return read(box.shift(part.y0, part.x0))


def _offset(first: RawMap, second: RawMap) -> tuple[int, int] | None:
    """Return the (row, column) of the first map at which the second one begins; None if pixels do not coincide."""
    one, two = first.georeference, second.georeference
    if one is None or two is None or one.transform is None or two.transform is None:
        return None
    if one.crs and two.crs and not same_crs(one.crs, two.crs):
        return None
    height, width = second.shape
    rows, columns = np.array([0.0, 0, height, height]), np.array([0.0, width, 0, width])
    x, y = pixels_at(one.transform, *placed(two.transform, columns, rows))
    dy, dx = y - rows, x - columns
    start = round(float(dy[0])), round(float(dx[0]))
    off = np.abs(np.concatenate([dy - start[0], dx - start[1]])).max()
    return start if off <= NEAR else None


def _apart(first: RawMap, second: RawMap, both: str) -> str:
    """Return why two maps cannot be compared pixel by pixel, and how to bring the truth onto the prediction's grid."""
    known = first.georeference
    said = disagreement(known, second.georeference, *first.shape)
    said = f"{first.name} and {second.name} lie at different places: {said}" if said else both
    if known is None or known.transform is None or known.transform[1] or known.transform[3]:
        return f"{said}; compare maps on one grid"
    if second.georeference is None or second.georeference.transform is None:
        return f"{said}; compare maps on one grid"
    a, _, c, _, e, f = known.transform
    height, width = first.shape
    corners = f"{c:.12g} {min(f, f + e * height):.12g} {c + a * width:.12g} {max(f, f + e * height):.12g}"
    crs = where(known, height, width).rpartition("(")[2].rstrip(")")
    to = f"-t_srs {crs} " if crs.startswith("EPSG") else ""
    return (
        f"{said}; compare maps on one grid: gdalwarp -r near {to}-te {corners} -ts {width} {height} {second.name} "
        "on_grid.tif"
    )
