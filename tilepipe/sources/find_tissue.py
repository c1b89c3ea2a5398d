"""Finds the tissue of a slide on a small image of the whole.

    bright background   colour: distance from the colour of the glass (Lab); marker ink is told by its absorption
    dark background     fluorescence: brightness above the background, band by band

Nothing here knows the slide: the small image comes in, and a bitmap goes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
import skimage
from numpy.typing import NDArray

from tilepipe.arrays import Pixels

Bits = NDArray[np.bool_]
Floats = NDArray[np.float64]

GLASS_LIGHT, GLASS_CHROMA = 60.0, 15.0
"""Least lightness and largest chroma (CIE Lab) of glass."""
WHITE, NEUTRAL, UNSCANNED = 89.0, 7.0, 99
"""Least lightness and largest chroma of white glass, and the lightness from which white is of unscanned parts."""
FREQUENT = 0.02
"""Least share of the pixels that the lightness of glass has."""
DARK = 0.25
"""Part of the range of uint8 below which a pixel is dark."""
USUAL = 0.25
"""Part of the number of pixels of the most frequent lightness of glass that its lightest pixels have."""
DISTANCE = 5.0
"""Distance (CIE76) of faint tissue from the glass: noise and stitched fields lie below, fat and pale stain above."""
NOISE = 5.0
"""Distance of tissue from a dark background (standard deviations of the background)."""
FAINT = 0.012
"""Least brightness of tissue over a dark background, as a part of the range of the small image."""
CLOSED = 2
"""Radius by which gaps are closed [pixels of the small image]."""
SPECK, HOLE = 24, 64
"""Areas below which tissue is a speck, and a gap in it is closed [pixels of the small image]."""
STROKE, INK_EDGE = 4, 5
"""Half of the least width of a stroke of ink, and width of its soft edge [pixels of the small image]."""


@dataclass(frozen=True, eq=False)
class Found:
    """Tissue on a small image."""

    tissue: Bits
    """True for tissue, (height, width)."""
    ink: Bits
    """True for marker ink, which is no tissue."""
    background: Literal["bright", "dark", "none"]
    """Kind of the background: bright (glass), dark (fluorescence), or none: all is tissue, as nothing stands out."""


def find_tissue(small: Pixels, valid: Bits | None = None) -> Found:
    """Return the tissue on a small image (bands, height, width) of any type; `valid` is True for image data.

    Three bands of uint8 are red, green and blue. Other images are told apart by brightness alone.
    """
    there = np.ones(small.shape[1:], bool) if valid is None else valid
    if small.dtype.kind == "f":
        there = there & np.isfinite(small).all(0)
    nothing = np.zeros(there.shape, bool)
    if not there.any():
        return Found(nothing, nothing, "none")
    if len(small) == 3 and small.dtype == np.uint8:
        # Pixels without data become white, since black would be taken for ink.
        small = np.where(there, small, np.uint8(255))
        smooth = scipy.ndimage.gaussian_filter(small.astype(np.float64), (0, 0.7, 0.7))
        lab = skimage.color.rgb2lab(smooth.transpose(1, 2, 0) / 255)
        light, chroma = lab[..., 0], np.hypot(lab[..., 1], lab[..., 2])
        glassy = there & (light >= GLASS_LIGHT) & (chroma <= GLASS_CHROMA)
        dark = there & (small.max(0) < 255 * DARK)
        if not (dark.sum() > there.sum() / 2 and glassy.sum() < 0.05 * there.sum()):
            return _on_glass(small, lab, glassy, there)
    return _by_brightness(small, there)


def _on_glass(small: Pixels, lab: Floats, glassy: Bits, there: Bits) -> Found:
    glass = _glass(lab, glassy, int(there.sum()))
    if glass is None:
        return Found(there, np.zeros(there.shape, bool), "none")
    # What is lighter than the glass is an unscanned part or a reflection, and no tissue.
    distance = np.sqrt(np.maximum(glass[0] - lab[..., 0], 0) ** 2 + ((lab[..., 1:] - glass[1:]) ** 2).sum(-1))
    ink = _ink(small, glass) & there
    # Otsu's threshold would lie too high beside strong stain, and inside the noise if there is nothing but glass.
    tissue = _cleaned((distance > DISTANCE) & there & ~ink, CLOSED) & ~ink & there
    return Found(tissue, ink, "bright")


def _glass(lab: Floats, glassy: Bits, count: int) -> Floats | None:
    """Return the colour (L, a, b) of the glass; None if there is none."""
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    white = glassy & (lab[..., 0] >= WHITE) & (chroma <= NEUTRAL)
    # Unscanned parts are filled with pure white, beside which the glass is a little darker.
    for among in (white & (lab[..., 0] < UNSCANNED), white, glassy):
        counts = np.bincount(np.floor(lab[..., 0][among]).astype(int), minlength=102)
        near = counts + np.roll(counts, 1) + np.roll(counts, -1)
        # Pale tissue may cover more than the glass, but it is darker.
        levels = np.flatnonzero(near >= max(FREQUENT * count, USUAL * near.max()))
        if len(levels):
            return np.asarray(np.median(lab[among & (np.abs(lab[..., 0] - levels[-1] - 0.5) <= 1.5)], axis=0))
    return None


def _ink(small: Pixels, glass: Floats) -> Bits:
    """Return where marker ink lies: its absorption is one that no stain of tissue has."""
    white = skimage.color.lab2rgb(glass[None, None])[0, 0] * 255
    light = np.clip(scipy.ndimage.gaussian_filter(small.astype(np.float32), (0, 1, 1)), 1, None)
    red, green, blue = (np.maximum(-np.log10(band / level), 0) for band, level in zip(light, white, strict=True))
    # Haematoxylin and eosin absorb green most, and DAB blue before green. Ink that is green absorbs green least, blue
    # ink absorbs red far more than green, red ink absorbs blue nearly as green and red hardly, and black ink all alike.
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    strong = {
        "green": (red > 0.5) & (red > 1.5 * green) & (blue > green),
        "blue": (red > 0.5) & (red > 1.4 * green) & (green > 1.3 * blue),
        "red": (green > 0.5) & (blue > 0.65 * green) & (green > 0.8 * blue) & (red < 0.2 * green),
        "black": (least > 0.85) & (most - least < 0.15),
    }
    found = np.zeros(red.shape, bool)
    for kind in strong.values():
        # Strokes are wide; single pixels of such a colour occur in tissue too.
        found |= skimage.morphology.opening(kind, skimage.morphology.disk(STROKE))
    return np.asarray(scipy.ndimage.distance_transform_edt(~found) <= INK_EDGE) if found.any() else found


def _by_brightness(small: Pixels, there: Bits) -> Found:
    """Return what is brighter than a dark background, or darker than a bright one, in any band."""
    tissue, nothing, kinds = np.zeros(there.shape, bool), np.zeros(there.shape, bool), []
    for band in small:
        values = scipy.ndimage.gaussian_filter(np.where(there, band, np.median(band[there])).astype(np.float64), 1)
        low, high = np.percentile(values[there], (0.1, 99.9))
        if high <= low:
            continue
        counts, edges = np.histogram(values[there], 256, (low, high))
        level = edges[int(counts.argmax())] + (edges[1] - edges[0]) / 2
        bright = level > (low + high) / 2
        signal = level - values if bright else values - level
        behind = -signal[there & (signal < 0)]
        sigma = 1.4826 * float(np.median(behind)) if len(behind) else 0.0
        top = float(np.percentile(signal[there], 99.9))
        least = max(NOISE * sigma, FAINT * (255 if small.dtype == np.uint8 else top))
        if top <= least:
            continue
        # On a scale of logarithms faint tissue is not lost beside a few bright cells.
        spread = np.log(np.maximum(signal[there], least / 4))
        limit = max(least, float(np.exp(skimage.filters.threshold_otsu(spread))) / 2)
        limit = min(limit, max(least, top / 10))
        tissue |= (signal > limit) & there
        kinds.append("bright" if bright else "dark")
    kind: Literal["bright", "dark"] = "bright" if kinds and all(one == "bright" for one in kinds) else "dark"
    return Found(_cleaned(tissue, 2 * CLOSED) & there, nothing, kind)


def _cleaned(found: Bits, radius: int) -> Bits:
    """Return tissue with its gaps closed and without specks of dust."""
    # Closing takes the outside for background, so an image's border would lose its tissue.
    padded = np.pad(found, radius, mode="edge")
    closed = skimage.morphology.closing(padded, skimage.morphology.disk(radius))[radius:-radius, radius:-radius]
    return _without_small(~_without_small(~_without_small(closed, SPECK), HOLE), 0)


def _without_small(found: Bits, least: int) -> Bits:
    if not least:
        return found
    numbers, _ = scipy.ndimage.label(found, np.ones((3, 3)))
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= least)[numbers])
