"""A style for QGIS (QML): the legend of a label map shows its classes, with their names and colours, and nothing else.

QGIS applies `a.qml` by itself when it opens `a.tif` or a file of polygons called `a`. Both kinds may lie beside each
other, so one file holds both styles: QGIS looks for `pipe` in the style of a raster, and for `renderer-v2` in that of a
vector. A GeoPackage carries the style of its polygons in its table `layer_styles`.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from tilepipe.errors import UsageError
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.text import clean_line

STYLE = ".qml"
"""Ending of a file with a style."""
ARCHIVE = ".zip"
MARK = b"<!-- written by tilepipe; saving a style in QGIS replaces it -->"
"""Line by which a style that tilepipe wrote is known from a style that a user has saved."""
VERSION = "3.22"
"""Version of QGIS whose form of styles is written; later versions read it."""
TABLE_NAME = "name"
"""Column of a table of polygons that holds the name of the class."""
ANY_NAME = (
    "coalesce(attribute($currentfeature, 'name'), attribute($currentfeature, 'class_name'), "
    "map_get(attribute($currentfeature, 'classification'), 'name'))"
)
"""Expression for the name of the class in a table of polygons and in both dialects of GeoJSON. They call it
differently, and QGIS draws nothing of a layer that has no column of the style."""
OUTLINE = "35,35,35,255"
WIDTH = "0.2"
"""Width of the outline of a polygon (mm on the screen or on paper)."""


def style_path(path: Path) -> Path:
    """Return the path of the style that QGIS applies to a file: a.qml for a.tif, and also for a.shp.zip."""
    whole = path.with_suffix("") if path.suffix.lower() == ARCHIVE else path
    return whole.with_suffix(STYLE)


def is_own_style(path: Path) -> bool:
    """Return whether tilepipe wrote a style, and nobody has saved it again."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK


def is_same_style(one: Path, other: Path) -> bool:
    """Return whether two paths are files with the same content."""
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def refuse_style_of_others(fresh: Path, final: Path) -> None:
    """Raise `UsageError` if the new style `fresh` would replace a style that tilepipe did not write."""
    if fresh.exists() and final.exists() and not (is_own_style(final) or is_same_style(fresh, final)):
        raise UsageError(f"{final} is a style that tilepipe did not write, so it is left as it is; move it away first")


def write_style(labels: LabelMap, path: Path) -> None:
    """Write the style of a label map, as a raster and as polygons, for the product at `path`; see `style_path`."""
    root = _root()
    root.append(_raster(labels.legend))
    root.append(_polygons(labels.legend, ANY_NAME))
    indent(root, " ")
    style_path(path).write_bytes(MARK + b"\n" + tostring(root, encoding="utf-8") + b"\n")


def table_style(legend: Legend) -> str:
    """Return the style of a table of polygons, which has the column `name`, as text."""
    root = _root()
    root.append(_polygons(legend, TABLE_NAME))
    return tostring(root, encoding="unicode")


def _root() -> Element:
    return Element("qgis", version=VERSION, styleCategories="Symbology")


def _raster(legend: Legend) -> Element:
    """Return the style of a raster: only values that are classes have an entry, so nodata has none."""
    pipe = Element("pipe")
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    SubElement(renderer, "rasterTransparency")
    entries = SubElement(renderer, "colorPalette")
    for value, (name, color) in enumerate(zip(legend.classes, legend.palette, strict=True)):
        hexadecimal = "#{:02x}{:02x}{:02x}".format(*color)
        SubElement(
            entries, "paletteEntry", value=str(value), label=clean_line(name), color=hexadecimal, alpha="255"
        )  # fmt: skip
    return pipe


def _polygons(legend: Legend, attribute: str) -> Element:
    """Return the style of polygons whose class name is `attribute`; the background has no polygons and no entry."""
    renderer = Element("renderer-v2", type="categorizedSymbol", attr=attribute, enableorderby="0", forceraster="0")
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for value, (name, color) in enumerate(zip(legend.classes, legend.palette, strict=True)):
        if value == legend.background:
            continue
        said = clean_line(name)
        SubElement(categories, "category", value=said, type="string", label=said, symbol=str(value), render="true")
        symbol = SubElement(symbols, "symbol", type="fill", name=str(value), alpha="1", clip_to_extent="1")
        layer = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
        drawn = {
            **{"color": ",".join(map(str, (*color, 255))), "style": "solid", "outline_style": "solid"},
            **{"outline_color": OUTLINE, "outline_width": WIDTH, "outline_width_unit": "MM"},
        }
        options = SubElement(layer, "Option", type="Map")
        for key, text in drawn.items():
            SubElement(options, "Option", type="QString", name=key, value=text)
    return renderer
