"""Scene: an image and its labels at the training resolution, both read by box, of any size.

Labels lie on the image's full-resolution pixels; at another resolution each pixel takes the label under its centre.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Source, read_reflected
from tilepipe.sources.open import open_source
from tilepipe.sources.resample import Resampled, at_resolution
from tilepipe.train.config import Scenes, TrainConfig

IGNORE = -1
UNKNOWN = -2
HELD_VALUES = 64 << 20
"""Images with at most this many values (pixels x bands) at the training resolution are held in memory."""
VECTORS = (".geojson", ".json")
ReadLabels = Callable[[Box], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Scene:
    """One image with labels, confined to a window; boxes are relative to the window's corner."""

    name: str
    """Path of the image."""
    source: Source
    """The image at the training resolution, whole."""
    window: Box
    """Part of `source` that is trained on or scored."""
    full: Box
    """The same part in full-resolution pixels."""
    labels: ReadLabels
    """Classes of a box of full-resolution pixels inside the image, (height, width) int64, -1 to ignore."""

    def image(self, box: Box) -> NDArray[Any]:
        """Return pixels (C, box.height, box.width); outside the window they mirror it, so nothing beyond is seen."""
        y, x = self.window.y0, self.window.x0
        return read_reflected(box, *self.window.shape, lambda inside: self.source.read(inside.shift(y, x)))

    def label(self, box: Box) -> NDArray[np.int64]:
        """Return classes (box.height, box.width) int64; -1 outside the window, where ignored and where not valid."""
        result = np.full(box.shape, IGNORE, np.int64)
        inside = box & Box.of_shape(*self.window.shape)
        if inside is not None:
            part = inside.shift(self.window.y0, self.window.x0)
            found = self._nearest(part)
            valid = self.source.valid(part)
            result[inside.slices_in(box)] = found if valid is None else np.where(valid, found, IGNORE)
        return result

    def _nearest(self, box: Box) -> NDArray[np.int64]:
        """Return the label under the centre of each pixel of `box` of the training grid."""
        (rows, columns), (y, x) = self.scale, (np.arange(box.y0, box.y1), np.arange(box.x0, box.x1))
        y, x = ((y + 0.5) * rows).astype(np.intp), ((x + 0.5) * columns).astype(np.intp)
        hull = Box(int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1)
        return self.labels(hull)[(y - hull.y0)[:, None], (x - hull.x0)[None]]

    @property
    def scale(self) -> tuple[float, float]:
        """(y, x) full-resolution pixels per pixel of the training grid."""
        return self.source.scale if isinstance(self.source, Resampled) else (1.0, 1.0)


def open_scenes(entries: tuple[Scenes, ...], config: TrainConfig) -> list[Scene]:
    """Open all scenes of a configuration, in the order of their names. Raises `InputError`, `UsageError`."""
    return [_open(entry, image, label, config) for entry in entries for image, label in pairs(entry)]


def pairs(entry: Scenes) -> list[tuple[Path, Path]]:
    """Return the (image, label) files that an entry names. Raises `InputError` where one is not there."""
    pattern = Path(entry.image)
    images = sorted(pattern.parent.glob(pattern.name)) if set("*?") & set(pattern.name) else [pattern]
    found = [(image, _label_path(entry.label, image)) for image in images]
    labels = {label for _, label in found}  # a label raster may match the pattern too
    found = [(image, label) for image, label in found if image not in labels]
    missing = next((path for pair in found for path in pair if not path.exists()), None)
    if missing or not found:
        raise InputError(
            f"{missing or entry.image} does not exist; paths in a training configuration start from the working "
            "directory, and TILEPIPE_DATA names the folder of the data"
        )
    return found


def _label_path(label: str, image: Path) -> Path:
    path = Path(label.replace("{stem}", image.stem))
    return image.with_name(path.name) if path.parent == Path(".") else path


def _open(entry: Scenes, image: Path, label: Path, config: TrainConfig) -> Scene:
    full = _image(image, entry, config.unit)
    _, height, width = full.shape
    source = full if config.resolution is None else at_resolution(full, config.resolution, config.unit)
    labels = _vectors(label, full, entry, config) if label.suffix in VECTORS else _raster(label, full, config)
    rows, columns = entry.rows or (0, height), entry.columns or (0, width)
    window = Box(rows[0], columns[0], rows[1], columns[1])
    if not Box.of_shape(height, width).contains(window):
        raise UsageError(f"{image}: rows {rows}, columns {columns} are not inside its {height} x {width} pixels")
    return Scene(str(image), source, _scaled(window, source, full), window, labels)


def _image(path: Path, entry: Scenes, unit: str) -> Source:
    if entry.resolution is None:
        return open_source(path)
    return open_source(path, **{"mpp" if unit == "um" else "resolution": entry.resolution})


def _scaled(window: Box, source: Source, full: Source) -> Box:
    """Return the pixels of `source` that lie wholly in `window` of `full`."""
    (_, height, width), (_, full_height, full_width) = source.shape, full.shape
    y, x = height / full_height, width / full_width
    return Box(math.ceil(window.y0 * y), math.ceil(window.x0 * x), int(window.y1 * y), int(window.x1 * x))


