"""Objects for QuPath: its own fields, short coordinates in its own frame."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.material import Material
from tilepipe.products.outlines import outlines
from tilepipe.products.polygons import write_geojson
from tilepipe.products.qupath import TOLERANCE, write_qupath
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution

LEGEND = Legend("nuclei", ("background", "nucleus"), ((9, 9, 9), (213, 94, 0)), 255)
Y, X = np.mgrid[:60, :90]
LABELS = (((Y - 20) ** 2 + (X - 20) ** 2 < 150) | ((Y - 35) ** 2 + (X - 60) ** 2 < 300)).astype(np.uint8)
LABELS[33:37, 58:62] = 0
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 60, 90), dtype=np.uint8)


def written(folder: Path, labels: Any = LABELS, options: VectorOptions | None = None, **fields: Any) -> list[Any]:
    made = label_map_of(labels, LEGEND, resolution=Resolution(0.5, 0.5, "um"), **fields)
    image = ArraySource(np.pad(PIXELS, [(0, 0), *((start, 0) for start in made.origin)]))
    write_qupath(Material.of({"labels": made}, image, options=options or VectorOptions()), folder / "a.qupath.geojson")
    found: list[Any] = json.loads((folder / "a.qupath.geojson").read_text())["features"]
    return found


def test_objects_are_detections_with_measurements(tmp_path: Path) -> None:
    one, _ = written(tmp_path)
    assert one["properties"] == {
        "objectType": "detection",
        "name": "nucleus 1",
        "classification": {"name": "nucleus", "color": [213, 94, 0]},
        "isLocked": True,
        "measurements": one["properties"]["measurements"],
    }
    figures = one["properties"]["measurements"]
    assert list(figures) == [
        "Area µm^2", "Perimeter µm", "Diameter µm", "Eccentricity", "Solidity", "Band 1: Mean", "Band 2: Mean",
        "Band 3: Mean",
    ]  # fmt: skip
    mask = LABELS.astype(bool) & (X < 40)
    assert figures["Area µm^2"] == pytest.approx(mask.sum() / 4, rel=1e-3)
    assert figures["Band 2: Mean"] == pytest.approx(PIXELS[1][mask].mean(), rel=1e-3)


def test_annotations_are_asked_for(tmp_path: Path) -> None:
    kinds = {one["properties"]["objectType"] for one in written(tmp_path, options=VectorOptions(annotations=True))}
    assert kinds == {"annotation"}


@pytest.mark.parametrize("seed", range(5))
def test_outlines_are_short_valid_and_near_those_of_the_pixels(tmp_path: Path, seed: int) -> None:
    noise = np.kron(np.random.default_rng(seed).random((15, 15)) < 0.5, np.ones((4, 6))).astype(np.uint8)
    for labels in (LABELS, noise):
        (tmp_path / "a.qupath.geojson").unlink(missing_ok=True)
        found = [shapely.geometry.shape(one["geometry"]) for one in written(tmp_path, labels)]
        traced = [shapely.Polygon(one.rings[0], one.rings[1:]) for one in outlines(label_map_of(labels, LEGEND))]
        assert len(found) == len(traced)
        assert all(one.is_valid for one in found)
        for one, other in zip(found, traced, strict=True):
            assert one.hausdorff_distance(other) <= TOLERANCE + 1e-9
            assert len(one.interiors) == len(other.interiors)
            assert len(shapely.get_coordinates(one)) <= len(shapely.get_coordinates(other))
    text = (tmp_path / "a.qupath.geojson").read_text()
    assert not re.search(r"\d\.\d", text.split('"coordinates":')[1].split("]]]")[0]), "corners are whole numbers"


def test_coordinates_begin_at_the_corner_of_the_bounds(tmp_path: Path) -> None:
    """Checked against the labels' own canvas: QuPath crops a slide to its bounds."""
    made: dict[str, Any] = {"origin": (500, 700), "frame": (400, 650)}
    one, _ = written(tmp_path, **made)
    assert np.min(one["geometry"]["coordinates"][0], 0).tolist() == [50 + 8, 100 + 8]
    write_geojson(label_map_of(LABELS, LEGEND, **made), tmp_path / "b.geojson")
    (plain, _) = json.loads((tmp_path / "b.geojson").read_text())["features"]
    assert np.min(plain["geometry"]["coordinates"][0], 0).tolist() == [50 + 8, 100 + 8]


def test_the_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path)
    first = (tmp_path / "a.qupath.geojson").read_bytes()
    (tmp_path / "a.qupath.geojson").unlink()
    written(tmp_path)
    assert (tmp_path / "a.qupath.geojson").read_bytes() == first
    assert len(first) / 2 < 900, "bytes of a nucleus"
