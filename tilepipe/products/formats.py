"""Products by name: `--of` may ask for these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tilepipe.errors import UsageError
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.material import Asset, Write, of_map
from tilepipe.products.qgis_style import STYLE, style_path
from tilepipe.products.vector_options import OBJECTS, QUPATH, TABLES
from tilepipe.text import json_of
from tilepipe.tiling.uncertainty import PROBABILITIES


def later(function: str) -> Callable[..., Any]:
    """Return a function of this room, 'module.function', whose module is imported when the function is called.

    Every command asks for the names of products and few write one, and the modules that write take half a second.
    """
    module, _, name = function.rpartition(".")

    def call(*given: Any) -> Any:
        return getattr(import_module(f"tilepipe.products.{module}"), name)(*given)

    return call


@dataclass(frozen=True)
class Product:
    """A file format that a label map is written in."""

    suffix: str
    """Suffix that files of the format are given."""
    write: Write
    """Function that writes the product to a new path."""
    parse: Callable[[Path], object]
    """Function that reads a file of the format from end to end and raises an error if the file is damaged."""
    folder: bool = False
    """Whether the product is a folder and not a file."""
    inside: str = "zarr.json"
    """Name of a file that is in the folder if it is the product, and no folder of somebody else."""
    needs_image: bool = False
    """Whether the product cannot be made of labels alone."""
    needs_run: bool = False
    """Whether only a run can write the product, since no file of labels holds what it shows."""
    styled: bool = False
    """Whether a style for QGIS is written beside files with labels."""
    needs: tuple[str, ...] = ()
    """Packages that writing the product needs."""
    extra: str = "vectors"
    """Extra that installs these packages."""
    others: tuple[str, ...] = ()
    """Other suffixes that users give to files of the format."""
    media: str = ""
    """Media type of the format."""
    role: str = "data"
    """What files of the format are for, in the words of STAC."""

    def suffix_of(self, path: Path) -> str | None:
        """Return the suffix of this format that a path has, in lower case; None if it has none of them."""
        name = path.name.lower()
        return next((suffix for suffix in (self.suffix, *self.others) if name.endswith(suffix)), None)


def _all_of(read: Callable[[Path], LabelMap]) -> Callable[[Path], object]:
    """Return a function that reads every label of a product that `read` opens."""

    def parse(path: Path) -> None:
        kept = read(path)
        for box in kept.boxes(2048):
            kept.read(box)

    return parse


def _parse_json(path: Path) -> object:
    return json_of(path.read_bytes())


OME_PROBABILITIES = "probabilities-ome-zarr"
DICOM_SEG, STAC = "dicom-seg", "stac"
TISSUE, TISSUE_GEOJSON = "tissue", "tissue-geojson"
OF_TISSUE = frozenset({TISSUE, TISSUE_GEOJSON})
"""Products of the tissue mask."""
INDEX = "files.json"
"""Name of the file in a folder of labels of each file that says which labels belong to which file of the image."""
CSV, GEOJSON, PARQUET = "text/csv", "application/geo+json", "application/vnd.apache.parquet"
# `product_of` takes the first suffix that fits, so a longer ending stands before the shorter one that it ends in.
PRODUCTS = {
    "cog": Product(
        ".tif", of_map(later("cog.write_cog")), _all_of(later("cog.read_cog")), styled=True, others=(".tiff",),
        media="image/tiff; application=geotiff; profile=cloud-optimized",
    ),
    "ome-zarr": Product(
        ".ome.zarr", later("ome_zarr.write_ome_zarr_of"), _all_of(later("ome_zarr.read_ome_zarr")), folder=True,
        media="application/vnd.zarr; version=3",
    ),
    "ome-tiff": Product(
        ".ome.tif", of_map(later("ome_tiff.write_ome_tiff")), _all_of(later("ome_tiff.read_ome_tiff")),
        others=(".ome.tiff",), media="image/tiff",
    ),
    PROBABILITIES: Product(
        ".probabilities.tif", later("probabilities.write_probabilities"), later("probabilities.parse_probabilities"),
        media="image/tiff; application=geotiff; profile=cloud-optimized",
    ),
    OME_PROBABILITIES: Product(
        ".probabilities.ome.zarr", later("probabilities.write_probabilities_zarr"),
        later("probabilities.parse_probabilities"), folder=True, media="application/vnd.zarr; version=3",
    ),
    "objects": Product(
        ".objects.csv", later("object_table.write_objects_csv"), later("csv_file.parse_csv"), media=CSV,
    ),
    "objects-parquet": Product(
        ".objects.parquet", later("object_table.write_objects_parquet"), later("object_table.parse_parquet"),
        needs=("pyarrow",), media=PARQUET,
    ),
    QUPATH: Product(".qupath.geojson", later("qupath.write_qupath"), _parse_json, needs=("shapely",), media=GEOJSON),
    "geojson": Product(".geojson", later("polygons.write_geojson_of"), _parse_json, media=GEOJSON),
    "vectors": Product(
        ".gpkg", later("vector_files.write_vectors_of"), later("vector_files.count_features"),
        needs=("pyogrio", "pyarrow"), media="application/geopackage+sqlite3",
    ),
    "flatgeobuf": Product(
        ".fgb", later("vector_files.write_vectors_of"), later("vector_files.count_features"), styled=True,
        needs=("pyogrio", "pyarrow"), media="application/vnd.flatgeobuf",
    ),
    "shapefile": Product(
        ".shp.zip", later("vector_files.write_vectors_of"), later("vector_files.count_features"), styled=True,
        needs=("pyogrio", "pyarrow"), media="application/zip",
    ),
    "geoparquet": Product(
        ".parquet", later("vector_files.write_vectors_of"), later("vector_files.count_features"), styled=True,
        needs=("pyarrow",), media=PARQUET,
    ),
    "csv": Product(".csv", later("csv_file.write_numbers"), later("csv_file.parse_csv"), media=CSV),
    "files": Product(
        ".files", later("per_file.write_files"), later("per_file.read_files"), folder=True, inside=INDEX,
        needs_image=True, media="inode/directory",
    ),
    "overlay": Product(
        ".overlay.png", later("quicklook.write_overlay"), later("quicklook.parse_png"), needs_image=True,
        media="image/png", role="overview",
    ),
    TISSUE: Product(
        ".tissue.png", later("tissue.write_tissue"), later("quicklook.parse_png"), needs_run=True, media="image/png",
        role="overview",
    ),
    TISSUE_GEOJSON: Product(
        ".tissue.geojson", later("tissue.write_tissue_geojson"), _parse_json, needs_run=True, media=GEOJSON,
    ),
    "png": Product(
        ".png", later("quicklook.write_png"), later("quicklook.parse_png"), media="image/png", role="overview",
    ),
    "report": Product(
        ".html", later("report.report.write_report"), later("report.report.parse_report"), media="text/html",
        role="metadata",
    ),
    DICOM_SEG: Product(
        ".seg.dcm", later("dicom_seg.write_dicom_seg"), later("dicom_seg.parse_dicom_seg"), needs_image=True,
        needs=("highdicom",), extra="dicom",
        media="application/dicom",
    ),
    STAC: Product(".item.json", later("stac.write_stac"), later("stac.parse_stac"), media=GEOJSON, role="metadata"),
}  # fmt: skip
OF_PROBABILITIES = frozenset({PROBABILITIES, OME_PROBABILITIES})
"""Products of the probabilities of all classes, which a run keeps only if it is asked for one of them."""
OME = {"ome-tiff", "ome-zarr"}
REPORT = "report"
"""Product that shows a run on one page, which needs the run's facts."""
LOSSLESS = {"cog", "ome-tiff", "ome-zarr"}
"""Products that hold every label and can be opened again."""
# While a GeoPackage is open, SQLite keeps changes in files with the last three endings.
SIDECARS = (".aux.xml", "-wal", "-shm", "-journal")
"""Suffixes of files that belong to a product of the same name."""
STYLED = tuple(product.suffix for product in PRODUCTS.values() if product.styled)
"""Suffixes of products that have a style for QGIS; those of one name share it."""


