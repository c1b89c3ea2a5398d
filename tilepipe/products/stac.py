"""A STAC item (1.1.0) describes the files of a run: where they lie on the earth, their classes, what they are made of.

The extensions are projection 2.0.0, classification 2.0.0 and processing 1.2.0. The extension MLM (1.5) says that an
item which declares it holds a model; files that a model made, and a link to it with `rel` derived_from, have `mlm:name`
instead. So that is what the item has.
"""

from __future__ import annotations

import json
import mimetypes
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath
from urllib.parse import quote

from tilepipe.products.footprint import bounds_of, footprint_of
from tilepipe.products.formats import STAC
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.material import Asset, Material, model_name, models_of
from tilepipe.products.numbers import Numbers
from tilepipe.products.placing import crs_fields, is_placed
from tilepipe.products.staging import staged
from tilepipe.sources.acquired import acquired_of
from tilepipe.text import JSON, json_of
from tilepipe.tiling.uncertainty import PROBABILITIES, STEPS, VOID

VERSION = "1.1.0"
SCHEMA = "https://stac-extensions.github.io/{}/schema.json"
PROJECTION, CLASSIFICATION, PROCESSING = (
    SCHEMA.format(name) for name in ("projection/v2.0.0", "classification/v2.0.0", "processing/v1.2.0")
)
RASTERS = {"cog", "ome-zarr", "ome-tiff"}
"""Products whose pixels are those of the label map."""
EARLIEST = "1900-01-01T00:00:00Z"
"""First time of an image that does not say when it was taken; STAC asks for a time or for a first and a last one."""


def write_stac(material: Material, path: Path) -> None:
    """Write the STAC item of the labels, and of the files that the material names, at the new path `path`.

    Addresses of files are relative to the item. What the item cannot say is noted in the material. Raises
    `StorageError` if the disk is full, `UsageError` if `path` exists.
    """
    # The run may have written an item too; what is written now comes last.
    own = next((asset.path for asset in reversed(material.assets) if asset.product == STAC), path)
    text = json.dumps(item_of(material, own), ensure_ascii=False, indent=2, allow_nan=False)
    with staged(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def parse_stac(path: Path) -> None:
    """Read an item from end to end. Raises `ValueError` or `OSError` if it is none."""
    item = json_of(path.read_bytes())
    if not (isinstance(item, dict) and item.get("type") == "Feature" and "stac_version" in item):
        raise ValueError(f"{path} is no STAC item")


def item_of(material: Material, path: Path) -> JSON:
    """Return the item that stands at `path`."""
    labels, facts, notes = material.maps[LABELS], material.facts, material.notes
    footprint = footprint_of(labels)
    if footprint is None:
        notes.append(f"the labels have {_why_nowhere(labels)}, so the item has no geometry")
    created = str(facts.get("ended", "")).replace("+00:00", "Z") or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    acquired = str(facts.get("acquired", "")) or (acquired_of(material.image) if material.image else "")
    if not acquired:
        notes.append(
            f"nothing says when the image was taken, so its datetime is null, and the item spans {EARLIEST} to "
            f"{created}; "
            "a STAC item beside the image that names its file and its datetime would say it"
        )
    first, _, last = (acquired or f"{EARLIEST}/{created}").partition("/")
    when = {"datetime": None, "start_datetime": first, "end_datetime": last} if last else {"datetime": first}
    properties = {**when, "created": created, **_projection(labels), **_processing(facts)}
    if labels.resolution is not None and labels.resolution.unit == "m":
        properties["gsd"] = float(f"{min(labels.resolution.y, labels.resolution.x):.6g}")
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [PROJECTION, CLASSIFICATION, PROCESSING],
        "id": path.name.removesuffix(".item.json"),
        "geometry": footprint,
        **({"bbox": bounds_of(footprint)} if footprint else {}),
        "properties": properties,
        "links": list(_links(facts, path.parent)),
        "assets": dict(_assets(material, path.parent)),
    }


def _why_nowhere(labels: LabelMap) -> str:
    known = labels.georeference
    if known is None:
        return "no position on the earth"
    if not is_placed(labels):
        return "neither a transform nor control points"
    return "no coordinate reference system" if known.crs is None else "corners outside longitude and latitude"


def _projection(labels: LabelMap) -> JSON:
    """Return the fields of the extension projection that hold for all files."""
    known = labels.georeference
    if known is None or known.crs is None:
        return {"proj:code": None}
    return {"proj:code": None, **crs_fields(known.crs)}


