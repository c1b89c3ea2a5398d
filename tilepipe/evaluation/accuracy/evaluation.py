"""This module defines the figures of one comparison, as JSON and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from html import escape
from math import isnan

import numpy as np
from numpy.typing import NDArray

from tilepipe.evaluation.accuracy.terms import Terms
from tilepipe.evaluation.metrics.boundary import Boundary
from tilepipe.evaluation.metrics.checkerboard import Checkerboard
from tilepipe.evaluation.metrics.coarseness import Coarseness
from tilepipe.evaluation.metrics.components import Components
from tilepipe.evaluation.metrics.confusion import Confusion, mean_present
from tilepipe.evaluation.metrics.objects import ObjectScores
from tilepipe.evaluation.metrics.seams import SeamExcess
from tilepipe.products.label_map import background_of
from tilepipe.text import JSON, table_lines


@dataclass(frozen=True, eq=False)
class Overview:
    """The data that the page draws; they are not part of the figures."""

    cell: int
    """Side of a cell, the square that one value stands for (pixels)."""
    wrong: NDArray[np.int64]
    """Number of wrongly labelled pixels per cell, (rows, columns)."""
    scored: NDArray[np.int64]
    """Number of scored pixels per cell, (rows, columns)."""
    spectra: tuple[tuple[int, NDArray[np.float64], NDArray[np.float64]], ...]
    """Spectra (stride, power of the prediction, power of the truth), with the zero frequency first."""
    samples: NDArray[np.uint16]
    """Labels in the middle of each cell, (2, rows, columns): of the prediction and of the truth. The number of classes
    stands for no label."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The figures of one comparison.

    All but checkerboard, variation of information and the mean IoU of objects follow from integer counts.
    """

    terms: Terms
    """Terms of the comparison: classes, ignored value, widths."""
    shape: tuple[int, int]
    """Shape (height, width) of both maps in pixels."""
    confusion: Confusion
    """Number of pixels by true and predicted class."""
    boundaries: tuple[Boundary, ...]
    """Outline counts at each of `terms.widths`."""
    components: Components
    """Figures of connected components (fragments)."""
    objects: tuple[ObjectScores, ...]
    """Scores of the connected components of each class as objects, which match above an IoU of 0.5; those of the
    background mean nothing."""
    coarseness: Coarseness
    """Figures of the loss against the ideal map at `terms.feature_stride`."""
    checkerboards: tuple[tuple[Checkerboard, Checkerboard], ...]
    """Checkerboards (prediction, truth) for each stride that the map is large enough for."""
    seams: SeamExcess | None
    """Result of the comb test; None if no tile size was given."""
    # Two arrays have no single answer to whether they are equal, so this takes no part in comparisons.
    overview: Overview = field(repr=False, compare=False)
    """Data for the page."""
    notes: tuple[str, ...] = ()
    """Sentences about what was compared, if it is not all of both maps."""

    def __repr__(self) -> str:
        scores = zip(self.terms.classes, self.confusion.iou, strict=True)
        return f"<Evaluation of {self.confusion.pixels} px: IoU {', '.join(f'{n} {figure(iou)}' for n, iou in scores)}>"

    def __str__(self) -> str:
        """Return the table."""
        return self.table()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    @property
    def boundary(self) -> Boundary:
        """Outline counts at the width asked for."""
        return next(b for b in self.boundaries if b.width == self.terms.width)

    def to_json(self) -> JSON:
        """Return the figures as JSON types; a figure that is not defined (its class is in neither map) is None."""
        c, trivial = self.confusion, self.confusion.majority()
        figures = {
            "terms": asdict(self.terms),
            "shape": list(self.shape),
            "notes": list(self.notes),
            "pixels": c.pixels,
            "unpredicted": c.unpredicted,
            "accuracy": c.accuracy,
            "mean_iou": c.mean_iou,
            "mean_dice": c.mean_dice,
            "majority_baseline": {"accuracy": trivial.accuracy, "mean_iou": trivial.mean_iou},
            "classes": self._per_class(),
            "confusion": c.counts,
            "boundary": [_boundary(b) for b in self.boundaries],
            "components": asdict(self.components)
            | {"ratio": self.components.ratio, "small_share": self.components.small_share},
            "coarseness": asdict(self.coarseness) | {"loss": self.coarseness.loss},
            "checkerboard": [
                {"prediction": asdict(p) | {"flagged": p.flagged}, "truth": asdict(t) | {"flagged": t.flagged}}
                for p, t in self.checkerboards
            ],
            "seams": asdict(self.seams) | {"found": self.seams.found, "says": str(self.seams)} if self.seams else None,
        }
        return {name: plain(figure) for name, figure in figures.items()}

    def _per_class(self) -> list[JSON]:
        c, b = self.confusion, self.boundary
        # The background is one wide component with holes; whether it matches says nothing about objects.
        nothing, background = float("nan"), background_of(self.terms.classes)
        objects = [None if k == background else scores for k, scores in enumerate(self.objects)]
        columns = {
            "name": self.terms.classes,
            "iou": c.iou,
            "dice": c.dice,
            "object_f1": [scores.f1 if scores else nothing for scores in objects],
            "object_pq": [scores.panoptic_quality if scores else nothing for scores in objects],
            "precision": c.precision,
            "recall": c.recall,
            "boundary_f1": b.f1,
            "boundary_iou": b.iou,
            "trimap_iou": b.trimap.iou,
            "true_pixels": tuple(int(n) for n in c.matrix.sum(1)),
            "objects": [asdict(scores) if scores else None for scores in objects],
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def sentences(self) -> list[str]:
        """Return the figures that are not per class, as one line of text each."""
        c, n, k = self.confusion, self.components, self.coarseness
        # An accuracy says little if one class covers most of the image; the map of this class alone shows how little.
        trivial = c.majority()
        lines = [
            f"{c.pixels:,} pixels scored of {self.shape[0]} x {self.shape[1]}; {c.unpredicted:,} without prediction",
            f"true pixels of each class: {self._truth()}",
            f"accuracy {figure(c.accuracy)}, mean IoU {figure(c.mean_iou)}, mean Dice {figure(c.mean_dice)}",
            f"the commonest class everywhere: accuracy {figure(trivial.accuracy)}, mean IoU {figure(trivial.mean_iou)}",
            f"objects (4-connected pixels of one class, IoU above 0.5): {self._objects() or 'none'}",
            f"components: {n.predicted:,} predicted, {n.true:,} true, ratio {n.ratio:.2f}; "
            f"{figure(n.small_share)} of the predicted under {n.smallest} px",
            f"variation of information: split {n.split:.3f}, merge {n.merge:.3f} bits",
            f"coarseness at stride {k.stride}: ideal mean IoU {figure(k.ideal_iou)}, loss {k.loss:+.3f}; "
            f"boundary F1 rises {k.f1_slope:.3f} per px from 1 to 8 px",
        ]
        for p, t in self.checkerboards:
            # A pattern that the truth has too is no fault of the network.
            mark = ": a checkerboard" if p.flagged and not t.flagged else ""
            lines.append(
                f"checkerboard of stride {p.stride}: peak {p.peak_db:+.1f} dB (truth {t.peak_db:+.1f}), "
                f"line {p.line_db:+.1f} dB (truth {t.line_db:+.1f}){mark}"
            )
        return lines + ([f"seam test: {self.seams}"] if self.seams else [])

    def _truth(self) -> str:
        """Return the number of scored pixels of each class of the truth: without such pixels, the truth cannot judge a
        class."""
        counts = self.confusion.matrix.sum(axis=1)
        return ", ".join(f"{name} {int(n):,}" for name, n in zip(self.terms.classes, counts, strict=True))

    def _objects(self) -> str:
        """Return how many objects of each class match, for the classes that have objects."""
        background = background_of(self.terms.classes)
        return "; ".join(
            f"{name} {found.matched:,} match of {found.predicted:,} predicted and {found.true:,} true"
            for k, (name, found) in enumerate(zip(self.terms.classes, self.objects, strict=True))
            if k != background and found.predicted + found.true
        )

    def first_rows(self) -> list[list[str]]:
        """Return the table of what people ask first: a heading, one row per class, and the means."""
        c, total = self.confusion, max(self.confusion.pixels, 1)
        per_class = self._per_class()
        body = [
            [
                row["name"],
                *(figure(row[key]) for key in ("iou", "dice", "object_f1")),
                f"{row['true_pixels'] / total:.1%}",
            ]
            for row in per_class
        ]
        f1 = mean_present(tuple(row["object_f1"] for row in per_class))
        return [
            ["class", "IoU", "Dice", "object F1", "share"],
            *body,
            ["mean", figure(c.mean_iou), figure(c.mean_dice), figure(f1), ""],
        ]

    def rows(self) -> list[list[str]]:
        """Return the table of the other figures per class: a heading, then one row per class."""
        width = f"{self.terms.width:g} px"
        keys = ("object_pq", "precision", "recall", "boundary_f1", "boundary_iou", "trimap_iou")
        head = ["class", "PQ", "precision", "recall", f"BF1 {width}", f"BIoU {width}", f"trimap {width}"]
        return [head, *([row["name"], *(figure(row[key]) for key in keys)] for row in self._per_class())]

    def table(self) -> str:
        """Return the figures as text to print: first IoU, Dice and object F1, then the others."""
        first = [*table_lines(self.first_rows()), *self.notes, self.sentences()[0]]
        return "\n".join([*first, "", *table_lines(self.rows()), "", *self.sentences()[1:]])


def _boundary(b: Boundary) -> JSON:
    counts = {key: value for key, value in asdict(b).items() if key != "trimap"}
    means = {"mean_f1": b.mean_f1, "mean_iou": b.mean_iou, "trimap_mean_iou": b.trimap.mean_iou}
    return counts | means | {"f1": b.f1, "iou": b.iou, "trimap_iou": b.trimap.iou}


def figure(value: float) -> str:
    """Return a figure with four digits; '-' for nan."""
    return "-" if isnan(value) else f"{value:.4f}"


def plain(value: object) -> object:
    """Return `value` with tuples as lists and nan as None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    # JSON has no nan.
    return None if isinstance(value, float) and isnan(value) else value
