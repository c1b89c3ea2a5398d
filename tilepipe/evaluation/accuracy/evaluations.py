"""This module defines the figures of many comparisons: sums over all pixels and objects, and means over the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilepipe.errors import InputError
from tilepipe.evaluation.accuracy.evaluation import Evaluation, Overview, figure, plain
from tilepipe.evaluation.metrics.confusion import Confusion, mean_present
from tilepipe.evaluation.metrics.objects import ObjectScores
from tilepipe.products.label_map import background_of
from tilepipe.text import JSON, clean_line, table_lines


@dataclass(frozen=True)
class Evaluations:
    """The figures of pairs of maps."""

    pairs: tuple[tuple[str, Evaluation], ...]
    """Name and figures of each pair."""
    notes: tuple[str, ...] = ()
    """Sentences about files that were left out."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, Evaluation]], notes: Sequence[str] = ()) -> Evaluations:
        """Return the figures of pairs. Raises `InputError` if their classes differ."""
        name, first = pairs[0]
        for other, found in pairs:
            if found.terms.classes != first.terms.classes:
                both = [", ".join(one.terms.classes) for one in (first, found)]
                raise InputError(
                    f"{name} has the classes {both[0]}, and {other} has {both[1]}; compare maps of "
                    "one model, or name the classes with `classes`"
                )
        # The data of a page are megabytes for each pair.
        nothing = np.zeros((1, 1), np.int64)
        empty = Overview(1, nothing, nothing, (), np.zeros((2, 1, 1), np.uint16))
        return cls(tuple((name, replace(found, overview=empty)) for name, found in pairs), tuple(notes))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label value."""
        return self.pairs[0][1].terms.classes

    @property
    def confusion(self) -> Confusion:
        """Number of pixels of all pairs by true and predicted class."""
        total = Confusion.zero(len(self.classes))
        for _, found in self.pairs:
            total += found.confusion
        return total

    @property
    def objects(self) -> tuple[ObjectScores, ...]:
        """Scores of the objects of each class of all pairs."""
        total = list(self.pairs[0][1].objects)
        for _, found in self.pairs[1:]:
            total = [one + other for one, other in zip(total, found.objects, strict=True)]
        return tuple(total)

    def to_json(self) -> JSON:
        """Return the figures as JSON types: sums (`total`), means over the pairs (`mean`), and each pair."""
        c, rows = self.confusion, self._rows()
        return {
            "notes": list(self.notes),
            "total": {
                "pixels": c.pixels,
                "unpredicted": c.unpredicted,
                "accuracy": plain(c.accuracy),
                "mean_iou": plain(c.mean_iou),
                "mean_dice": plain(c.mean_dice),
                "confusion": [list(row) for row in c.counts],
            },
            "classes": [{key: plain(value) if key != "name" else value for key, value in row.items()} for row in rows],
            "mean": {"mean_iou": plain(self._mean("mean_iou")), "mean_dice": plain(self._mean("mean_dice"))},
            "pairs": [{"name": name, **found.to_json()} for name, found in self.pairs],
        }

    def _mean(self, figure: str) -> float:
        return mean_present(tuple(getattr(found.confusion, figure) for _, found in self.pairs))

    def _rows(self) -> list[JSON]:
        """Return the figures of each class: of all pixels together, and the means over the pairs that have it."""
        c, background = self.confusion, background_of(self.classes)
        rows = []
        for k, name in enumerate(self.classes):
            each = [found.confusion for _, found in self.pairs]
            objects = [found.objects[k].f1 for _, found in self.pairs]
            rows.append({
                "name": name,
                "iou": c.iou[k],
                "iou_mean": mean_present(tuple(one.iou[k] for one in each)),
                "dice": c.dice[k],
                "dice_mean": mean_present(tuple(one.dice[k] for one in each)),
                "object_f1": float("nan") if k == background else self.objects[k].f1,
                "object_f1_mean": float("nan") if k == background else mean_present(tuple(objects)),
            })  # fmt: skip
        return rows

    def table(self) -> str:
        """Return the figures as text to print: totals and means of each class, then one line for each pair."""
        c = self.confusion
        figures = ("iou", "iou_mean", "dice", "dice_mean", "object_f1", "object_f1_mean")
        first = [
            ["class", "IoU", "mean of pairs", "Dice", "mean of pairs", "object F1", "mean of pairs"],
            *([row["name"], *(figure(row[key]) for key in figures)] for row in self._rows()),
            [
                "mean",
                *(figure(one) for name in ("mean_iou", "mean_dice") for one in (getattr(c, name), self._mean(name))),
            ],
        ]
        first[-1] += ["", ""]  # objects of different classes have no common mean
        each = [
            [
                clean_line(name), figure(found.confusion.mean_iou), figure(found.confusion.mean_dice),
                *(figure(value) for value in found.confusion.iou), f"{found.confusion.pixels:,}",
            ]
            for name, found in self.pairs
        ]  # fmt: skip
        head = ["pair", "mean IoU", "mean Dice", *(f"IoU {name}" for name in self.classes), "pixels"]
        said = [
            *self.notes,
            *(f"{name}: {note}" for name, found in self.pairs for note in found.notes),
            f"{len(self.pairs)} pairs, {c.pixels:,} pixels scored; {c.unpredicted:,} without prediction",
        ]
        return "\n".join([*table_lines(first), *said, "", *table_lines([head, *each])])
