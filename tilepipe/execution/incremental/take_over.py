"""This module takes over labels of an earlier run, before the blocks that have changed are computed.

The image is read once for that, in the executor that computes blocks too. A block that is taken over gets a line in the
ledger which names the earlier run; all others are computed as in any run, and so are blocks that cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from tilepipe.box import Box
from tilepipe.errors import TilepipeError
from tilepipe.events import Event, Listener, silent
from tilepipe.execution.block_queue import BlockQueue
from tilepipe.execution.executors import blocks
from tilepipe.execution.incremental.comparison import CHANGED, Comparison
from tilepipe.execution.incremental.earlier import EarlierRun, shifted, why_nothing
from tilepipe.execution.incremental.earlier_maps import why_unreadable
from tilepipe.execution.job import Job
from tilepipe.execution.ledger import Record, read_records
from tilepipe.execution.run_order import RunOrder
from tilepipe.planning.plan import Plan
from tilepipe.products.labels import open_map
from tilepipe.sources.georeference import pixels_at
from tilepipe.text import setting
from tilepipe.tiling.grid import Index

STAGE = "changes"
"""Name of the stage of events."""
LEDGER = "ledger.jsonl"


def take_over(job: Job, queue: BlockQueue, order: RunOrder, listener: Listener) -> str:
    """Put blocks of the earlier run of an order into ledger and store of `queue`, if they are what the job computes.

    Returns a sentence about it, which the listener is told too; '' if there is no earlier run.
    """
    if order.earlier is None or order.earlier.directory.resolve() == order.directory.resolve():
        return ""
    missing, earlier = queue.missing(), fitting(job, order.earlier, order)
    if isinstance(earlier, str):
        listener(Event("plan", message=f"note: {earlier}", data={"note": earlier}))
        return earlier
    if missing:
        _compare(job, _Comparisons(job.plan, missing, earlier, listener, queue.take), order.scheduler)
    done, total = queue.ledger.done.values(), sum(1 for _ in job.plan.blocks())
    said = counted(job, earlier, sum(bool(record.taken) for record in done), total)
    listener(Event(STAGE, len(missing), len(missing), said, {"note": said}))
    return said


def would_take(job: Job, order: RunOrder) -> str:
    """Return the sentence of `take_over` before a run: the image is read, and nothing is written."""
    assert order.earlier is not None
    earlier = fitting(job, order.earlier, order)
    if isinstance(earlier, str):
        return earlier
    comparisons = _Comparisons(job.plan, list(job.plan.blocks()), earlier, silent)
    _compare(job, comparisons)
    return counted(job, earlier, comparisons.taken, len(comparisons.missing()))


def fitting(job: Job, earlier: EarlierRun, order: RunOrder) -> EarlierRun | str:
    """Return the earlier run with the shift of its blocks, or the sentence that says why no block can be taken over."""
    why = why_nothing(earlier, job, order.asked, order.settings)
    if not why and earlier.plan:
        why = why_unreadable(earlier, earlier.plan)
    if not why and (placed := shifted(earlier, job.plan, order.canvas)):
        return placed
    return f"every block is computed: {why or f'the blocks of {earlier.labels.name} lie at other places'}"


def counted(job: Job, earlier: EarlierRun, taken: int, total: int) -> str:
    """Return how many blocks are taken over, and how many are computed."""
    name = earlier.labels.name
    if not taken:
        return f"every block is computed: none sees the pixels that {name} was made from{_elsewhere(job, earlier)}"
    were, left = "is" if taken == 1 else "are", total - taken
    return f"{taken:,} of {total:,} blocks {were} taken from {name}, {left:,} {'is' if left == 1 else 'are'} computed"


def _elsewhere(job: Job, earlier: EarlierRun) -> str:
    """Return what to type if the image begins at another place than that of the earlier run; '' if it does not."""
    with suppress(TilepipeError):
        before, now = open_map(earlier.labels).georeference, job.wanted.image.georeference
        whole = Box.of_shape(*job.plan.shape) == job.plan.region
        if before and now and before.transform and now.transform and whole:
            column, row = pixels_at(before.transform, now.transform[2], now.transform[5])
            down, right = round(row), round(column)
            if down or right:
                return (
                    f"; the image begins {abs(down)} rows {'above' if down < 0 else 'below'} and {abs(right)} columns "
                    f"{'left' if right < 0 else 'right'} of that one, and tiles lie at the same places only if both "
                    f"runs have {setting(grid='world')}, `tile` and `overlap`"
                )
    return ""


def _compare(job: Job, comparisons: _Comparisons, scheduler: str | None = None) -> None:
    blocks.run(job, comparisons, scheduler, make=partial(Comparison, earlier=comparisons.earlier))


class _Comparisons:
    """The blocks that are to be compared; see `block_queue.Queue`. No block waits for another one."""

    def __init__(
        self,
        plan: Plan,
        missing: list[Index],
        earlier: EarlierRun,
        listener: Listener,
        keep: Callable[[Record], None] | None = None,
    ) -> None:
        """Take the blocks, the earlier run, and what keeps a line of a block that is taken over."""
        self.earlier, self.taken = earlier, 0
        self._plan, self._missing, self._listener, self._keep = plan, missing, listener, keep
        self._before, _ = read_records(earlier.directory / LEDGER)
        self._done = 0

    def missing(self) -> list[Index]:
        return self._missing

    def ready(self, block: Index) -> bool:
        return True

    def later(self, block: Index) -> list[Index]:
        return []

    def dependencies(self, block: Index) -> tuple[Record, ...]:
        """Return the lines of the earlier run that say what the tiles have seen which decide a block."""
        near = self._plan.grid.earlier(block) if self._plan.grid.blended else []
        there = (self.earlier.block(one) for one in (block, *near))
        return tuple(self._before[one] for one in there if min(one) >= 0 and one in self._before)

    def commit(self, record: Record) -> None:
        self._done += 1
        if record.sha256 != CHANGED:
            self.taken += 1
            if self._keep:
                self._keep(record)
        self._listener(Event(STAGE, self._done, len(self._missing)))

    def say(self, message: str) -> None:
        self._listener(Event(STAGE, self._done, len(self._missing), message, {"note": message}))
