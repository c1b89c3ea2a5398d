"""This module writes the page: figures and pictures of an evaluation in one HTML file that loads no other file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.evaluation.accuracy.evaluation import Evaluation
from tilepipe.evaluation.accuracy.stream import Readable, read_pair
from tilepipe.evaluation.metrics.boundary import band, dilate
from tilepipe.evaluation.metrics.pair import Pair
from tilepipe.products.label_map import background_of
from tilepipe.products.report.page import png_uri, render
from tilepipe.storage import write_durably

_SIDE = 512  # the side of the patch whose outlines are drawn (pixels)
_GREY, _WHITE, _RED, _BLUE, _GREEN, _PINK, _FOUND, _ORANGE = (
    np.array(color)
    for color in (
        (200, 200, 200),
        (255, 255, 255),
        (200, 0, 0),
        (0, 70, 200),
        (0, 130, 60),
        (255, 215, 215),
        (150, 205, 165),
        (235, 145, 0),
    )
)
_STYLE = """
main img { max-width: 100%; image-rendering: pixelated; }
.pair { display: flex; gap: 1em; flex-wrap: wrap; }
"""


@dataclass(frozen=True)
class Figure:
    """A picture of the page."""

    uri: str
    """The picture, as a data: URI."""
    caption: str
    """What it shows."""


@dataclass(frozen=True)
class Part:
    """A part of the page."""

    title: str
    figures: tuple[Figure, ...]
    text: str = ""
    """Text above the pictures."""


def write_page(evaluation: Evaluation, prediction: Readable, truth: Readable, path: Path) -> None:
    """Write the page to a new `path`; the maps are read once more for one patch of outlines.

    Text is escaped, pictures are inline PNGs, and the page's policy forbids every other source. The file appears whole
    or not at all. Raises `StorageError` if the page cannot be written.
    """
    patch = worst_patch(evaluation)
    maps = read_pair(prediction, truth, evaluation.terms, patch)
    place = f"Rows {patch.y0} to {patch.y1}, columns {patch.x0} to {patch.x1}"
    first = Figure(png_uri(comparison_map(evaluation)), _caption(evaluation))
    where = Figure(
        png_uri(error_map(evaluation)),
        f"Share of wrong pixels: white none, red all, grey not scored; one dot is {evaluation.overview.cell} px.",
    )
    outlines = Figure(
        png_uri(boundary_map(maps, evaluation.terms.width)),
        f"{place}. Green: true outline found within {evaluation.terms.width:g} px; red: missed; "
        "blue: predicted outline that is none; pink: wrong pixels; grey: not scored.",
    )
    parts = [Part("Where it is wrong", (where,)), Part("Outlines where most is wrong", (outlines,))]
    head, *rows = evaluation.rows()
    page = render(
        "evaluation.html",
        __package__,
        _STYLE,
        first=evaluation.first_rows(),
        picture=first,
        notes=evaluation.notes,
        head=head,
        rows=rows,
        sentences=evaluation.sentences(),
        parts=[*parts, *_spectra(evaluation)],
    )
    write_durably(path, page)


def comparison_map(evaluation: Evaluation) -> NDArray[np.uint8]:
    """Return the kinds of agreement in the middle of each cell as colours, (rows, columns, 3); see the caption."""
    (predicted, true), classes = evaluation.overview.samples, len(evaluation.terms.classes)
    background = background_of(evaluation.terms.classes)
    colours = np.full((*true.shape, 3), _WHITE)
    colours[predicted != true] = _RED if background is None else _ORANGE
    if background is not None:
        colours[(predicted == true) & (true != background)] = _FOUND
        colours[(predicted == background) & (true != background)] = _RED
        colours[(predicted != background) & (true == background)] = _BLUE
    colours[(predicted >= classes) | (true >= classes)] = _GREY
    return colours.astype(np.uint8)


def _caption(evaluation: Evaluation) -> str:
    cell = evaluation.overview.cell
    size = "Each pixel is shown." if cell == 1 else f"One dot is the pixel in the middle of {cell} x {cell}."
    if background_of(evaluation.terms.classes) is None:
        return f"White: right; red: wrong; grey: not scored. {size}"
    mixed = "orange: taken for another class; " if len(evaluation.terms.classes) > 2 else ""
    return (
        f"Green: found; red: missed; blue: predicted where there is none; {mixed}white: background; grey: not scored. "
        f"{size}"
    )


def error_map(evaluation: Evaluation) -> NDArray[np.uint8]:
    """Return the share of wrong pixels per cell as colours, (rows, columns, 3)."""
    view = evaluation.overview
    share = view.wrong / np.maximum(view.scored, 1)
    # the square root makes a few wrong pixels in a cell visible
    colors = _WHITE + np.sqrt(share)[..., None] * (_RED - _WHITE)
    return np.where(view.scored[..., None] > 0, colors, _GREY).astype(np.uint8)


def boundary_map(maps: Pair, width: float) -> NDArray[np.uint8]:
    """Return the found, missed and invented outlines at `width` pixels as colours, (height, width, 3)."""
    maps = maps.masked()
    scored = maps.scored()
    shape = *scored.shape, 3
    out = np.where(scored[..., None], _WHITE, _GREY) * np.ones(shape)
    out[scored & (maps.prediction != maps.truth)] = _PINK
    for label in range(maps.classes):
        p, t = band(maps.prediction == label, scored, 1), band(maps.truth == label, scored, 1)
        out[p & ~dilate(t, width)] = _BLUE
        near = dilate(p, width)
        out[t & near], out[t & ~near] = _GREEN, _RED
    return out.astype(np.uint8)


def worst_patch(evaluation: Evaluation) -> Box:
    """Return the patch of at most 512 x 512 pixels, on a grid of that size, with the most wrong pixels."""
    (height, width), view = evaluation.shape, evaluation.overview
    cells = max(_SIDE // view.cell, 1)
    rows, columns = np.arange(0, view.wrong.shape[0], cells), np.arange(0, view.wrong.shape[1], cells)
    wrong = np.add.reduceat(np.add.reduceat(view.wrong, rows, 0), columns, 1)
    i, j = (int(k) for k in np.unravel_index(wrong.argmax(), wrong.shape))
    y, x = i * cells * view.cell, j * cells * view.cell
    return Box(y, x, min(y + _SIDE, height), min(x + _SIDE, width))


def spectrum_map(power: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a spectrum in dB as grey values over 60 dB, zero frequency in the centre, (height, width)."""
    top = max(float(power.max()), np.finfo(np.float64).tiny)
    # 60 dB below the top is a millionth of it; what is fainter is black in the picture.
    db = 10 * np.log10(np.maximum(np.fft.fftshift(power) / top, 1e-6))
    return np.asarray((db + 60) / 60 * 255, np.uint8)


def _spectra(evaluation: Evaluation) -> list[Part]:
    if not evaluation.overview.spectra:
        return []
    peaks = [p.peak_db - t.peak_db for p, t in evaluation.checkerboards]
    stride, predicted, true = evaluation.overview.spectra[int(np.argmax(peaks))]
    figures = (Figure(png_uri(spectrum_map(predicted)), "Prediction"), Figure(png_uri(spectrum_map(true)), "Truth"))
    text = (
        f"Fine residual at stride {stride}; a checkerboard shows as bright dots at multiples of 1/{stride} of the "
        "width that the truth does not have."
    )
    return [Part("Spectrum", figures, text)]
