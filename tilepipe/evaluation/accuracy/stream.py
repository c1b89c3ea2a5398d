"""This module compares two label maps band by band; the memory does not depend on their height."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.evaluation.accuracy.evaluation import Evaluation, Overview
from tilepipe.evaluation.accuracy.terms import COARSE_WIDTH, Terms
from tilepipe.evaluation.metrics.boundary import Boundary, boundary_of, margin
from tilepipe.evaluation.metrics.checkerboard import Spectrum, one_hot, spectrum_of
from tilepipe.evaluation.metrics.coarseness import coarseness, ideal
from tilepipe.evaluation.metrics.components import ComponentCounter
from tilepipe.evaluation.metrics.confusion import Confusion, confusion_of
from tilepipe.evaluation.metrics.pair import Pair, pair
from tilepipe.evaluation.metrics.seams import ChangeCounter, seam_excess
from tilepipe.events import Event, Listener, silent

_BAND_PIXELS = 2**22  # the pixels of a band that is read at once
_COMPONENT_PIXELS = 2**20  # the pixels whose components are numbered at once
_COLUMNS = 1024  # the columns of a block whose outlines are counted: few enough for the processor's cache
_OVERVIEW = 1024  # the cells on the longer side of the error map
_PATCH, _PATCHES = 256, 24  # the side and the largest number of the patches whose spectrum is taken


class Readable(Protocol):
    """A label map that can be read by box, such as `tilepipe.products.label_map.LabelMap`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (height, width) of the map in pixels."""

    def read(self, box: Box, /) -> NDArray[np.integer]:
        """Return the labels of a box inside the map, (box.height, box.width), of an integer dtype."""


@dataclass
class _Totals:
    """The sums over bands."""

    confusion: Confusion
    coarse: Confusion
    boundaries: tuple[Boundary, ...]
    components: ComponentCounter
    changes: ChangeCounter
    wrong: NDArray[np.int64]
    scored: NDArray[np.int64]
    samples: NDArray[np.uint16]


def evaluate(prediction: Readable, truth: Readable, terms: Terms, listener: Listener = silent) -> Evaluation:
    """Compare two label maps of one size, in bands of rows.

    Memory follows the width of the maps and the number of components that cross a row, not their height. Raises
    `InputError` if the sizes differ or a label is not a class.
    """
    if tuple(prediction.shape) != tuple(truth.shape):
        raise InputError(
            f"prediction is {prediction.shape[0]} x {prediction.shape[1]} pixels, truth {truth.shape[0]} x "
            f"{truth.shape[1]}; compare maps on one grid"
        )
    height, width = prediction.shape
    sums = _zero(terms, height, width)
    for band in _bands(height, width, terms.feature_stride):
        _add_band(sums, prediction, truth, terms, band)
        listener(Event("evaluate", band.y1, height))
    spectra = _spectra(prediction, truth, terms)
    by_width = {boundary.width: boundary for boundary in sums.boundaries}
    seams = seam_excess(sums.changes, terms.tile, terms.step or terms.tile) if terms.tile is not None else None
    powers = tuple((p.stride, p.power, t.power) for p, t in spectra)
    return Evaluation(
        terms=terms,
        shape=(height, width),
        confusion=sums.confusion,
        boundaries=sums.boundaries,
        components=sums.components.result(),
        objects=sums.components.objects(),
        coarseness=coarseness(terms.feature_stride, sums.coarse, sums.confusion, by_width[1.0], by_width[COARSE_WIDTH]),
        checkerboards=tuple((p.checkerboard(), t.checkerboard()) for p, t in spectra),
        seams=seams,
        overview=Overview(_cell(height, width), sums.wrong, sums.scored, powers, sums.samples),
    )


def read_pair(prediction: Readable, truth: Readable, terms: Terms, box: Box) -> Pair:
    """Return the checked labels of both maps in `box`."""
    labels = prediction.read(box), truth.read(box)
    return pair(*labels, len(terms.classes), ignore=terms.ignore, nodata=terms.nodata)


def _zero(terms: Terms, height: int, width: int) -> _Totals:
    classes = len(terms.classes)
    # The one pixel is ignored, so this is the count of nothing, with the right number of classes.
    empty = pair(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), classes, ignore=0)
    cells = -(-height // _cell(height, width)), -(-width // _cell(height, width))
    return _Totals(
        confusion=Confusion.zero(classes),
        coarse=Confusion.zero(classes),
        boundaries=tuple(boundary_of(empty, width) for width in terms.widths),
        components=ComponentCounter(classes, terms.smallest),
        changes=ChangeCounter(height, width, classes),
        wrong=np.zeros(cells, np.int64),
        scored=np.zeros(cells, np.int64),
        samples=np.full((2, *cells), classes, np.uint16),
    )


def _add_band(sums: _Totals, prediction: Readable, truth: Readable, terms: Terms, band: Box) -> None:
    # Whether a pixel is outline depends on its neighbours, so a band is read with a margin that is not counted.
    around = max(margin(width) for width in terms.widths)
    whole = Box.of_shape(*prediction.shape)
    outer = band.pad(around) & whole
    assert outer is not None
    maps = read_pair(prediction, truth, terms, outer)
    inner = maps.crop(*band.slices_in(outer))
    sums.confusion += confusion_of(inner)
    # A cell of the ideal map must not be cut by the edge of a block.
    columns = _COLUMNS // terms.feature_stride * terms.feature_stride
    for x in range(0, band.width, columns):
        block = Box(band.y0, x, band.y1, min(x + columns, band.width))
        _add_block(sums, maps, terms, block, outer)
    rows = max(_COMPONENT_PIXELS // band.width, 1)
    for y in range(0, band.height, rows):
        sums.components.add(inner.crop(slice(y, y + rows), slice(None)))
    # The change from the last row of the band before to the first row of this one is counted here.
    above = 1 if band.y0 else 0
    lines = maps.prediction[band.y0 - above - outer.y0 : band.y1 - outer.y0]
    sums.changes.add(lines, band.y0 - above)
    scored = inner.scored()
    _add_samples(sums.samples, inner, band.y0, _cell(*prediction.shape))
    _add_cells(sums.scored, scored, band.y0, _cell(*prediction.shape))
    _add_cells(sums.wrong, scored & (inner.prediction != inner.truth), band.y0, _cell(*prediction.shape))


def _add_block(sums: _Totals, maps: Pair, terms: Terms, block: Box, outer: Box) -> None:
    """Add the outlines and the ideal coarse map of one block to the sums; `outer` is the box of `maps`."""
    parts = []
    for width in terms.widths:
        near = block.pad(margin(width)) & outer
        assert near is not None
        parts.append(boundary_of(maps.crop(*near.slices_in(outer)), width, block.slices_in(near)))
    sums.boundaries = tuple(total + part for total, part in zip(sums.boundaries, parts, strict=True))
    sums.coarse += confusion_of(ideal(maps.crop(*block.slices_in(outer)), terms.feature_stride))


def _bands(height: int, width: int, stride: int) -> Iterator[Box]:
    """Yield full-width bands; each begins at a multiple of the feature stride."""
    rows = max(min(_BAND_PIXELS // width, 512) // stride, 1) * stride
    for y in range(0, height, rows):
        yield Box(y, 0, min(y + rows, height), width)


def _cell(height: int, width: int) -> int:
    return -(-max(height, width) // _OVERVIEW)


def _add_cells(cells: NDArray[np.int64], mask: NDArray[np.bool_], y0: int, cell: int) -> None:
    # Without a type numpy adds bools as a logical or.
    by_column = np.add.reduceat(mask, np.arange(0, mask.shape[1], cell), axis=1, dtype=np.int64)
    np.add.at(cells, (y0 + np.arange(mask.shape[0])) // cell, by_column)


def _add_samples(samples: NDArray[np.uint16], maps: Pair, y0: int, cell: int) -> None:
    """Take the label in the middle of each cell whose middle lies in a band that begins at row `y0`."""
    columns = np.minimum(np.arange(samples.shape[2]) * cell + cell // 2, maps.truth.shape[1] - 1)
    rows = np.arange(samples.shape[1]) * cell + cell // 2 - y0
    # The last cell may be cut by the edge of the map; its middle is then the last row.
    if y0 + maps.truth.shape[0] > (samples.shape[1] - 1) * cell:
        rows[-1] = min(rows[-1], maps.truth.shape[0] - 1)
    here = (rows >= 0) & (rows < maps.truth.shape[0])
    for k, labels in enumerate((maps.prediction, maps.truth)):
        samples[k, here] = labels[rows[here][:, None], columns[None]]


def _spectra(prediction: Readable, truth: Readable, terms: Terms) -> list[tuple[Spectrum, Spectrum]]:
    """Return the spectra of both maps over the same patches, spread over the map, for every stride that fits."""
    height, width = prediction.shape
    side = min(_PATCH, height, width)
    strides = [s for s in terms.strides if side >= 16 * s]
    if not strides:
        return []
    rows, columns = range(0, height - side + 1, _PATCH), range(0, width - side + 1, _PATCH)
    places = [Box(y, x, y + side, x + side) for y in rows for x in columns]
    found: dict[int, tuple[Spectrum, Spectrum]] = {}
    # Every n-th place is taken, so that the patches are spread over the whole map.
    for box in places[:: -(-len(places) // _PATCHES)]:
        # Areas without a label are made alike in both maps, so that they make no difference between their spectra.
        maps = read_pair(prediction, truth, terms, box).masked()
        hot = one_hot(maps.prediction, maps.classes), one_hot(maps.truth, maps.classes)
        for s in strides:
            p, t = spectrum_of(hot[0], s), spectrum_of(hot[1], s)
            found[s] = (found[s][0] + p, found[s][1] + t) if s in found else (p, t)
    return list(found.values())
