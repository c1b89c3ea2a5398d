"""Predictor: computes labels or integer probabilities of tiles. It knows no files, grids or blends.

The model always sees the same batch shape (the last batch is padded), so a tile's result does not depend on the other
tiles of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tilepipe.arrays import Array, Labels, Logits, Pixels
from tilepipe.errors import DeviceError, ModelError, TilepipeError, ordinary
from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.base import TORCH, Compiled, GraphError
from tilepipe.inference.statistics.capture import Mode, Reached
from tilepipe.models.average import Mean
from tilepipe.models.model import Model
from tilepipe.models.output import misfit
from tilepipe.models.precision import arithmetic, dtype_of
from tilepipe.models.prepared import prepared
from tilepipe.stage_times import stage
from tilepipe.text import setting
from tilepipe.tiling.tiling import Bands

if TYPE_CHECKING:
    from tilepipe.inference.banded.whole_tiles import WholeTiles

LOGITS = "logits"
"""Name of the scores of a network, which are no layer."""
FEW = 8
"""Number of classes up to which a CPU compares whole planes, in half of the time that `max` takes or less."""
PROBABILITY_BITS = 24
"""Bits to which probabilities are rounded, so that sums of weighted probabilities are exact in int64."""


def device_versions(device: str) -> dict[str, str]:
    """Return what decides the arithmetic of a device beside torch: its name, CUDA and cuDNN; {} for 'cpu'."""
    if device == "cpu":
        return {}
    cudnn = torch.backends.cudnn.version()
    return {"device": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda), "cudnn": str(cudnn)}


def threads() -> int:
    """Return the number of threads with which this process computes."""
    return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Let this process compute with `count` threads."""
    torch.set_num_threads(count)


