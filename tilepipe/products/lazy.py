"""Lazy: a finished map that numpy, dask and xarray take as an array; pixels are read only when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from tilepipe.arrays import Array, DType
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.ome_tiff import write_ome_tiff
from tilepipe.text import JSON

if TYPE_CHECKING:
    import dask.array as da
    import xarray

Index = int | slice | Sequence[int] | Array
"""Index of one axis, as numpy takes it."""
Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Lazy(NDArrayOperatorsMixin):
    """A finished map on the output grid. `lazy[y0:y1, x0:x1]` reads just these pixels, as numpy does.

    Arithmetic and comparisons give lazy dask arrays: `(lazy == 1).sum().compute()`.
    """

    __hash__ = object.__hash__

    map: LabelMap
    """The label map that pixels are read from."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (height, width) in pixels."""
        return self.map.shape

    @property
    def dtype(self) -> DType:
        """Type of the pixels: uint8 or uint16."""
        return self.map.dtype

    @property
    def ndim(self) -> int:
        """Number of axes, which is always 2."""
        return 2

    @property
    def legend(self) -> Legend:
        """Class names, colours and the nodata value."""
        return self.map.legend

    @property
    def crs(self) -> str | None:
        """WKT of the coordinate reference system; None if there is none."""
        return self.map.georeference.crs if self.map.georeference else None

    @property
    def transform(self) -> Affine | None:
        """Transform of pixel corners (a, b, c, d, e, f) or None: x = a*column + b*row + c, y = d*column + e*row + f."""
        return self.map.georeference.transform if self.map.georeference else None

    def __repr__(self) -> str:
        height, width = self.shape
        return f"<{type(self).__name__} {self.legend.name}: {height} x {width} px {self.dtype}, {self._values()}>"

    def _values(self) -> str:
        """Return in words what the values stand for."""
        return f"nodata {self.legend.nodata}"

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **options: object) -> object:
        # The pixels lie on disk, so what numpy would compute at once is computed when it is asked for. A sum over all
        # of them, which is a method of `add`, is asked for now.
        if name := next((one for one in inputs if isinstance(one, str)), ""):
            raise UsageError(
                f"pixels of {type(self).__name__} are numbers and {name!r} is a text; compare with the number of the "
                f"class: labels.classes.index({name!r})"
            )
        called = method == "__call__"
        arrays = [(one.dask if called else one[:]) if isinstance(one, Lazy) else one for one in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getattr__(self, name: str) -> object:
        if not name.startswith("_") and hasattr(np.ndarray, name):
            raise AttributeError(
                f"pixels of {type(self).__name__} lie on disk and have no {name}: read them first, as in "
                "labels[:100, :100], or take labels.dask, which computes block by block"
            )
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise UsageError(
            f"{self!r} is neither true nor false; ask for what is meant, as in (labels == 1).any().compute()"
        )

    def __contains__(self, value: object) -> bool:
        return bool((self.dask == value).any().compute())

    def __setitem__(self, key: object, value: object) -> None:
        raise UsageError(f"{self!r} can be read only; labels[:] is an array of your own, which can be changed")

    def __getitem__(self, key: Index | tuple[Index, ...]) -> Array:
        if getattr(getattr(key, "dtype", None), "kind", "") == "b" and getattr(key, "ndim", 0) > 1:
            mask = np.asarray(key)  # a mask of dask is computed
            if mask.shape != self.shape:
                raise UsageError(f"a mask of shape {mask.shape} does not fit {type(self).__name__} of {self.shape}")
            chosen: Array = self[:][mask]
            return chosen
        rows, columns = (*key, slice(None), slice(None))[:2] if isinstance(key, tuple) else (key, slice(None))
        # numpy itself says what an index means, so negative ones, steps and lists work as in an array.
        y, x = np.arange(self.shape[0])[rows], np.arange(self.shape[1])[columns]
        if not (np.size(y) and np.size(x)):
            return np.empty((*np.shape(y), *np.shape(x)), self.dtype)
        box = Box(int(np.min(y)), int(np.min(x)), int(np.max(y)) + 1, int(np.max(x)) + 1)
        pixels: Array = self.map.read(box)[y - box.y0][..., x - box.x0]
        return pixels

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)

    @property
    def dask(self) -> da.Array:
        """Lazy dask array (H, W); one chunk is one stored block."""
        import dask.array

        blocks = tuple(min(block, side) for block, side in zip(self.map.block, self.shape, strict=True))
        meta = np.empty((0, 0), self.dtype)
        # With `name=False` Dask invents a name; otherwise it would hash every pixel for one.
        lazy: da.Array = dask.array.from_array(self, chunks=blocks, name=False, meta=meta)
        return lazy

    def to_xarray(self) -> xarray.DataArray:
        """Return a lazy DataArray (y, x) with CF attributes of the classes or of the scale.

        Coordinates are pixel centres: in the CRS for rasters (there are none if the transform is rotated or missing),
        in full-resolution pixels of the source for slides. The CRS is in `spatial_ref`. Raises `UsageError` if xarray
        is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise UsageError("xarray is not installed; run: pip install 'tilepipe[xarray]'") from None
        fill = {"_FillValue": self.dtype.type(self.legend.nodata), "grid_mapping": "spatial_ref"}
        coordinates = {**self.centres(), "spatial_ref": ((), 0, self.spatial_ref())}
        return xarray.DataArray(self.dask, coordinates, ("y", "x"), self.legend.name, {**self.says(), **fill})

    def to_cog(self, path: str | Path) -> None:
        """Write a Cloud Optimized GeoTIFF; see `tilepipe.products.cog.write_cog`."""
        write_cog(self.map, Path(path))

    def to_ome_tiff(self, path: str | Path) -> None:
        """Write a pyramidal OME-TIFF; see `tilepipe.products.ome_tiff.write_ome_tiff`."""
        write_ome_tiff(self.map, Path(path))

    def to_ome_zarr(self, path: str | Path) -> None:
        """Write an OME-Zarr 0.5 folder; see `tilepipe.products.ome_zarr.write_ome_zarr`."""
        from tilepipe.products.ome_zarr import write_ome_zarr

        write_ome_zarr(self.map, Path(path))

    def says(self) -> JSON:
        """Return CF attributes that say what the values mean."""
        return {"long_name": self.legend.name}

    def centres(self) -> JSON:
        """Return the coordinates of pixel centres per axis, if each row and each column has one coordinate."""
        rows, columns = np.arange(self.shape[0]) + 0.5, np.arange(self.shape[1]) + 0.5
        georeference = self.map.georeference
        if georeference is None or (georeference.transform is None and not georeference.gcps):
            (y0, x0), (sy, sx) = self.map.origin, self.map.scale
            return {"y": y0 + sy * rows, "x": x0 + sx * columns}
        if self.transform is None or self.transform[1] or self.transform[3]:
            return {}
        a, _, c, _, e, f = self.transform
        return {"y": f + e * rows, "x": c + a * columns}

    def spatial_ref(self) -> dict[str, str]:
        """Return the attributes of the coordinate `spatial_ref`: the CRS and the transform, if they are known."""
        said = {"crs_wkt": self.crs, "spatial_ref": self.crs} if self.crs else {}
        if self.transform is None:
            return said
        a, b, c, d, e, f = self.transform
        # rioxarray reads this attribute, which has GDAL's order of the numbers.
        return {**said, "GeoTransform": " ".join(map(repr, (c, a, b, f, d, e)))}