def held(scene: Scene) -> Scene:
    """Return the scene with its image in memory where it is small, so that crops need no decoding."""
    if scene.source.shape[0] * scene.window.area > HELD_VALUES:
        return scene
    image = scene.source.read(scene.window)
    labels = scene.label(Box.of_shape(*scene.window.shape))
    window = Box.of_shape(*scene.window.shape)
    return Scene(scene.name, ArraySource(image, name=scene.name), window, window, lambda b: _crop(labels, b))


def _crop(array: NDArray[np.int64], box: Box) -> NDArray[np.int64]:
    return array[box.y0 : box.y1, box.x0 : box.x1]


def _raster(path: Path, image: Source, config: TrainConfig) -> ReadLabels:
    tiff = {"allow_driver": "GTiff"} if path.suffix.lower() in (".tif", ".tiff") else {}
    raster = open_source(path, allow_palette=True, **tiff)
    if raster.shape != (1, *image.shape[1:]) or raster.dtype.kind == "f":
        raise InputError(
            f"{path} is {raster.shape} {raster.dtype}, not one band of whole numbers on the {image.shape[1:]} pixels "
            f"of {image.name}; labels lie on the image's own grid"
        )

    def read(box: Box) -> NDArray[np.int64]:
        values, valid = raster.read(box)[0].astype(np.int64), raster.valid(box)
        ignored = np.isin(values, config.ignore) if valid is None else np.isin(values, config.ignore) | ~valid
        classes = _classes(values, config)
        unknown = (classes == UNKNOWN) & ~ignored
        if unknown.any():
            raise InputError(
                f"{path} holds the value {int(values[unknown][0])}, which is no class; "
                "name it under values, other or ignore"
            )
        return np.where(ignored, IGNORE, classes)

    return read


def _classes(values: NDArray[np.int64], config: TrainConfig) -> NDArray[np.int64]:
    known: Mapping[int, int] = config.values or {k: k for k in range(len(config.classes))}
    result = np.full(values.shape, UNKNOWN if config.other is None else config.other, np.int64)
    for value, of_class in known.items():
        result[values == value] = of_class
    return result


def _vectors(path: Path, image: Source, entry: Scenes, config: TrainConfig) -> ReadLabels:
    """Return a reader that burns polygons into pixels whose centre they contain, later ones over earlier ones."""
    known = image.georeference
    if known is not None and known.transform is None:
        raise InputError(f"{image.name} has ground control points only; rasterise {path} yourself and give the raster")
    shapes = _shapes(path, known.crs if known else None, entry, config)
    to_map = Affine(*known.transform) if known and known.transform else Affine.identity()
    extents = np.array([_extent(shape, ~to_map) for shape, _ in shapes]).reshape(-1, 4)

    def read(box: Box) -> NDArray[np.int64]:
        y0, x0, y1, x1 = extents.T
        near = np.flatnonzero((y0 <= box.y1) & (y1 >= box.y0) & (x0 <= box.x1) & (x1 >= box.x0))
        if not len(near):
            return np.zeros(box.shape, np.int64)
        a, b, c, d, e, f = to_map[:6]
        corner = Affine(a, b, a * box.x0 + b * box.y0 + c, d, e, d * box.x0 + e * box.y0 + f)
        burnt = rasterize([shapes[k] for k in near], box.shape, transform=corner, dtype="int32")
        return np.asarray(burnt, np.int64)

    return read


def _shapes(path: Path, crs: str | None, entry: Scenes, config: TrainConfig) -> list[tuple[dict[str, Any], int]]:
    """Return (geometry in the image's CRS or pixels, class) of each polygon; GeoJSON is lon/lat (RFC 7946)."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        features = document["features"] if isinstance(document, dict) else document
        found = [(f["geometry"], f.get("properties") or {}) for f in features if f.get("geometry")]
        stated = document.get("crs", {}).get("properties", {}).get("name") if isinstance(document, dict) else None
        polygons = [(g, _class_of(p, entry.attribute, path, config)) for g, p in found if "Polygon" in g["type"]]
        if crs is not None:
            polygons = [(transform_geom(stated or "OGC:CRS84", crs, g), k) for g, k in polygons]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a GeoJSON feature collection: {error!r}") from None
    return polygons


def _class_of(properties: Mapping[str, Any], attribute: str | None, path: Path, config: TrainConfig) -> int:
    if attribute is None:
        return 1
    name = properties.get(attribute)
    name = name.get("name") if isinstance(name, dict) else name  # QuPath: {"classification": {"name": ...}}
    if name not in config.classes:
        raise InputError(f"{path}: {attribute} is {name!r}, which is none of {', '.join(config.classes)}")
    return config.classes.index(name)


def _extent(geometry: Mapping[str, Any], to_pixels: Affine) -> tuple[float, float, float, float]:
    """Return (y0, x0, y1, x1) of a polygon in pixels."""
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    rings = [ring for part in parts for ring in part]
    x, y = np.array([point[:2] for ring in rings for point in ring]).T
    a, b, c, d, e, f = to_pixels[:6]
    x, y = a * x + b * y + c, d * x + e * y + f
    return float(y.min()), float(x.min()), float(y.max()), float(x.max())
