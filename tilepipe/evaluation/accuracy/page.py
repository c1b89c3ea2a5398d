"""This module writes the page: figures and pictures of an evaluation in one HTML file that loads no other file."""

from __future__ import annotations

from base64 import b64encode
from html import escape as escaped
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tilepipe.box import Box
from tilepipe.evaluation.accuracy.evaluation import Evaluation
from tilepipe.evaluation.accuracy.stream import Readable, read_pair
from tilepipe.evaluation.metrics.boundary import band, dilate
from tilepipe.evaluation.metrics.pair import Pair
from tilepipe.storage import write_durably
from tilepipe.text import clean

_SIDE = 512  # the side of the patch whose outlines are drawn (pixels)
_GREY, _WHITE, _RED, _BLUE, _GREEN, _PINK = (
    np.array(color)
    for color in ((200, 200, 200), (255, 255, 255), (200, 0, 0), (0, 70, 200), (0, 130, 60), (255, 215, 215))
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .2em .8em; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #ddd; }
img { max-width: 100%; image-rendering: pixelated; border: 1px solid #ccc; } figure { margin: 1em 0; }
.pair { display: flex; gap: 1em; flex-wrap: wrap; } li { margin: .2em 0; }
"""


def escape(text: str) -> str:
    """Return text so that HTML shows it as it is, whoever wrote it."""
    return escaped(clean(text))


def write_page(evaluation: Evaluation, prediction: Readable, truth: Readable, path: Path) -> None:
    """Write the page to a new `path`; the maps are read once more for one patch of outlines.

    Text is escaped, pictures are inline PNGs, and the page's policy forbids every other source. The file appears whole
    or not at all. Raises `StorageError` if the page cannot be written.
    """
    patch = worst_patch(evaluation)
    maps = read_pair(prediction, truth, evaluation.terms, patch)
    place = f"Rows {patch.y0} to {patch.y1}, columns {patch.x0} to {patch.x1}"
    parts = [
        "<h1>Prediction against truth</h1>",
        _table(evaluation.rows()),
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in evaluation.sentences()) + "</ul>",
        "<h2>Where it is wrong</h2>",
        _figure(
            error_map(evaluation),
            f"Share of wrong pixels: white none, red all, grey not scored; one dot is {evaluation.overview.cell} px.",
        ),
        "<h2>Outlines where most is wrong</h2>",
        _figure(
            boundary_map(maps, evaluation.terms.width),
            f"{place}. Green: true outline found within {evaluation.terms.width:g} px; red: missed; "
            "blue: predicted outline that is none; pink: wrong pixels; grey: not scored.",
        ),
        *_spectra(evaluation),
    ]
    # Even if a text got past the escaping, a browser would load and run nothing because of the policy.
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>Prediction against truth</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    write_durably(path, document)


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


def _spectra(evaluation: Evaluation) -> list[str]:
    if not evaluation.overview.spectra:
        return []
    peaks = [p.peak_db - t.peak_db for p, t in evaluation.checkerboards]
    stride, predicted, true = evaluation.overview.spectra[int(np.argmax(peaks))]
    return [
        "<h2>Spectrum</h2>",
        f"<p>Fine residual at stride {stride}; a checkerboard shows as bright dots at multiples of 1/{stride} "
        "of the width that the truth does not have.</p>",
        '<div class="pair">',
        _figure(spectrum_map(predicted), "Prediction"),
        _figure(spectrum_map(true), "Truth"),
        "</div>",
    ]


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body]
    heading = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><tr>{heading}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _figure(pixels: NDArray[np.uint8], caption: str) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    data = b64encode(buffer.getvalue()).decode()
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