def _grid(labels: LabelMap) -> JSON:
    """Return the fields of the extension projection that hold for files with the pixels of the label map."""
    known = labels.georeference
    grid: JSON = {"proj:shape": list(labels.shape)}
    if known is None or known.transform is None:
        return grid
    a, b, c, d, e, f = known.transform
    height, width = labels.shape
    corners = [[a * x + b * y + c, d * x + e * y + f] for x, y in ((0, height), (width, height), (width, 0), (0, 0))]
    return {
        **grid,
        "proj:transform": [a, b, c, d, e, f],
        "proj:bbox": [*map(min, zip(*corners, strict=True)), *map(max, zip(*corners, strict=True))],
        "proj:geometry": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
    }


def _processing(facts: JSON) -> JSON:
    """Return the fields of the extension processing: model output (L4), how it was made, by which software."""
    model = model_name(models_of(facts))
    told = [f"Labels by the model {model}." if model else "", str(facts.get("plain", ""))]
    lineage = " ".join(text for text in told if text)
    software = {str(name): str(version) for name, version in facts.get("versions", {}).items()}
    weights = software.pop("weights", "")
    return {
        "processing:level": "L4",
        **({"processing:lineage": lineage} if lineage else {}),
        **({"processing:software": software} if software else {}),
        **({"tilepipe:weights_sha256": weights} if weights else {}),
        **({"tilepipe:run_key": str(facts["key"])} if facts.get("key") else {}),
    }


def _links(facts: JSON, folder: Path) -> Iterator[JSON]:
    """Yield links to the image, and to the model that made the labels of it."""
    source = str(facts.get("source", ""))
    if source and source != "array":
        yield {"rel": "derived_from", **_file(source, folder), "title": f"image {PurePath(source).name}"}
    # A model that comes with tilepipe has a name and no path; assets name it too.
    for model in filter(os.path.isabs, models_of(facts)):
        card = Path(model) / "model.json"
        place = _file(str(card if card.exists() else model), folder)
        title = f"model {PurePath(model).name}"
        yield {
            "rel": "derived_from",
            **place,
            "title": title,
            "mlm:name": model_name([model]),
            "processing:level": "L4",
        }


def _file(path: str, folder: Path) -> JSON:
    """Return address and media type of a file, or of whatever else a name stands for, as seen from a folder."""
    kind = mimetypes.guess_type(path)[0]
    return {"href": _href(Path(path), folder) if os.path.isabs(path) else path, **({"type": kind} if kind else {})}


def _href(path: Path, folder: Path) -> str:
    address = quote(Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix())
    return address if address.startswith("../") else f"./{address}"


def _assets(material: Material, folder: Path) -> Iterator[tuple[str, JSON]]:
    """Yield the files by a key, except for the item itself; labels have the name of their format, layers their own."""
    labels, numbers, model = material.maps[LABELS], material.numbers(), model_name(models_of(material.facts))
    for asset in material.assets:
        if asset.product == STAC:
            continue
        fields: JSON = {
            "href": _href(asset.path, folder),
            "type": asset.media,
            "title": asset.path.name,
            "roles": list(asset.roles),
        }
        if model and "data" in asset.roles:
            fields |= {"mlm:name": model, "processing:level": "L4"}
        if asset.product in RASTERS or asset.content == PROBABILITIES:
            fields |= _grid(labels) | _band(asset, material, numbers)
        own = asset.content in (LABELS, PROBABILITIES)
        yield (asset.product if own else f"{asset.content}-{asset.product}"), fields


def _band(asset: Asset, material: Material, numbers: Numbers) -> JSON:
    """Return what the bands of a raster hold: their type, their nodata value, their classes or their meaning."""
    if asset.content == PROBABILITIES and (planes := material.probabilities):
        step = 1 / STEPS
        bands = [{"name": plane.legend.name} for plane in planes]
        said = f"probability of each class; a value times {step!r}"
        return {"data_type": planes[0].dtype.name, "nodata": VOID, "bands": bands, "description": said}
    shown = material.maps.get(asset.content)
    if shown is None:
        return {}
    legend = shown.legend
    band: JSON = {"data_type": shown.dtype.name, "nodata": legend.nodata, "bands": [{"name": legend.name}]}
    if legend.measure is not None:
        return {**band, "description": f"{legend.measure.meaning}; a value times {legend.measure.step!r}"}
    rows = [
        {
            "value": one.value,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", one.name).strip("-") or f"class-{one.value}",
            "title": one.name,
            "color_hint": "{:02X}{:02X}{:02X}".format(*legend.palette[one.value]),
            "percentage": round(100 * one.share, 4),
            "count": one.pixels,
        }
        for one in numbers.classes
    ]
    void = {"value": legend.nodata, "name": "nodata", "nodata": True, "count": numbers.nodata}
    return {**band, "classification:classes": [*rows, void]}
