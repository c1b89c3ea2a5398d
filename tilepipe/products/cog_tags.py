"""Tags of a GeoTIFF: the colours and class names of labels, and the scale and statistics of a layer.

Class names go into band tags. As GDAL has no place for them in a TIFF, they also go into `<path>.aux.xml` (PAM), with
the colours and numbers of pixels as an attribute table. The scale is GDAL's own (value = scale * pixel + offset); QGIS
and rasterio show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np
from rasterio.io import DatasetWriter

from tilepipe.arrays import Labels
from tilepipe.products.label_map import Legend
from tilepipe.text import clean, clean_line


class Counts:
    """Counts how many pixels have each value, box by box."""

    def __init__(self, nodata: int) -> None:
        self.values = np.zeros(nodata + 1, np.int64)  # nodata is the largest value of the type

    def add(self, pixels: Labels) -> None:
        """Count the pixels of a box."""
        self.values += np.bincount(pixels.ravel(), minlength=len(self.values))

    def statistics(self, nodata: int) -> dict[str, str]:
        """Return GDAL's statistics tags of the pixels that are not nodata; no tags if there are no such pixels."""
        counts, values = np.delete(self.values, nodata), np.delete(np.arange(len(self.values)), nodata)
        there, total = values[counts > 0], int(counts.sum())
        if not total:
            return {}
        mean = float((counts * values).sum()) / total
        deviation = float(np.sqrt((counts * (values - mean) ** 2).sum() / total))
        share = f"{100 * total / self.values.sum():.4g}"
        figures = {"MINIMUM": there[0], "MAXIMUM": there[-1], "MEAN": mean, "STDDEV": deviation, "VALID_PERCENT": share}
        return {f"STATISTICS_{name}": str(figure) for name, figure in figures.items()}


def mark(file: DatasetWriter, legends: Sequence[Legend], counts: Sequence[Counts]) -> None:
    """Write the legend of each band, and statistics of the counts of its pixels, into an open rasterio file."""
    for band, (legend, count) in enumerate(zip(legends, counts, strict=True), start=1):
        file.set_band_description(band, clean_line(legend.name))
        if legend.measure is None:
            colors = {value: (*color, 255) for value, color in enumerate(legend.palette)}
            file.write_colormap(band, {**colors, legend.nodata: (0, 0, 0, 0)})
            file.update_tags(band, **{f"CLASS_{value}": clean_line(name) for value, name in enumerate(legend.classes)})
        else:
            file.update_tags(band, MEANING=clean_line(legend.measure.meaning), **count.statistics(legend.nodata))
    if measures := [legend.measure for legend in legends if legend.measure]:
        file.scales, file.offsets = [measure.step for measure in measures], [0.0] * len(measures)
        # '1' is how the CF conventions write that a number has no unit.
        file.units = ["1"] * len(measures)


def side_file(legend: Legend, system: str, counts: Counts) -> str:
    """Return the text of GDAL's side file: class names, and a raster attribute table of names, colours and counts.

    The text also holds the coordinate reference system `system` (WKT) if it is given. It is empty if there is nothing
    to say.
    """
    srs = f"<SRS>{escape(clean(system))}</SRS>" if system else ""
    band = "" if legend.measure else f'<PAMRasterBand band="1">{_classes(legend, counts)}</PAMRasterBand>'
    return f"<PAMDataset>{srs}{band}</PAMDataset>\n" if srs or band else ""


def _classes(legend: Legend, counts: Counts) -> str:
    # Class names come from a model's card, which anybody may have written.
    names = "".join(f"<Category>{escape(clean_line(name))}</Category>" for name in legend.classes)
    # Types and usages are the numbers of GDAL's GDALRATFieldType and GDALRATFieldUsage. Counts are real numbers, as
    # whole ones have 32 bits there.
    fields = [("Value", 0, 5), ("Count", 1, 1), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]
    heads = "".join(
        f'<FieldDefn index="{index}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for index, (name, kind, usage) in enumerate(fields)
    )
    rows = "".join(
        f'<Row index="{value}"><F>{value}</F><F>{counts.values[value]}</F><F>{escape(clean_line(name))}</F>'
        f"<F>{r}</F><F>{g}</F><F>{b}</F></Row>"
        for value, (name, (r, g, b)) in enumerate(zip(legend.classes, legend.palette, strict=True))
    )
    table = f'<GDALRasterAttributeTable tableType="thematic">{heads}{rows}</GDALRasterAttributeTable>'
    return f"<CategoryNames>{names}</CategoryNames>{table}"
