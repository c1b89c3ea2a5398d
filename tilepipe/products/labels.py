"""Labels: a label map that Python code can read; pixels are read only when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tilepipe.errors import InputError, UsageError, public
from tilepipe.paths import labels_file, refuse_special
from tilepipe.products.cog import read_cog
from tilepipe.products.formats import PRODUCTS, product_of, refuse_unknown
from tilepipe.products.label_map import LabelMap
from tilepipe.products.lazy import Lazy
from tilepipe.products.ome_tiff import has_labels, read_ome_tiff
from tilepipe.products.vector_options import PLAIN, TABLES, VectorOptions
from tilepipe.text import JSON, missing


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
        from tilepipe.products.ome_zarr import read_ome_zarr  # what opens one format does without the others

        return read_ome_zarr(path)
    return read_ome_tiff(path) if has_labels(path) else read_cog(path)


@dataclass(frozen=True, eq=False, repr=False)
class Labels(Lazy):
    """A finished label map. `labels[y0:y1, x0:x1]` reads just these pixels, as numpy does."""

    def _values(self) -> str:
        return f"classes {', '.join(self.classes)}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label value, from 0."""
        return self.legend.classes

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a small picture, and the classes with their colours."""
        from tilepipe.products.report.notebook import notebook_of_labels

        return notebook_of_labels(self.map)

    def to_geojson(self, path: str | Path) -> None:
        """Write polygons; see `tilepipe.products.polygons.write_geojson`."""
        from tilepipe.products.polygons import write_geojson

        write_geojson(self.map, Path(path))

    def to_vectors(self, path: str | Path, options: VectorOptions = PLAIN) -> None:
        """Write polygons as a table: `.gpkg`, `.fgb`, `.shp.zip` or `.parquet`.

        Raises `UsageError` for another ending.
        """
        product = product_of(Path(path))
        if product not in TABLES:
            raise UsageError(f"{path} is no table of polygons; endings are .gpkg, .fgb, .shp.zip and .parquet")
        refuse_unknown([product])
        from tilepipe.products.vector_files import write_vectors

        write_vectors(self.map, Path(path), options)

    def says(self) -> JSON:
        """Return CF attributes with the names and colours of the classes."""
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

    def says(self) -> JSON:
        """Return CF attributes with the scale of the values."""
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
    return Labels(open_label_file(path))
