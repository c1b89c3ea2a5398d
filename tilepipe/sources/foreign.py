"""Turns arrays of numpy, dask, torch, zarr and xarray into numpy or dask arrays (bands, height, width).

No library is imported for this: a caller who has an array of a library has imported that library already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

import numpy as np

from tilepipe.arrays import Array, DType
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Georeference
from tilepipe.sources.checks import DTYPES, check_dtype, check_size

if TYPE_CHECKING:
    import dask.array as da

Plain: TypeAlias = "Array | da.Array"
"""Array that pixels are read from: a numpy or a dask array."""


class Arrayed(Protocol):
    """An array of torch, zarr or xarray, as a type for annotations."""

    @property
    def shape(self) -> Sequence[int]:
        """Length of the array along each axis."""

    def __array__(self) -> Any: ...


AXES = ("(bands, height, width)", "(height, width, bands)")
MOST_LAST = 16
"""Largest length of a last axis that is taken for bands; the other two axes must be longer."""


@dataclass(frozen=True)
class Taken:
    """An array with its position, its bands and its validity."""

    array: Plain
    """Array (bands, height, width), in the dtype in which it was given."""
    nodata: tuple[float, ...] = ()
    """Value of each band that stands for no image data; empty if none is stated."""
    georeference: Georeference | None = None
    """Position on the earth, as coordinates or attributes say."""
    bands: tuple[Band, ...] | None = None
    """Names of the bands; None if the array has none."""
    notes: tuple[str, ...] = ()
    """Sentences about facts that the array states and that are not used."""
    named: bool = False
    """Whether the axes have names; if not, their order decides."""


def is_array(what: object) -> bool:
    """Return whether `what` is an array of a known library."""
    return isinstance(what, np.ndarray) or _is_dask(what) or is_of(what, "torch", "Tensor") or named_axes(what)


def named_axes(what: object) -> bool:
    """Return whether `what` is an array of a library whose axes can have names."""
    return is_of(what, "xarray", "DataArray") or is_of(what, "zarr", "Array")


def is_of(what: object, library: str, name: str) -> bool:
    """Return whether `what` is of a class of a library, which is not imported to ask."""
    kind = getattr(sys.modules.get(library), name, None)
    return kind is not None and isinstance(what, kind)


def _is_dask(what: object) -> TypeGuard[da.Array]:
    return is_of(what, "dask.array", "Array")


def no_image(what: object) -> UsageError:
    """Return the error for an object that is no image; the error says what to type if the object holds an image."""
    kind = type(what).__name__
    begin = f"a {kind} is not an image that is read"
    if is_of(what, "xarray", "Dataset"):
        return UsageError(f"{begin}; name one of its arrays, or join them: dataset.to_dataarray('band')")
    if is_of(what, "PIL.Image", "Image"):
        return UsageError(f"{begin}; give numpy.asarray(image), with .transpose(2, 0, 1) where it has colours")
    if hasattr(what, "__cuda_array_interface__"):
        return UsageError(f"{begin}, as it lies on a GPU; give cupy.asnumpy(array), as {AXES[0]}")
    if isinstance(what, list | tuple) or hasattr(what, "__array__"):
        return UsageError(f"{begin}; give numpy.asarray(...) of it, as {AXES[0]}")
    return UsageError(f"a {kind} is not an image; give a path, an array or a source")


def plain(what: Any, name: str) -> Plain:
    """Return an array without axis names as a numpy or dask array. Raises `InputError` if it cannot become one."""
    if is_of(what, "torch", "Tensor"):
        try:
            tensor = what.detach().cpu()
            # numpy has no bfloat16, and float32 holds all of its values.
            return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise InputError(
                f"{name} is a tensor ({what.layout}, {what.dtype}, on {what.device}) that numpy cannot hold "
                f"({str(error).splitlines()[0]}); give a dense one with values, for instance tensor.to_dense().float()"
            ) from error
    if is_of(what, "zarr", "Array"):
        if min(what.shape, default=0) < 1:
            return np.empty(what.shape, what.dtype)
        import dask.array as da

        # Without `name=False`, dask hashes the array to find a name for it.
        stored: Plain = da.from_array(what, chunks=what.chunks, name=False)
        return stored
    if not (isinstance(what, np.ndarray) or _is_dask(what)):
        raise InputError(f"{name} wraps a {type(what).__name__}; give one that wraps a numpy or dask array")
    return what


def axes_checked(array: Plain, name: str, *, named: bool = False) -> Plain:
    """Return `array` as (bands, height, width); two axes become one band. Raises `InputError` for other axes."""
    if any(np.isnan(side) for side in array.shape):
        raise InputError(
            f"{name} is a dask array of unknown size, {array.shape}; "
            "let dask find it first: array.compute_chunk_sizes()"
        )
    if array.ndim == 4 and array.shape[0] == 1:
        raise InputError(f"{name} is {array.shape}, a batch of one; give {AXES[0]}: array[0]")
    if array.ndim not in (2, 3):
        raise InputError(f"{name} has {array.ndim} axes, {array.shape}; give {AXES[0]} or (height, width)")
    if array.ndim == 2:
        array = array[None]
    first, second, last = (int(side) for side in array.shape)
    if not named and 1 <= last <= MOST_LAST < min(first, second):
        raise InputError(
            f"{name} is {(first, second, last)}, which looks like {AXES[1]}; give {AXES[0]}: array.transpose(2, 0, 1). "
            f"If it is {first} bands of {second} x {last} pixels, name its axes: "
            "xarray.DataArray(array, dims=('band', 'y', 'x'))"
        )
    check_size(name, (first, second, last))
    return array


def read_as(array: Plain, name: str) -> DType:
    """Return the dtype in which an array is read, by the rule in `ArraySource`.

    Raises `InputError` with a remedy if the array cannot be read in any dtype.
    """
    found = np.dtype(array.dtype).newbyteorder("=")
    # Dask keeps an empty array of the kind that its chunks have.
    if _is_dask(array) and not isinstance(array._meta, np.ndarray):
        kind = f"{type(array._meta).__module__.split('.')[0]}.{type(array._meta).__name__}"
        raise InputError(f"{name} has chunks that are {kind}; make them numpy: array.map_blocks(convert)")
    known = {"float16": "float32", "float64": "float32", "bool": "uint8", "int8": "int16"}
    if found.name in known:
        return np.dtype(known[found.name])
    if found.kind not in "iu" or found.name in DTYPES:
        return np.dtype(check_dtype(name, found, _remedy(found)))
    if not isinstance(array, np.ndarray):
        raise InputError(
            f"{name} holds {found.name} pixels, whose values are not known before they are computed; say what holds "
            "them: array.astype('uint8') for 0 to 255, array.astype('uint16') for 0 to 65535, array.astype('int16') "
            "for -32768 to 32767"
        )
    low, high = int(array.min()), int(array.max())
    for wanted in ("uint8", "uint16", "int16"):
        if np.iinfo(wanted).min <= low and high <= np.iinfo(wanted).max:
            return np.dtype(wanted)
    raise InputError(
        f"{name} holds {found.name} pixels from {low} to {high}, which neither uint8, uint16 nor int16 holds; give "
        "array.astype('float32'), which is exact up to 16777216"
    )


def _remedy(dtype: DType) -> str:
    if dtype.names:
        return f"Give one of its fields: array[{dtype.names[0]!r}]"
    if dtype.kind == "c":
        return "Give its amplitude: abs(array)"
    return "Convert it first, for instance array.astype('float32')."