@dataclass(frozen=True)
class File:
    """One file or folder that a run writes."""

    product: str
    """Format of the file, a key of `PRODUCTS`."""
    path: Path
    """Final path of the file."""
    content: str = LABELS
    """'labels', 'probabilities', or the name of an uncertainty layer."""

    @property
    def style(self) -> Path | None:
        """Path of the style for QGIS; None if the file has no style."""
        return style_path(self.path) if self.content == LABELS and PRODUCTS[self.product].styled else None

    @property
    def asset(self) -> Asset:
        """The file as other products name it."""
        product = PRODUCTS[self.product]
        role = (product.role,) if self.content in (LABELS, PROBABILITIES) else (product.role, "uncertainty")
        return Asset(self.product, self.path, self.content, product.media, role)


def files_of(paths: dict[str, Path], layers: Sequence[str] = ()) -> list[File]:
    """Return the files of the labels, `paths` by product, then the files of layers beside them: a.tif, a.margin.tif.

    Tables of polygons and of objects hold the margin. Raises `UsageError` if no product asked for can hold a layer.
    """
    told = {"margin"} if (TABLES | OBJECTS) & paths.keys() else set()
    if set(layers) - told and not LOSSLESS & set(paths):
        *most, last = sorted(LOSSLESS)
        raise UsageError(f"layers are written as {', '.join(most)} or {last}; add one of them to `of`")
    beside = [
        File(product, layer_path(path, layer), layer)
        for layer in layers
        for product, path in paths.items()
        if product in LOSSLESS
    ]
    return [
        *(File(name, path, PROBABILITIES if name in OF_PROBABILITIES else LABELS) for name, path in paths.items()),
        *beside,
    ]


