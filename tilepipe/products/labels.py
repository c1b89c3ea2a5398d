"""Labels: a label map that Python code can read; pixels are read only when they are asked for."""

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
from tilepipe.errors import InputError, UsageError, public
from tilepipe.paths import labels_file, refuse_special
from tilepipe.products.cog import read_cog, write_cog
from tilepipe.products.formats import PRODUCTS, product_of, refuse_unknown
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.ome_tiff import has_labels, read_ome_tiff, write_ome_tiff
from tilepipe.products.ome_zarr import read_ome_zarr, write_ome_zarr
from tilepipe.products.polygons import write_geojson
from tilepipe.products.vector_files import write_vectors
from tilepipe.products.vector_options import PLAIN, TABLES, VectorOptions
from tilepipe.text import JSON, missing

if TYPE_CHECKING:
    import dask.array as da
    import xarray

Index = int | slice | Sequence[int] | Array
"""Index of one axis, as numpy takes it."""
Affine = tuple[float, float, float, float, float, float]


def open_label_file(path: str | Path) -> LabelMap:
    """Open labels in a COG, OME-TIFF or OME-Zarr that tilepipe wrote. Raises `InputError` if it is none of these."""
    found = open_map(path)
    if found.legend.measure:
        raise InputError(f"{path} holds the layer {found.legend.name} and no labels; name the file of the labels")
    return found


def open_map(path: str | Path) -> LabelMap:
    """Open labels or a layer in a COG, OME-TIFF or OME-Zarr that tilepipe wrote, or the output of a run.

    A run is named by its work directory. Raises `InputError` if the path is none of these.
    """
    path = labels_file(path)
    if not path.exists():
        raise InputError(missing(path))
    refuse_special(path)
    if path.is_dir():
        return read_ome_zarr(path)
    return read_ome_tiff(path) if has_labels(path) else read_cog(path)


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

    def __getitem__(self, key: Index | tuple[Index, ...]) -> Array:
        if isinstance(key, np.ndarray) and key.dtype == bool and key.shape == self.shape:
            chosen: Array = self[:][key]
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
        coordinates = {**self._centres(), "spatial_ref": ((), 0, self._spatial_ref())}
        return xarray.DataArray(self.dask, coordinates, ("y", "x"), self.legend.name, {**self._says(), **fill})

    def to_cog(self, path: str | Path) -> None:
        """Write a Cloud Optimized GeoTIFF; see `tilepipe.products.cog.write_cog`."""
        write_cog(self.map, Path(path))

    def to_ome_tiff(self, path: str | Path) -> None:
        """Write a pyramidal OME-TIFF; see `tilepipe.products.ome_tiff.write_ome_tiff`."""
        write_ome_tiff(self.map, Path(path))

    def to_ome_zarr(self, path: str | Path) -> None:
        """Write an OME-Zarr 0.5 folder; see `tilepipe.products.ome_zarr.write_ome_zarr`."""
        write_ome_zarr(self.map, Path(path))

    def _says(self) -> JSON:
        """Return CF attributes that say what the values mean."""
        return {"long_name": self.legend.name}

    def _centres(self) -> JSON:
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

    def _spatial_ref(self) -> dict[str, str]:
        said = {"crs_wkt": self.crs, "spatial_ref": self.crs} if self.crs else {}
        if self.transform is None:
            return said
        a, b, c, d, e, f = self.transform
        # rioxarray reads this attribute, which has GDAL's order of the numbers.
        return {**said, "GeoTransform": " ".join(map(repr, (c, a, b, f, d, e)))}


@dataclass(frozen=True, eq=False, repr=False)
class Labels(Lazy):
    """A finished label map. `labels[y0:y1, x0:x1]` reads just these pixels, as numpy does."""

    def _values(self) -> str:
        return f"classes {', '.join(self.classes)}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label value, from 0."""
        return self.legend.classes

    def to_geojson(self, path: str | Path) -> None:
        """Write polygons; see `tilepipe.products.polygons.write_geojson`."""
        write_geojson(self.map, Path(path))

    def to_vectors(self, path: str | Path, options: VectorOptions = PLAIN) -> None:
        """Write polygons as a table: `.gpkg`, `.fgb`, `.shp.zip` or `.parquet`.

        Raises `UsageError` for another ending.
        """
        product = product_of(Path(path))
        if product not in TABLES:
            raise UsageError(f"{path} is no table of polygons; endings are .gpkg, .fgb, .shp.zip and .parquet")
        refuse_unknown([product])
        write_vectors(self.map, Path(path), options)

    def _says(self) -> JSON:
        legend = self.legend
        return {
            "long_name": legend.name,
            "flag_values": np.arange(len(legend.classes), dtype=self.dtype),
            # The CF conventions put blanks between meanings, so a name must not hold one.
            "flag_meanings": " ".join("_".join(name.split()) for name in legend.classes),
            "flag_colors": " ".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in legend.palette),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Layer(Lazy):
    """An uncertainty layer of a run: uint8 pixels times `scale` are values from 0 to 1; 255 is nodata."""

    def _values(self) -> str:
        return f"times {self.scale:.3g}"

    @property
    def scale(self) -> float:
        """Number that the pixel value 1 stands for."""
        assert self.legend.measure is not None
        return self.legend.measure.step

    def _says(self) -> JSON:
        assert self.legend.measure is not None
        return {"long_name": self.legend.measure.meaning, "units": "1", "scale_factor": self.scale, "add_offset": 0.0}


def parses(path: Path) -> bool:
    """Return whether a product can be read from end to end."""
    product = product_of(path)
    if product is None:
        return False
    try:
        PRODUCTS[product].parse(path)
    # Libraries raise errors of any class for a damaged file: the csv module one of its own, Pillow a SyntaxError,
    # pyogrio an IndexError.
    except Exception:
        return False
    return True


@public
def open_labels(path: str | Path) -> Labels:
    """Open a label map that tilepipe has written. Pixels are read when they are asked for.

    Args:
        path: A COG, an OME-TIFF or an OME-Zarr folder.

    Returns:
        Labels of shape (height, width), uint8 or uint16, with class names, colours and position.

    Raises:
        InputError: There is no such file, or tilepipe did not write it.

    Example:
        >>> import tilepipe as tp
        >>> result = tp.segment("pipelines/sample/Amazon_24_20.tif", "forest", "corner.tif", window=(0, 0, 200, 100))
        >>> labels = tp.open_labels("corner.tif")
        >>> labels.shape, labels.dtype, labels.legend.nodata
        ((100, 200), dtype('uint8'), 255)
        >>> labels[:50, 10:20].shape
        (50, 10)
    """
    return Labels(open_label_file(Path(path)))
