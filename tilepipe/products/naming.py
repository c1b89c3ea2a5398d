"""Names of products: which files an OUTPUT and a list of products stand for."""

from __future__ import annotations

from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.products.formats import OME, OME_PROBABILITIES, PRODUCTS, product_of, refuse_unknown, stem_of
from tilepipe.products.vector_options import TABLES
from tilepipe.tiling.uncertainty import PROBABILITIES

OTHER_FORMATS = tuple(
    "shp geoparquet kml gml json jpg jpeg jp2 j2k webp gif bmp vrt img nc h5 hdf npy npz "  # noqa: SIM905
    "zarr zip pdf svg svs ndpi mrxs".split()
)
"""Endings of files in formats that are not written."""


def output_paths(output: Path, of: list[str]) -> dict[str, Path]:
    """Return the final path of each product `of`; `output` is a file of one of them, or a path without suffix.

    'vectors' stands for the table of polygons that the output's ending names, else for a GeoPackage; 'probabilities'
    for an OME-Zarr beside labels in an OME format, else for a COG. Raises `UsageError` for a product that is not known,
    for an output that is none of the products, and for an output with the ending of a format that is not written.
    """
    refuse_unknown(of)
    _refuse_ending(output, known=bool(of))
    main = product_of(output)
    if main is not None:
        refuse_unknown([main])
    if main in TABLES:
        of = list(dict.fromkeys(main if name == "vectors" else name for name in of))
    if PROBABILITIES in of and (main == OME_PROBABILITIES or ("cog" not in {*of, main} and OME & {*of, main})):
        of = list(dict.fromkeys(OME_PROBABILITIES if name == PROBABILITIES else name for name in of))
    if TABLES & {*of, main} and (found := [mark for mark in ";?!" if mark in str(output)]):
        raise UsageError(
            f"{output}: the library that writes polygons takes {found[0]} in a path for a part of an address; give "
            "another name"
        )
    if main is None:
        return {name: output.with_name(output.name + PRODUCTS[name].suffix) for name in of}
    wanted = of or [main]
    if main not in wanted:
        raise UsageError(
            f"{output} is a {main} file but {', '.join(wanted)} is asked for; name them in `of` or rename it"
        )
    stem = stem_of(output)
    return {name: output if name == main else output.with_name(stem + PRODUCTS[name].suffix) for name in wanted}


def _refuse_ending(output: Path, *, known: bool) -> None:
    """Raise `UsageError` for a name that asks for another format; if products are `known`, the name may have dots."""
    ending = output.suffix.lower().removeprefix(".")
    # A name may hold dots (scene.2024.05), so what stands after the last one need not be an ending.
    asks = ending in OTHER_FORMATS or not (known or ending in ("", "labels") or ending.isdigit())
    if ending == "shp":
        raise UsageError(f"{output} would be four files; name it {output}.zip, one file that QGIS and GDAL open")
    if asks and product_of(output) is None:
        endings = ", ".join(f"{product.suffix} ({name})" for name, product in PRODUCTS.items())
        raise UsageError(f"{output} ends in .{ending}, which is not written; endings are {endings}")