def layer_path(path: Path, layer: str) -> Path:
    """Return the path of a layer beside the product `path` of the labels: a.margin.tif beside a.tif."""
    stem = stem_of(path)
    return path.with_name(f"{stem}.{layer}{path.name[len(stem) :]}")


def product_of(path: Path) -> str | None:
    """Return the product that a path's suffix stands for; None if there is none."""
    found = {name: suffix for name, product in PRODUCTS.items() if (suffix := product.suffix_of(path))}
    return max(found, key=lambda name: len(found[name]), default=None)  # a.ome.tif is no COG


def stem_of(path: Path) -> str:
    """Return the name of a path without the suffix of its product: 'a' of a.tif, A.TIFF and a.ome.zarr."""
    product = product_of(path)
    suffix = PRODUCTS[product].suffix_of(path) if product else None
    return path.name[: -len(suffix)] if suffix else path.name


def refuse_unknown(of: Iterable[str]) -> None:
    """Raise `UsageError` for a product that is not known, or whose packages are not installed."""
    for name in of:
        if name not in PRODUCTS:
            raise UsageError(f"product {name!r} is not known; use {', '.join(PRODUCTS)}")
        for package in missing_packages(name):
            raise UsageError(
                f"{name} is written with {package}, which is not installed; run: "
                f"pip install 'tilepipe[{PRODUCTS[name].extra}]'"
            )


def missing_packages(product: str) -> list[str]:
    """Return the packages that writing a product needs and that are not installed."""
    return [package for package in PRODUCTS[product].needs if find_spec(package) is None]


def touched(files: Sequence[File]) -> list[Path]:
    """Return all paths, side files included, that writing `files` may replace or remove."""
    named = [file.path.with_name(file.path.name + suffix) for file in files for suffix in ("", *SIDECARS)]
    return [*named, *(file.style for file in files if file.style)]


def side_file(path: Path, ending: str) -> Path:
    """Return the path of a side file of the product `path`: a.tif.aux.xml for '.aux.xml', a.qml for '.qml'."""
    return style_path(path) if ending == STYLE else path.with_name(path.name + ending)


def users_of_style(style: Path) -> list[Path]:
    """Return the files that exist and to which QGIS applies the style `style`, of formats that are written with it."""
    named = [style.with_name(style.stem + suffix) for suffix in STYLED]
    return [path for path in named if path.exists()]
