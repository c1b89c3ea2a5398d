"""One image cut into files that know their place."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from tilepipe.box import Box

ROWS, COLUMNS = [0, 64, 130, 150], [0, 70, 140, 210]
PIXELS = np.random.default_rng(5).integers(1, 255, (3, 150, 210)).astype("uint8")
WHOLE = Box(0, 0, 150, 210)
CRS = "EPSG:32645"


def write(path: Path, box: Box, pixels: Any = PIXELS, **profile: Any) -> Path:
    """Write a box of the pixels at its place."""
    where = rasterio.Affine(0.5, 0, 400000 + box.x0 * 0.5, 0, -0.5, 3000000 - box.y0 * 0.5)
    data = np.asarray(pixels)[:, box.y0 : box.y1, box.x0 : box.x1]
    known = {"crs": CRS, "transform": where, "count": len(data), "height": box.height, "width": box.width}
    with rasterio.open(path, "w", **{"driver": "GTiff", "dtype": data.dtype, **known, **profile}) as file:
        file.write(data)
    return path


def cut(folder: Path, rows: list[int], columns: list[int], overlap: int = 0, **profile: Any) -> Path:
    """Write the pixels as files that share `overlap` pixels, and return their folder."""
    folder.mkdir(exist_ok=True)
    for y0, y1 in pairwise(rows):
        for x0, x1 in pairwise(columns):
            box = Box(max(0, y0 - overlap), max(0, x0 - overlap), y1, x1)
            write(folder / f"t_{y0:03d}_{x0:03d}.tif", box, **profile)
    return folder


def as_vrt(folder: Path) -> Path:
    """Write a VRT of the files of a folder of `cut` at their places, beside the folder, as gdalbuildvrt does."""
    bands = ["", "", ""]
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as file:
            y, x = round((3000000 - file.transform.f) * 2), round((file.transform.c - 400000) * 2)
            size = f'xSize="{file.width}" ySize="{file.height}"'
        name = f'<SourceFilename relativeToVRT="1">{folder.name}/{path.name}</SourceFilename>'
        boxes = f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{x}" yOff="{y}" {size}/>'
        for k in range(3):
            bands[k] += f"<SimpleSource>{name}<SourceBand>{k + 1}</SourceBand>{boxes}</SimpleSource>"
    drawn = "".join(
        f'<VRTRasterBand dataType="Byte" band="{k}">{band}</VRTRasterBand>' for k, band in enumerate(bands, 1)
    )
    place = f"<SRS>{CRS}</SRS><GeoTransform>400000, 0.5, 0, 3000000, 0, -0.5</GeoTransform>"
    made = folder.with_suffix(".vrt")
    size = f'rasterXSize="{WHOLE.width}" rasterYSize="{WHOLE.height}"'
    made.write_text(f"<VRTDataset {size}>{place}{drawn}</VRTDataset>")
    return made
