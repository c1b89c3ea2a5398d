"""Columns: passes of a model down the columns of an image, band by band. This module knows no files and no blends.

All bands begin at multiples of their height, counted from the top of the image. So a pass that begins further down
makes, some rows below its first one (`Bands.lead`), the same calls on the same numbers as a pass from the top, and its
results have the same bits. A pass goes on where the last one of the same column has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import DeviceError, ordinary
from tilepipe.inference.banded.held import Under
from tilepipe.inference.banded.network import Pass
from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.bands import CompiledBands, CompiledPass, usable_bands, usable_network
from tilepipe.inference.runtimes.base import TORCH
from tilepipe.inference.statistics.capture import Nodes
from tilepipe.models.model import Model
from tilepipe.models.precision import arithmetic, dtype_of
from tilepipe.stage_times import stage
from tilepipe.tiling.statistics_grid import Statistics
from tilepipe.tiling.tiling import Bands

Read = Callable[[Box], Future[Pixels]]
"""Begins to read a box, (bands, height, width)."""
Logits: TypeAlias = Tensor
"""Logits on the device, (1, classes, rows, columns)."""
Take = Callable[[Box, Logits], None]
"""Takes the logits (1, classes, box.height, box.width) of a box."""
Watch = Callable[[], AbstractContextManager[None]]
"""Returns a context in which the model is called once."""


@dataclass
class _Down:
    """A pass down one column."""

    span: tuple[int, int]
    """First column of pixels, and the column after the last."""
    going: Pass | CompiledPass
    """The pass."""
    fed: int
    """Row after the last that the pass was given."""
    done: int
    """Row after the last that was taken; rows of `waiting` begin here."""
    coming: Iterator[Tensor] = field(default_factory=lambda: iter(()))
    """Logits of the last band that the pass was given."""
    waiting: Tensor | None = None
    """Logits that lie ready for the rows below."""
    ahead: tuple[Box, Future[Pixels]] | None = None
    """Band that is read already."""


class Columns:
    """Runs one model on one device down columns of an image. One thread computes at a time, a whole call of `run`."""

    def __init__(
        self,
        model: Model,
        bands: Bands,
        stride: int,
        compute: Compute,
        statistics: Statistics | None = None,
        around: Callable[[Box], Nodes] | None = None,
    ) -> None:
        """Bring the model to the device of `compute`. Raises `ModelError` if it cannot be computed in bands.

        If `statistics` of norms and poolings are held fixed, `around` gives those around a box.
        """
        self.model, self.bands, self.precision = model, bands, compute.precision
        self.device, self.dtype = torch.device(compute.device), dtype_of(compute.precision)
        self._network = usable_network(model, stride, compute, statistics)
        self._around, self._compute = around, compute
        self._compiled: CompiledBands | None = None
        self._down: _Down | None = None
        # One thread computes all passes. The C library keeps freed memory for the thread that has freed it, so a pass
        # that went from thread to thread would take twice the memory.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="columns")

    def run(self, over: Box, height: int, read: Read, take: Take, watch: Watch = nullcontext) -> None:
        """Compute the logits of `over`, which spans the columns of a tile, and give them to `take` from top to bottom.

        `height` is that of the image, padded to the stride. Raises `DeviceError` and what `read` and `take` raise.
        """
        self._thread.submit(self._run, over, height, read, take, watch).result()

    def seen(self, over: Box) -> range:
        """Return the rows that a new pass would be given for `over`; `run` has just computed it."""
        assert self._down is not None
        return range(self.top(over), self._down.fed)

    def top(self, over: Box) -> int:
        """Return the row at which a pass begins that has, at the first row of `over`, the bits of a pass from the
        top."""
        bands = self.bands
        top = max(0, over.y0 // bands.height * bands.height - bands.lead)
        if self._compute.runtime == TORCH:
            return top
        # At the top of the image torch computes the first bands. What sees them must see them in every pass.
        first = self._in_runtime(over.x1 - over.x0).middle.first
        return 0 if over.y0 < first * bands.height + bands.lead else top

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown()

    def _run(self, over: Box, height: int, read: Read, take: Take, watch: Watch) -> None:
        down, self._down = self._down, None  # an error leaves no pass that ends somewhere
        span = (over.x0, over.x1)
        if down is None or down.span != span or not 0 <= over.y0 - down.done <= self.bands.lead:
            down = self._begun(over)
        while down.done < over.y1:
            if down.waiting is not None:
                self._hand_out(down, over, take)
                continue
            with watch(), self._computing():
                down.waiting = next(down.coming, None)
            if down.waiting is None:
                box, pixels = self._next(down, over.y1, height, read)
                down.coming = self._logits(down.going, pixels, last=box.y1 == height)
        self._down = down

    def _begun(self, over: Box) -> _Down:
        """Return a new pass that has, at the first row of `over`, the bits of a pass from the top."""
        span, top = (over.x0, over.x1), self.top(over)
        if self._compute.runtime == TORCH:
            return _Down(span, self._network.begin(self._under(top, *span)), top, top)
        compiled = self._in_runtime(over.x1 - over.x0)
        if top == 0:
            return _Down(span, compiled.begin(top=True), 0, 0)
        return _Down(span, compiled.begin(top=False), top, top - compiled.middle.delay)

    def _in_runtime(self, width: int) -> CompiledBands:
        if self._compiled is None or self._compiled.width != width:
            shape = (self.bands.height, width)
            self._compiled = usable_bands(self._network, self.model, self._compute, shape)
        return self._compiled

    def _under(self, top: int, left: int, right: int) -> Under | None:
        """Return what gives the statistics of rows of a pass that begins at row `top`."""
        around = self._around
        return around and (lambda first, last: around(Box(top + first, left, top + last, right)))

    def _next(self, down: _Down, until: int, height: int, read: Read) -> tuple[Box, Pixels]:
        """Return the next band of a pass, and begin to read the band below it."""
        box, pixels = down.ahead or self._reading(down, down.fed, height, read)
        down.fed = box.y1
        # The last bands of a call are read by the next call, if there is one.
        more = box.y1 < min(until + self.bands.height, height)
        down.ahead = self._reading(down, box.y1, height, read) if more else None
        with stage("wait"):
            return box, pixels.result()

    def _reading(self, down: _Down, top: int, height: int, read: Read) -> tuple[Box, Future[Pixels]]:
        box = Box(top, down.span[0], min(top + self.bands.height, height), down.span[1])
        return box, read(box)

    def _logits(self, going: Pass | CompiledPass, pixels: Pixels, *, last: bool) -> Iterator[Tensor]:
        """Yield the logits that a pass gives for its next band; nothing is computed before they are asked for."""
        # Convolutions are fastest in this order of memory, in which rows lie side by side too.
        x = self.model.normalise(torch.from_numpy(pixels[None]).to(self.device), self.dtype)
        for logits in going.parts(x.contiguous(memory_format=torch.channels_last), last=last):
            yield logits.to(self.dtype)

    def _hand_out(self, down: _Down, over: Box, take: Take) -> None:
        """Give away the rows that lie ready, as far as they are asked for; keep those below."""
        assert down.waiting is not None
        end = down.done + down.waiting.shape[2]
        start, stop = max(down.done, over.y0), min(end, over.y1)
        if start < stop:
            with self._computing():
                part = down.waiting[:, :, start - down.done : stop - down.done]
                take(Box(start, over.x0, stop, over.x1), part)
        # A copy, since a view of a few rows would keep all of them in memory.
        down.waiting = down.waiting[:, :, stop - down.done :].clone() if stop < end else None
        down.done = min(end, over.y1)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute with the switches of a run; say in one sentence what a device cannot do."""
        try:
            with arithmetic(self.device, self.precision), stage("compute"):
                yield
        except torch.OutOfMemoryError:
            raise DeviceError(
                f"{self.device} cannot hold bands of {self.bands.height} rows; give less `memory` or a `tile`"
            ) from None
        except RuntimeError as problem:
            if (trouble := ordinary(problem)) is not None:
                raise trouble from problem
            raise
