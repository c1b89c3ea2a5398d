"""This module measures checkerboards of an up-sampling stride s in a map: a spectral line and a share of phase means.

The map y minus its Gaussian (sigma = s pixels) leaves the fine residual r. Uneven up-sampling repeats every s pixels.
This shows as power at the frequencies (a/s, b/s), (a, b) != 0, of the Hann-windowed spectrum of r. The line is given in
dB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tilepipe.errors import UsageError

Floats = NDArray[np.float64]
FLAG_DB = 3.0
"""Value of `peak_db` above which a map is said to have a checkerboard (dB); clean label maps score below 2 dB."""
_SILENT = 1e-6  # the rms of a residual that comes from rounding only
_FLOOR = 1e-12  # the least background as a share of the whole power, so that a perfect pattern has a finite figure


@dataclass(frozen=True)
class Checkerboard:
    """The figures of a spectrum for one stride."""

    stride: int
    """Up-sampling stride that is examined (pixels)."""
    line_db: float
    """Power of the lines over the power of their surroundings (dB); 0 means no lines. Long straight edges raise it."""
    peak_db: float
    """Like `line_db`, but each line is compared with the strongest of its surroundings and of the arms of the axes
    through it (dB)."""
    phase: float
    """Rms of the means of the s x s phases of r over the rms of r (0 to 1)."""

    @property
    def flagged(self) -> bool:
        """Whether `peak_db` is above 3 dB."""
        return self.peak_db > FLAG_DB


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The sums over patches of one size, from which a `Checkerboard` follows. Spectra of one stride and size can be
    added."""

    stride: int
    """Up-sampling stride that is examined (pixels)."""
    power: Floats
    """Sum of |FFT|^2 of the windowed residual over channels and patches, (height, width), with the zero frequency
    first."""
    phases: Floats
    """Sum of the residual by channel and phase, (channels, stride, stride)."""
    squares: float
    """Sum of the squared residual."""
    samples: int
    """Number of residual values of all channels."""

    def __add__(self, other: Spectrum) -> Spectrum:
        if (self.stride, self.power.shape, self.phases.shape) != (other.stride, other.power.shape, other.phases.shape):
            raise UsageError(
                f"spectra of stride {self.stride} and {other.stride}, patches {self.power.shape} and "
                f"{other.power.shape} cannot be added"
            )
        return Spectrum(
            self.stride,
            self.power + other.power,
            self.phases + other.phases,
            self.squares + other.squares,
            self.samples + other.samples,
        )

    def checkerboard(self) -> Checkerboard:
        """Return the figures of all added patches together."""
        rms = np.sqrt(self.squares / self.samples)
        # A map without fine structure has no residual, and its ratios would be those of rounding.
        if rms < _SILENT:
            return Checkerboard(self.stride, 0.0, 0.0, 0.0)
        # Each phase has `samples / phases.size` values.
        means = self.phases * (self.phases.size / self.samples)
        line, ring, strongest = self._lines()
        return Checkerboard(
            self.stride,
            float(10 * np.log10(line.sum() / ring.sum())),
            float(10 * np.log10((line / strongest).mean())),
            float(np.sqrt((means**2).mean()) / rms),
        )

    def _lines(self) -> tuple[Floats, Floats, Floats]:
        """Return for each line its power, the power expected from its surroundings, and from their strongest part."""
        s, (height, width) = self.stride, self.power.shape
        floor = max(_FLOOR * float(self.power.sum()), np.finfo(np.float64).tiny)
        found = []
        for a, b in list(np.ndindex(s, s))[1:]:
            rows, columns = np.arange(-12, 13) + a * height // s, np.arange(-12, 13) + b * width // s
            # The 25 x 25 bins around a line hold 24 times as many bins as the 5 x 5 of the line itself, and each arm 4
            # times as many.
            near = self.power[np.ix_(rows % height, columns % width)]
            line = near[10:15, 10:15].sum()
            ring = (near.sum() - line) / 24
            arms = (near[10:15].sum() - line) / 4, (near[:, 10:15].sum() - line) / 4
            found.append((line, max(ring, floor), max(ring, *arms, floor)))
        line, ring, strongest = np.array(found).T
        return line, ring, strongest


def spectrum_of(y: NDArray[np.floating], stride: int) -> Spectrum:
    """Return the spectrum of one patch, (channels, height, width): probabilities or one-hot labels.

    The patch starts at a multiple of `stride` of the map; rows and columns beyond a multiple of `stride` are left out.
    Raises `UsageError` if a side is shorter than 16 x `stride`, because it is too short to tell a line from its
    surroundings.
    """
    if stride < 2:
        raise UsageError(f"a checkerboard of stride {stride}: give 2 or more")
    channels, height, width = y.shape
    if min(height, width) < 16 * stride:
        raise UsageError(f"a patch of {height} x {width} px for stride {stride}: give at least {16 * stride} px a side")
    height, width = height // stride * stride, width // stride * stride
    whole = np.asarray(y[:, :height, :width], np.float64)
    residual = whole - gaussian_filter(whole, (0, stride, stride))
    # Without a taper the edges of a patch would show as power at all frequencies.
    taper = np.hanning(height)[:, None] * np.hanning(width)
    power = sum((np.abs(np.fft.fft2(channel * taper)) ** 2 for channel in residual), np.zeros((height, width)))
    phases = residual.reshape(channels, height // stride, stride, width // stride, stride).sum((1, 3))
    return Spectrum(stride, power, phases, float((residual**2).sum()), residual.size)


def checkerboard(y: NDArray[np.floating], stride: int) -> Checkerboard:
    """Return the checkerboard figures of a map that fits in memory, (channels, height, width) or (height, width)."""
    return spectrum_of(y[None] if y.ndim == 2 else y, stride).checkerboard()


def one_hot(labels: NDArray[np.integer], classes: int) -> Floats:
    """Return labels (height, width) as `classes` indicator channels, (classes, height, width)."""
    return np.asarray(labels == np.arange(classes)[:, None, None], np.float64)
