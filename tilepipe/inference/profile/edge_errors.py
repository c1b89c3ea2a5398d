"""Edge errors: measure how far a tile's border acts on real patches, for models whose whole reach costs too much.

Each patch is run once whole and once with a margin cut off all around. e(d) is the largest total variation distance
of class probabilities between the two, over all pixels at distance d from the cut. Choosing the halo for a tenth of
the tolerance held on images that were not used for choosing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from types import EllipsisType

import torch
from torch import Tensor

from tilepipe.arrays import Pixels
from tilepipe.errors import DeviceError, ModelError, StorageError, TilepipeError, ordinary
from tilepipe.inference.device import Compute
from tilepipe.models.model import Model
from tilepipe.models.precision import arithmetic, dtype_of, on_device
from tilepipe.text import json_of

# Measured with 25 pairs of network and tolerance: a halo that was chosen at the tolerance itself missed it on another
# image in 5 of them, by up to 2.8 times. Chosen at a tenth, it held wherever it could be checked.
SAFETY = 10.0
"""Factor by which the measured error must lie below the tolerance when the halo is chosen."""


@dataclass(frozen=True)
class EdgeErrors:
    """Changes of class probabilities by a cut, by distance from the cut."""

    worst: tuple[float, ...]
    """Errors e(d) for d = 0, 1, ... pixels from the cut: total variation distance, 0 to 1."""
    windows: int
    """Number of patches that were measured."""
    margin: int
    """Context that the reference had beyond the cut [pixels]."""

    def halo(self, tolerance: float, stride: int, safety: float = SAFETY) -> int | None:
        """Return the smallest multiple h of `stride` with e(d) <= tolerance / safety for all d >= h, or None.

        At least one distance beyond h must have been measured. The result is None too if the halo is above
        `margin`: the reference itself had no more context, so such a halo is not known to be enough.
        """
        beyond = tuple(accumulate(reversed(self.worst), max))[::-1]  # beyond[h] = max of e(d) over d >= h
        wanted = (h for h in range(0, len(beyond), stride) if beyond[h] <= tolerance / safety)
        return next((h for h in wanted if h <= self.margin), None)

    def to_json(self) -> str:
        """Return the errors as JSON text."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "edge errors") -> EdgeErrors:
        """Return the errors from the text of `to_json`. Raises `StorageError`, which uses `name`, if that fails."""
        try:
            fields = json_of(text)
            return cls(tuple(fields["worst"]), fields["windows"], fields["margin"])
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"{name} does not hold edge errors; delete it to measure again") from None


def edge_errors(forward: Callable[[Tensor], Tensor], patches: Iterable[Tensor], margin: int, stride: int) -> EdgeErrors:
    """Measure e(d) on patches (C, H, W), as the model takes them; H and W above 2 * margin, multiples of `stride`.

    `margin`, a multiple of `stride` too, is cut off on every side. Patches should lie inside the image, so that what
    is cut off is real; 8 or more of them. One forward pass of a whole and of a cut patch each.
    Patches that the model fails on are left out, as a run leaves out such tiles. Raises `ModelError` for sizes that do
    not fit, and where no patch is left.
    """
    worst = torch.zeros(0, dtype=torch.float64)
    count, problem = 0, "no patch was given to measure the halo on; the image is too small for a tolerance"
    for patch in patches:
        _, height, width = patch.shape
        if min(height, width) <= 2 * margin or any(n % stride for n in (height, width, margin)):
            raise ModelError(
                f"a patch of {height} x {width} px cannot be measured with margin {margin} and stride {stride}; "
                "all must be multiples of the stride and the patch larger than two margins"
            )
        inner = (..., slice(margin, height - margin), slice(margin, width - margin))
        try:
            distances = _distances(forward, patch, inner)
        except ModelError as error:
            # The reason is kept, since it is the message if no patch is left.
            problem = str(error)
            continue
        worst = _larger(worst, _by_distance(distances))
        count += 1
    if not count:
        raise ModelError(problem)
    return EdgeErrors(tuple(worst.tolist()), count, margin)


def model_errors(model: Model, patches: Iterable[Pixels], margin: int, stride: int, compute: Compute) -> EdgeErrors:
    """Measure e(d) of a model on patches (bands, H, W) in the image's own units, in fp32 or fp64."""
    device, precision = torch.device(compute.device), compute.precision
    module = on_device(model.module, device, precision)
    with arithmetic(device, precision):
        return edge_errors(
            lambda x: module(model.normalise(x.to(device), dtype_of(precision))).cpu(),
            (torch.from_numpy(patch) for patch in patches),
            margin,
            stride,
        )


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Return half the sum of absolute differences over classes of (K, H, W) probabilities: (H, W), 0 to 1."""
    return (p - q).abs().sum(0) / 2


def _distances(forward: Callable[[Tensor], Tensor], patch: Tensor, inner: tuple[EllipsisType, slice, slice]) -> Tensor:
    """Return what a cut around `inner` does to each of its pixels. Raises `ModelError` if the model fails."""
    try:
        whole = _probabilities(forward, patch)[inner]
        return total_variation(whole, _probabilities(forward, patch[inner]))
    except TilepipeError:
        raise
    except Exception as error:  # whatever a stranger's module raises
        if isinstance(trouble := ordinary(error), DeviceError):
            raise trouble from error
        raise ModelError(f"the model fails on a patch of the image ({type(error).__name__}: {error})") from error


def _probabilities(forward: Callable[[Tensor], Tensor], patch: Tensor) -> Tensor:
    with torch.no_grad():
        # In double precision, so that what is measured is the cut and not the softmax's own rounding.
        logits = forward(patch.unsqueeze(0).contiguous())[0].double()
    if not torch.isfinite(logits).all():
        raise ModelError("the model gives NaN or infinity on a patch of the image; the halo cannot be measured")
    return logits.softmax(0)


def _by_distance(errors: Tensor) -> Tensor:
    """Return the largest of (H, W) errors at each distance from the border, 0 at the border itself."""
    height, width = errors.shape
    rows, columns = torch.arange(height), torch.arange(width)
    down, along = torch.minimum(rows, height - 1 - rows), torch.minimum(columns, width - 1 - columns)
    distance = torch.minimum(down.unsqueeze(1), along.unsqueeze(0)).flatten()
    longest = torch.zeros(int(distance.max()) + 1, dtype=errors.dtype)
    return longest.scatter_reduce(0, distance, errors.flatten().cpu(), "amax")


def _larger(a: Tensor, b: Tensor) -> Tensor:
    longest = max(len(a), len(b))
    return torch.maximum(*(torch.nn.functional.pad(one, (0, longest - len(one))) for one in (a, b)))
