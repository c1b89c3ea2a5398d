"""This module compares a prediction with the truth, from files, arrays or label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

from tilepipe.errors import InputError, UsageError, public
from tilepipe.evaluation.accuracy.class_map import ClassMap, Map, RawMap, class_table, open_raw
from tilepipe.evaluation.accuracy.common_part import common_part
from tilepipe.evaluation.accuracy.evaluation import Evaluation
from tilepipe.evaluation.accuracy.evaluations import Evaluations
from tilepipe.evaluation.accuracy.folders import is_folder, pairs_of
from tilepipe.evaluation.accuracy.page import write_page
from tilepipe.evaluation.accuracy.polygon_truth import polygon_truth
from tilepipe.evaluation.accuracy.stream import evaluate as compare
from tilepipe.evaluation.accuracy.terms import Terms
from tilepipe.events import Event, Listener, silent
from tilepipe.paths import labels_file, refuse_inputs, refuse_place
from tilepipe.sources.geo_labels import ClassRules
from tilepipe.sources.geo_vectors import is_vector
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
    attribute: str
    """Attribute of polygons that holds the class, by name or as a number; a polygon without one is of class 1."""
    layer: str
    """Layer of a vector file that has several."""
    area: str
    """Class of the polygons that bound what is scored; without it, the truth outside all polygons is class 0."""


@public
def evaluate(
    prediction: Map, truth: Map, *, listener: Listener = silent, **asked: Unpack[MapOptions]
) -> Evaluation | Evaluations:
    """Compare a label map with the truth, or the label maps of a folder with those of another; none is read whole.

    The truth may be a label map, or polygons in a file of any format that training reads. If two maps lie on one
    lattice of pixels and cover different ground, the part that both cover is compared, and the result says so.

    Args:
        prediction: A path, labels, a source of one band, or an array of whole numbers, (height, width). A folder stands
            for the label maps in it.
        truth: The same, or the path of a vector file or COCO JSON. It may come from another program. The files of two
            folders are paired by name: `a.labels.tif` and `a.tif`, `a_label.png`, `a_mask.png` or `a.gpkg`.
        listener: Is called with each `Event`: how many blocks are done.
        **asked: See `MapOptions`: class names, values of the truth, the value that is not scored, a page to write.

    Returns:
        The figures. `.table()` is text to print, and `.to_json()` holds all figures as JSON types. Of folders they are
        sums over all pixels and objects, means over the pairs, and the figures of each pair.

    Raises:
        InputError: The maps share no pixel, or do not lie on one grid, or a value is no class; no file of two folders
            has a partner.
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
    if is_folder(prediction) or is_folder(truth):
        if asked.get("page"):
            raise UsageError("a page shows one pair of maps; leave out `page`, or name two files")
        found = pairs_of(prediction, truth)
        scored = []
        for number, (name, one, two) in enumerate(found.pairs):
            listener(Event("evaluate", number, len(found.pairs), name))
            scored.append((name, _compared(one, two, silent, asked)))
        listener(Event("evaluate", len(found.pairs), len(found.pairs)))
        return Evaluations.of(scored, found.notes)
    return _compared(prediction, truth, listener, asked)


def _compared(prediction: Map, truth: Map, listener: Listener, asked: MapOptions) -> Evaluation:
    """Compare one pair of maps."""
    prediction, truth = (labels_file(what) if isinstance(what, str | Path) else what for what in (prediction, truth))
    # Large maps take long to compare, so what would keep the page from being written is found first.
    page = Path(asked["page"]) if asked.get("page") else None
    if page is not None:
        refuse_inputs([page], [Path(what) for what in (prediction, truth) if isinstance(what, str | Path)])
        refuse_place(page, overwrite=bool(asked.get("overwrite")))
    if isinstance(prediction, Path) and is_vector(prediction):
        raise InputError(f"{prediction} holds polygons; give the label map that they were made of as the prediction")
    # None is an answer here (every value is scored), so only an option that is missing takes the default.
    ignore = asked.get("ignore", 255)
    first = open_raw(prediction, {255})
    drawn = isinstance(truth, Path) and is_vector(truth)
    second = None if drawn else open_raw(truth, set() if ignore is None else {ignore})
    classes = tuple(asked.get("classes") or first.classes or (second.classes if second else ()))
    if not classes:
        raise UsageError(
            f"{first.name} does not name its classes; name them all with `classes`, in order of the values"
        )
    if second is None:
        assert isinstance(truth, Path)
        second = polygon_truth(truth, first, _rules(classes, asked))
    elif drawing := [name for name in ("attribute", "layer", "area") if name in asked]:
        raise UsageError(f"{second.name} holds no polygons; leave out `{drawing[0]}`")
    first, second, shared = common_part(first, second)
    _check_nodata(first, second, len(classes), asked)
    # Numbers in the attribute of polygons were brought to classes when the file was read.
    maps = _by_class(first, second, len(classes), None if drawn else asked.get("values"))
    nodata = maps[0].nodata
    result = compare(*maps, Terms(classes, ignore=nodata, nodata=nodata, width=asked.get("width", 2.0)), listener)
    result = replace(result, notes=(shared,) if shared else ())
    if not drawn:
        _check_ignored(result, second, asked)
    if page is not None:
        write_page(result, *maps, page)
    return result


def _by_class(
    first: RawMap, second: RawMap, classes: int, values: Mapping[int, int] | None
) -> tuple[ClassMap, ClassMap]:
    """Return prediction and truth as numbers of classes; `values` gives the class of each value of the truth."""
    # No class may have the number that stands for no label.
    nodata = 255 if classes <= 255 else 65535
    own = class_table(None, first.without_label, nodata, classes)
    said = class_table(values, second.without_label, nodata, classes)
    named = "say of which class it is with `values`, or leave it out with `ignore`"
    return (
        ClassMap(first, own, nodata, "name all classes with `classes`"),
        ClassMap(second, said, nodata, named, second.nodata in (values or {})),
    )


def _rules(classes: tuple[str, ...], asked: MapOptions) -> ClassRules:
    ignore = asked.get("ignore")
    return ClassRules(
        classes, asked.get("attribute"), asked.get("area"), asked.get("layer"), asked.get("values"),
        ignore=() if ignore is None else (ignore,),
    )  # fmt: skip


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
