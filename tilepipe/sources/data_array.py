"""Reads arrays that name their axes: xarray.DataArray with coordinates, CRS, nodata and band names, and zarr.Array."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from tilepipe.arrays import Array
from tilepipe.errors import InputError
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Georeference
from tilepipe.sources.foreign import Taken, axes_checked, plain
from tilepipe.sources.geo_crs import known_crs
from tilepipe.text import JSON

if TYPE_CHECKING:
    import xarray

NAMES = {
    "band": ("band", "bands", "channel", "channels", "c"),
    "y": ("y", "lat", "latitude"),
    "x": ("x", "lon", "longitude"),
}
"""Names of the axes of an image; upper and lower case are the same."""
NODATA = ("_FillValue", "missing_value", "nodata", "nodatavals")
REGULAR = 0.1
"""Largest distance of a coordinate from a regular grid, as a fraction of a pixel: 32 bit floats round."""
Transform = tuple[float, float, float, float, float, float]


def taken(what: Any, name: str) -> Taken:
    """Return a `zarr.Array` or `xarray.DataArray` as (bands, height, width), with its position, bands and validity.

    The axes are put in order by their names. Raises `InputError` for axes other than band, y and x.
    """
    if not hasattr(what, "dims"):
        axes = getattr(what.metadata, "dimension_names", None)
        if not axes or None in axes:
            return Taken(axes_checked(plain(what, name), name))
        order = _order(list(axes), what.shape, name, "zarr")
        return Taken(axes_checked(plain(what, name).transpose([axes.index(a) for a in order]), name, named=True))
    order = axes_of(what, name)
    if what.chunks is None and not getattr(what.variable, "_in_memory", True):
        what = what.chunk("auto")  # the array lies in a file, so it is read by box
    what = what.transpose(*order)
    array = axes_checked(plain(what.data, name), name, named=True)
    place, notes = _position(what, name)
    bands = int(array.shape[0])
    return Taken(array, _nodata(what, bands), place, _bands(what, bands), notes, named=True)


def axes_of(what: xarray.DataArray, name: str) -> list[Hashable]:
    """Return the names of the axes of a DataArray as (band, y, x) or (y, x). Raises `InputError` for other axes."""
    return _order(list(what.dims), what.shape, name, "xarray")


def _order(dims: Sequence[Hashable], shape: Sequence[int], name: str, library: str) -> list[Hashable]:
    """Return the names of the axes as (band, y, x) or (y, x). Raises `InputError` for other axes."""
    found: dict[str, Hashable] = {}
    rest = []
    for dim in dims:
        axis = next((axis for axis, words in NAMES.items() if str(dim).casefold() in words), None)
        if axis is None or axis in found:
            rest.append(dim)
        else:
            found[axis] = dim
    named = f"{name} has the axes {', '.join(f'{d} ({n})' for d, n in zip(dims, shape, strict=True))}"
    if "y" not in found or "x" not in found:
        says = "array.rename({...: 'band', ...: 'y', ...: 'x'})" if library == "xarray" else "array[:] as numpy"
        raise InputError(f"{named}; an image has the axes band, y and x (or channel or c, lat, lon): {says}")
    if rest:
        picked = f".isel({', '.join(f'{dim}=0' for dim in rest)})"
        rename = f", or array.rename({{{rest[0]!r}: 'band'}}) if it is the bands"
        if library != "xarray":
            picked, rename = f"[{', '.join('0' if dim in rest else ':' for dim in dims)}]", ""
        more = rename if "band" not in found and len(rest) == 1 else ""
        raise InputError(f"{named}; pick one image along {', '.join(map(str, rest))}: array{picked}{more}")
    return [found[axis] for axis in ("band", "y", "x") if axis in found]


def _nodata(what: xarray.DataArray, bands: int) -> tuple[float, ...]:
    """Return the nodata value of each band, as the attributes state it; () if they state none that can be met."""
    stated = next((what.attrs[key] for key in NODATA if what.attrs.get(key) is not None), None)
    values = [] if stated is None else [np.asarray(value).item() for value in np.ravel(np.asarray(stated))]
    if not values or len(values) not in (1, bands):
        return ()
    if not all(isinstance(value, int | float) for value in values) or np.isnan(values).all():
        return ()  # NaN is no image data anyway
    return tuple(values * (bands // len(values)))


def _bands(what: xarray.DataArray, count: int) -> tuple[Band, ...] | None:
    """Return the names of the bands: the texts along the band axis, or the attribute `long_name` of rasters.

    None if the array does not name its bands.
    """
    axis = what.dims[0] if what.ndim == 3 else None
    names = what.coords[axis].values if axis in what.coords else ()
    if not all(isinstance(value, str) for value in names) or len(names) != count:
        names = what.attrs.get("long_name")
    if not isinstance(names, list | tuple | np.ndarray) or len(names) != count:
        return None
    return tuple(Band(str(value)) for value in names)


def _position(what: xarray.DataArray, name: str) -> tuple[Georeference | None, tuple[str, ...]]:
    """Return the position of a DataArray, and sentences about what could not be used.

    Coordinates decide, since they follow a selection. A transform in attributes counts if there are no coordinates.
    """
    keys = [what.attrs.get("grid_mapping"), what.encoding.get("grid_mapping"), "spatial_ref", "crs"]
    said: JSON = next((what.coords[key].attrs for key in keys if key and key in what.coords), {})
    said = {**what.attrs, **said}
    crs = next((said[key] for key in ("crs_wkt", "spatial_ref", "crs") if said.get(key)), None)
    wkt = None
    notes: tuple[str, ...] = ()
    if crs is not None:
        try:
            # The text comes from a file perhaps, and GDAL opens files and addresses that it names.
            known = known_crs(crs) if isinstance(crs, str) else crs
            wkt = CRS.from_user_input(known).to_wkt() if known else None
        except (CRSError, ValueError, TypeError):
            pass
        if wkt is None:
            notes = (f"{name} states the CRS {str(crs)[:60]!r}, which is not known; its labels have none",)
    stated = _stated(said)
    axes = [what.coords[dim].values for dim in what.dims[-2:] if dim in what.coords]
    if not axes:
        transform = stated
        if stated is None and {"GeoTransform", "transform"} & set(said):
            notes = (*notes, f"the transform that {name} states places no pixels; its labels have no position")
    elif len(axes) == 2:
        transform = _grid(axes[0], axes[1], stated)
    else:
        transform = None
    if transform is None and axes:
        notes = (*notes, f"the coordinates of {name} are not on a regular grid; its labels have no position")
    return (Georeference(wkt, transform) if wkt or transform else None), notes


def _stated(said: JSON) -> Transform | None:
    """Return the transform that attributes state: GDAL's GeoTransform, or `transform` as (a, b, c, d, e, f)."""
    try:
        if "GeoTransform" in said:
            c, a, b, f, d, e = (float(value) for value in str(said["GeoTransform"]).split())
        elif "transform" in said:
            a, b, c, d, e, f = (float(value) for value in tuple(said["transform"])[:6])
        else:
            return None
    except (TypeError, ValueError):
        return None
    return (a, b, c, d, e, f) if np.isfinite((a, b, c, d, e, f)).all() and a * e - b * d else None