class Predictor:
    """Runs one model on one device; `labels` and `probabilities` may be called from any thread, one at a time runs."""

    def __init__(
        self,
        model: Model,
        tile_shape: tuple[int, int],
        compute: Compute,
        bands: Bands | None = None,
        stride: int = 1,
    ) -> None:
        """Bring the model to the device of `compute`; `tile_shape` is (height, width) of every tile [pixels].

        With `bands`, tiles of a model of this total stride are computed in bands of rows. Raises `ModelError` if the
        model cannot be copied for fp64, or not be computed in bands.
        """
        self.model = model
        self.input_shape = (compute.batch, model.card.bands, *tile_shape)
        self.device = torch.device(compute.device)
        self.precision = compute.precision
        self.dtype = dtype_of(compute.precision)
        self._channels_last = True
        self._compute = compute
        self._compiled: Compiled | None = None
        with self._in_one_sentence():
            self._module = prepared(model.module, self.device, self.precision)
        self._in_bands: WholeTiles | None = None
        if bands is not None:
            # This import opens torch's exporter, which only bands need.
            from tilepipe.inference.banded.whole_tiles import WholeTiles

            self._in_bands = WholeTiles(model, bands, stride, compute)

    def labels(self, tiles: Pixels, under: Mode | None = None) -> Labels:
        """Return the class with the largest logit, the lowest of equal ones, (n, height, width) uint8 or uint16.

        `tiles` is (n, bands, height, width) in the source's dtype, with n at most the batch size. `under` catches the
        model's global operations; None if nothing does. Raises `ModelError` if the model fails, and `DeviceError` if
        the device does.
        """
        with self._scores(tiles, under) as scores:
            return labels_of(scores, self.model.card.label_dtype)

    def logits(self, tiles: Pixels, under: Mode | None = None) -> Logits:
        """Return the model's logits, (n, classes, height, width) float32 (float64 in fp64), not rounded."""
        with self._logits(tiles, under) as logits:
            return logits.cpu().numpy()

    def probabilities(self, tiles: Pixels, under: Mode | None = None, *, informed: bool = False) -> NDArray[np.int32]:
        """Return softmax probabilities times 2**24, rounded, (n, classes, height, width) int32.

        `informed` adds the mutual information of the answers of a `Mean`, times 2**24, as one more plane.

        The class with the largest logit gets 1 more, so a pixel that only one tile covers keeps the argmax of its
        logits.
        """
        classes = len(self.model.card.classes)
        with self._scores(tiles, under, informed=informed) as scores:
            found = scores if isinstance(self._module, Mean) else scores.softmax(1)
            return integers_of(found, scores[:, :classes])

    def observe(self, tiles: Pixels, under: Mode) -> None:
        """Run the model on tiles so that `under` can keep what it needs; the run stops when `under` has enough."""
        with suppress(Reached), self._logits(tiles, under):
            pass

    def _scores(
        self, tiles: Pixels, under: Mode | None, *, informed: bool = False
    ) -> AbstractContextManager[torch.Tensor]:
        """Return logits; of a `Mean` its probabilities, whose order a logarithm in float32 would not keep."""
        if isinstance(self._module, Mean):
            return self._called(self._module.informed if informed else self._module.probabilities, tiles, under)
        return self._logits(tiles, under)

    def _in_runtime(self) -> Compiled:
        """Return the model in another runtime than torch, for tiles of the predictor's shape. Raises `ModelError`."""
        from tilepipe.inference.runtimes.tiles import on_tiles

        try:
            return on_tiles(self.model, self.input_shape, self._compute)
        except GraphError as problem:
            raise ModelError(
                f"{self.model.name} cannot be computed by {self._compute.runtime}: {problem}; use "
                f"{setting(runtime=TORCH)}"
            ) from None

    @contextmanager
    def _logits(self, tiles: Pixels, under: Mode | None) -> Iterator[torch.Tensor]:
        with self._called(self._module, tiles, under) as logits:
            yield logits.to(self.dtype)

    @contextmanager
    def _called(
        self, network: Callable[[torch.Tensor], torch.Tensor], tiles: Pixels, under: Mode | None
    ) -> Iterator[torch.Tensor]:
        count, batch = len(tiles), np.require(tiles, requirements=("C", "W"))
        # The batch is always full: kernels choose their algorithm by shape, and another algorithm rounds differently,
        # so the last tiles of a block would get other bits than in another block.
        if count < self.input_shape[0]:
            batch = np.zeros(self.input_shape, tiles.dtype)
            batch[:count] = tiles
        # Statistics are put into calls of torch, which another runtime does not make.
        plain = self._compute.runtime == TORCH or under is not None or network is not self._module
        if not plain and self._compiled is None and self._in_bands is None:
            self._compiled = self._in_runtime()
        try:
            # The switches that decide rounding belong to the whole process. They are held until the caller has taken
            # the result, since softmax and argmax round too.
            with arithmetic(self.device, self.precision), stage("compute"):
                with under or nullcontext(), self._in_one_sentence():
                    x = self.model.normalise(torch.from_numpy(batch).to(self.device), self.dtype)
                    if self._in_bands is not None:
                        scores = self._in_bands(x)
                    else:
                        scores = self._run(network, x) if plain or not self._compiled else self._compiled([x])[0]
                self._check(scores, count)
                yield scores[:count]
        except torch.OutOfMemoryError:
            raise DeviceError(
                f"{self.device} cannot hold batches of {self.input_shape}; give a smaller `batch` or `tile`"
            ) from None
        except RuntimeError as problem:  # a device says what went wrong when its answer is fetched
            if (trouble := ordinary(problem)) is not None:
                raise trouble from problem
            raise

    def _run(self, network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Call a network on tiles whose memory has the order in which convolutions are fastest, if it takes them."""
        if self._channels_last:
            try:
                return network(x.contiguous(memory_format=torch.channels_last))
            except RuntimeError as problem:
                # Some modules ask for the usual order, by a `view`. They fail on each tile, so that none is computed
                # in another order than the others.
                if "view" not in str(problem):
                    raise
                self._channels_last = False
        return network(x)

    @contextmanager
    def _in_one_sentence(self) -> Iterator[None]:
        """Turn what a model raises into a `ModelError` or `DeviceError` in one sentence.

        In fp64, the sentence advises fp32, since many models are written for fp32 alone.
        """
        try:
            yield
        except (TilepipeError, Reached, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as problem:  # a stranger's module may raise anything
            if isinstance(trouble := ordinary(problem), DeviceError):
                raise trouble from problem
            said = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}".removesuffix(": ")
            if self.precision == "fp64":
                raise ModelError(f"{self.model.name} fails in fp64 ({said}); use precision fp32") from problem
            raise ModelError(
                f"{self.model.name} fails on tiles of shape {self.input_shape} ({said}); it must take float32 (batch, "
                "bands, height, width): write layout: NHWC in its card if the bands come last, wrap it in a module "
                "that turns another order or type, or give the `tile` that it is made for"
            ) from problem

    def _check(self, logits: torch.Tensor, count: int) -> None:
        wanted = (self.input_shape[0], len(self.model.card.classes), *self.input_shape[2:])
        logits = logits[:, : wanted[1]] if isinstance(self._module, Mean) else logits
        if tuple(logits.shape) != wanted:
            why = misfit(tuple(logits.shape), self.input_shape, wanted[1])
            raise ModelError(
                f"{self.model.name} returned {tuple(logits.shape)} for an input of {self.input_shape}; "
                f"wanted (batch, classes, height, width) = {wanted}{why and ': '}{why}"
            )
        if self.precision == "fp64" and logits.dtype != self.dtype:
            raise ModelError(
                f"{self.model.name} gives {str(logits.dtype).removeprefix('torch.')} for float64 (fp64): part of it "
                "computes in another precision; use precision fp32"
            )
        if not all_usable(logits[:count]):
            raise ModelError(
                f"{self.model.name} returned NaN or infinite logits; check its weights and the mean and std in its card"
            )


def all_usable(logits: torch.Tensor) -> bool:
    """Return whether the largest of the logits (n, classes, H, W) is a finite number in each pixel.

    One class at minus infinity is no damage: a model rules a class out like that.
    """
    # NaN and infinity show in the sum of all numbers, which takes a tenth of the time. A sum of finite numbers may be
    # infinite too, so a pixel decides.
    return bool(torch.isfinite(logits.sum())) or bool(torch.isfinite(logits.amax(1)).all())


def labels_of(scores: torch.Tensor, dtype: str) -> Labels:
    """Return the class with the largest score, the lowest of equal ones, (n, height, width) of `dtype`."""
    classes = scores.shape[1]
    if scores.device.type != "cpu" or classes > FEW:
        return _best(scores).cpu().numpy().astype(dtype)
    best, labels = scores[:, 0], torch.zeros_like(scores[:, 0], dtype=torch.uint8)
    for k in range(1, classes):
        # The last class that is larger than all classes before it is the first of the largest ones.
        labels = torch.maximum(labels, (scores[:, k] > best).to(torch.uint8).mul_(k))
        best = torch.maximum(best, scores[:, k]) if k + 1 < classes else best
    return labels.numpy().astype(dtype, copy=False)


def integers_of(probabilities: torch.Tensor, scores: torch.Tensor) -> NDArray[np.int32]:
    """Return probabilities times 2**24, rounded, as int32; the class with the largest score gets 1 more."""
    scaled = probabilities.mul(1 << PROBABILITY_BITS).round_().to(torch.int32)
    top = _best(scores)[:, None]
    # Two classes that differ by less than a step of 2**-24 would tie after rounding.
    scaled.scatter_add_(1, top, torch.ones_like(top, dtype=torch.int32))
    return scaled.cpu().numpy()


def finished(logits: torch.Tensor, wanted: str, dtype: str) -> Array:
    """Return labels of `dtype`, probabilities times 2**24 or logits, as `wanted` says, of logits (1, classes, H, W)."""
    if wanted == "labels":
        return np.asarray(labels_of(logits, dtype)[0])
    return np.asarray((logits.cpu().numpy() if wanted == LOGITS else integers_of(logits.softmax(1), logits))[0])


def without_number(logits: torch.Tensor) -> NDArray[np.bool_]:
    """Return True where the largest of logits (1, classes, H, W) is no finite number, (H, W)."""
    return np.asarray(~torch.isfinite(logits[0].amax(0)).cpu().numpy())


def _best(logits: torch.Tensor) -> torch.Tensor:
    """Return the class with the largest logit, the lowest of equal ones, (n, height, width) int64."""
    # `argmax(1)` gives the same result, but over planes on a CPU it is 5 to 35 times slower.
    return logits.max(1).indices
