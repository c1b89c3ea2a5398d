"""This module compares a prediction with the truth, from files, arrays or label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from tilepipe.errors import InputError, UsageError, public
from tilepipe.evaluation.accuracy.class_map import ClassMap, Map, RawMap, class_table, open_raw
from tilepipe.evaluation.accuracy.evaluation import Evaluation
from tilepipe.evaluation.accuracy.page import write_page
from tilepipe.evaluation.accuracy.stream import evaluate as compare
from tilepipe.evaluation.accuracy.terms import Terms
from tilepipe.events import Listener, silent
from tilepipe.paths import labels_file, refuse_inputs
from tilepipe.sources.georeference import disagreement
from tilepipe.text import setting


class MapOptions(TypedDict, total=False):
    """The options of `evaluate`; each has a default."""

    classes: Sequence[str]
    """Class names by label value. By default they are taken from the prediction, if tilepipe made it."""
    ignore: int | None
    """Value of the truth that is not scored, 255 by default; None scores every value."""
    width: float
    """Width of boundary F1, Boundary IoU and trimap IoU (pixels); 2 by default."""
    values: Mapping[int, int]
    """Label value for each value of the truth; the same numbers by default."""
    page: str | Path
    """Path of an HTML page with pictures that is written."""
    overwrite: bool
    """Whether an existing page is replaced."""


@public
def evaluate(prediction: Map, truth: Map, *, listener: Listener = silent, **asked: Unpack[MapOptions]) -> Evaluation:
    """Compare a label map with the truth. Both lie on the same grid, and neither is read whole.

    Args:
        prediction: A path, labels, a source of one band, or an array of whole numbers, (height, width).
        truth: The same. It may come from another program.
        listener: Is called with each `Event`: how many blocks are done.
        **asked: See `MapOptions`: class names, values of the truth, the value that is not scored, a page to write.

    Returns:
        The figures. `.table()` is text to print, and `.to_json()` holds all figures as JSON types.

    Raises:
        InputError: The grids differ, or a value is no class.
        UsageError: No class is named, or the page exists.

    Example:
        >>> import numpy as np
        >>> import tilepipe as tp
        >>> truth = np.array([[0, 0, 1, 1]], np.uint8)
        >>> prediction = np.array([[0, 1, 1, 1]], np.uint8)
        >>> scores = tp.evaluate(prediction, truth, classes=["other", "forest"])
        >>> scores.confusion.accuracy, scores.confusion.iou[0]
        (0.75, 0.5)
    """
    if unknown := set(asked) - set(MapOptions.__annotations__):
        raise UsageError(f"setting {min(unknown)!r} is not known; use {', '.join(sorted(MapOptions.__annotations__))}")
    prediction, truth = (labels_file(what) if isinstance(what, str | Path) else what for what in (prediction, truth))
    # Large maps take long to compare, so what would keep the page from being written is found first.
    page = Path(asked["page"]) if asked.get("page") else None
    if page is not None:
        refuse_inputs([page], [Path(what) for what in (prediction, truth) if isinstance(what, str | Path)])
        _check_page(page, bool(asked.get("overwrite")))
    # None is an answer here (every value is scored), so only an option that is missing takes the default.
    ignore = asked.get("ignore", 255)
    first, second = open_raw(prediction, {255}), open_raw(truth, set() if ignore is None else {ignore})
    _check_grids(first, second)
    classes = tuple(asked.get("classes") or first.classes or second.classes)
    if not classes:
        raise UsageError(
            f"{first.name} does not name its classes; name them all with `classes`, in order of the values"
        )
    _check_nodata(first, second, len(classes), asked)
    # No class may have the number that stands for no label.
    nodata = 255 if len(classes) <= 255 else 65535
    said = class_table(asked.get("values"), second.without_label, nodata, len(classes))
    maps = (
        ClassMap(
            first,
            class_table(None, first.without_label, nodata, len(classes)),
            nodata,
            "name all classes with `classes`",
        ),
        ClassMap(
            second,
            said,
            nodata,
            "say of which class it is with `values`, or leave it out with `ignore`",
            second.nodata in (asked.get("values") or {}),
        ),
    )
    result = compare(*maps, Terms(classes, ignore=nodata, nodata=nodata, width=asked.get("width", 2.0)), listener)
    _check_ignored(result, second, asked)
    if page is not None:
        write_page(result, *maps, page)
    return result


def _check_nodata(first: RawMap, second: RawMap, classes: int, asked: MapOptions) -> None:
    """Raise `InputError` if a file declares the value of a class as nodata, and no option says which is right."""
    same = setting(values={k: k for k in range(classes)})
    for raw, remedy in (
        (first, f"If its pixels are of that class: gdal_edit.py -unsetnodata {first.name}"),
        (second, f"If its pixels are of that class, give {same}; if nobody labelled them, "),
    ):
        value = next((k for k in range(classes) if k == raw.nodata), None)
        told = raw is second and (value in (asked.get("values") or {}) or value == asked.get("ignore"))
        if value is not None and not told:
            end = setting(ignore=value) if raw is second else ""
            raise InputError(
                f"{raw.name} says that {value} is nodata, and {value} is the value of a class. {remedy}{end}"
            )


def _check_ignored(result: Evaluation, truth: RawMap, asked: MapOptions) -> None:
    """Raise `InputError` if the default ignored value is a whole class of the truth, as in a mask of 0 and 255."""
    counts = result.confusion.matrix.sum(axis=1)
    left_out = result.shape[0] * result.shape[1] - result.confusion.pixels - result.confusion.unpredicted
    if "ignore" in asked or asked.get("values") or not left_out or (counts > 0).sum() != 1 or len(counts) < 2:
        return
    only = int(counts.argmax())
    raise InputError(
        f"{truth.name} holds {counts[only]:,} pixels of class {only} ({result.terms.classes[only]!r}) and no other "
        f"class; {left_out:,} pixels are left out, as 255 is not scored. If 255 is a class: "
        f"{setting(values={only: only, 255: int(only == 0)})}; if nobody labelled those pixels: {setting(ignore=255)}"
    )


def _check_grids(first: RawMap, second: RawMap) -> None:
    if tuple(first.shape) != tuple(second.shape):
        sizes = [f"{raw.name} is {raw.shape[0]} x {raw.shape[1]} pixels" for raw in (first, second)]
        places = [raw.georeference.transform for raw in (first, second) if raw.georeference]
        where = f" (transforms {places[0]} and {places[1]})" if len(places) == 2 else ""
        raise InputError(f"{', '.join(sizes)}{where}; compare maps on one grid")
    if said := disagreement(first.georeference, second.georeference, *first.shape):
        raise InputError(f"{first.name} and {second.name} lie at different places: {said}; compare maps on one grid")


def _check_page(page: Path, overwrite: bool) -> None:
    if page.exists() and not overwrite:
        raise UsageError(f"{page} exists; use {setting(overwrite=True)} or another name")
    if not page.parent.is_dir():
        raise UsageError(f"folder {page.parent} does not exist; make it first")