def _grid(ys: Array, xs: Array, stated: Transform | None) -> Transform | None:
    """Return the transform of coordinates of pixels: of their centres or, if `stated` says so, of their corners."""
    # Coordinates of single axes cannot describe a rotated grid.
    plain = stated if stated and not (stated[1] or stated[3]) else None
    x = _axis(xs, *(plain[0], plain[2])) if plain else _axis(xs)
    y = _axis(ys, *(plain[4], plain[5])) if plain else _axis(ys)
    return None if x is None or y is None else (x[0], 0.0, x[1], 0.0, y[0], y[1])


def _axis(values: Array, step: float = 0.0, origin: float = 0.0) -> tuple[float, float] | None:
    """Return (step, corner of the first pixel) of an axis; `step` and `origin` come from a stated transform."""
    if values.ndim != 1 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        return None
    at = values.astype(np.float64)
    found = float(at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else step
    if not found or np.abs(at[0] + found * np.arange(len(at)) - at).max() > REGULAR * abs(found):
        return None
    same = bool(step) and abs(found - step) * len(at) <= REGULAR * abs(step)
    turns = (at[0] - origin) / step if same else 0.5
    corner = abs(turns - round(turns)) < REGULAR  # coordinates of corners lie whole pixels from the stated corner
    return found, float(at[0]) - (0.0 if corner else found / 2)
