"""This module gives labels the form of the image they come from: an xarray.DataArray on the same coordinates."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from tilepipe.inference.predictor import LOGITS
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.sources.data_array import axes_of
from tilepipe.sources.foreign import is_of
from tilepipe.tiling.uncertainty import PROBABILITIES

if TYPE_CHECKING:
    import xarray

    from tilepipe.products.labels import Labels, Layer


def is_data_array(what: object) -> TypeGuard[xarray.DataArray]:
    """Return whether `what` is an xarray.DataArray."""
    return is_of(what, "xarray", "DataArray")


def like_given(
    given: xarray.DataArray, array: Any, shown: LabelMap, returns: str, classes: Sequence[str]
) -> xarray.DataArray:
    """Return an array of numpy or dask as a DataArray: (y, x), or (band, y, x) if `returns` has a plane per class.

    `shown` says where the array lies in the image `given` and what its values mean; the axes are named as in
    `given`. At full resolution the coordinates are those of `given` itself, so that xarray aligns both exactly.
    """
    import xarray

    from tilepipe.products.labels import Labels, Layer

    first = (Labels if returns == LABELS else Layer)(shown)
    *_, y, x = axes_of(given, "array")
    names: tuple[Hashable, ...] = (y, x)
    coordinates, says = _coordinates(given, first, y, x), dict(first.says())
    if returns in (PROBABILITIES, LOGITS):
        names = ("band", y, x)
        coordinates["band"] = ("band", list(classes))
        says["long_name"] = {LOGITS: "score of each class", PROBABILITIES: "probability of each class"}[returns]
    if returns == LOGITS:
        says = {"long_name": says["long_name"], "units": "1"}
    else:
        says["_FillValue"] = first.dtype.type(first.legend.nodata)
    return xarray.DataArray(array, coordinates, names, returns, {**says, "grid_mapping": "spatial_ref"})


def _coordinates(given: xarray.DataArray, labels: Labels | Layer, y: Hashable, x: Hashable) -> dict[Hashable, Any]:
    """Return the coordinates of labels of an image: its own if the labels have its pixels, else those of centres."""
    (top, left), (height, width) = labels.map.origin, labels.shape
    bands = [dim for dim in given.dims if dim not in (y, x)]
    plane = given.isel(dict.fromkeys(bands, 0), drop=True)
    if labels.map.scale == (1.0, 1.0):
        plane = plane.isel({y: slice(top, top + height), x: slice(left, left + width)})
        found = dict(plane.coords)
    else:
        found = {name: value for name, value in plane.coords.items() if not value.dims}
        axes = {"y": y, "x": x}
        found |= {axes[axis]: (axes[axis], values) for axis, values in labels.centres().items()}
    # What the image says of its place holds for all of the image; the labels may be a part of it.
    if (placed := labels.spatial_ref()) or "spatial_ref" not in found:
        found["spatial_ref"] = ((), 0, placed)
    return found
