"""Chunks: boxes of a dask array; a chunk is computed once and kept while there is room, since boxes overlap."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from tilepipe.arrays import Array
from tilepipe.sources.checks import LARGE_PIECE_BYTES, READERS, decoding_alone

if TYPE_CHECKING:
    import dask.array as da

KEPT_BYTES = 128 << 20
"""Largest size of all chunks that are kept in a process [bytes]; a larger chunk is never kept."""
WIDEST = 8
"""Largest size of a value while a graph is computed [bytes]: each step of a graph has one chunk and makes another."""
Place = tuple[int, ...]
"""Place of a chunk among the chunks of an array."""


class Chunks:
    """The chunks of a dask array. `read` may be called from several threads.

    Chunks are computed by the scheduler that the caller has chosen for Dask (a `distributed.Client`, or
    `dask.config`), else in the thread that reads. A copy in another process computes them there.
    """

    def __init__(self, array: da.Array) -> None:
        self.array = array
        self._sent = False
        self._begin()

    def _begin(self) -> None:
        self._kept: OrderedDict[Place, Array] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._one_each: dict[Place, threading.Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"array": self.array}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.array, self._sent = state["array"], True
        self._begin()

    @property
    def values(self) -> int:
        """Number of values of the largest chunk."""
        return math.prod(int(max(sizes)) for sizes in self.array.chunks)

    @property
    def room(self) -> int:
        """Size of the chunks that are kept at most [bytes]; 0 if a chunk is too large to be kept."""
        fits = self.values * self.array.dtype.itemsize <= KEPT_BYTES
        return min(int(self.array.nbytes), KEPT_BYTES) if fits else 0

    @property
    def futures(self) -> dict[Hashable, Any]:
        """Parts of the array that lie on the workers of a cluster, because the caller has persisted them."""
        # Who has such an object has imported distributed.
        return {key: part for key, part in self.array.__dask_graph__().items() if _is_future(part)}

    def bind(self, client: Any) -> None:
        """Let a copy in a worker get what lies on the workers through the worker's own client."""
        for part in self.futures.values():
            part.bind_client(client)
        # A client learns that a result is there only if the scheduler knows that it wants it, as in `get_dataset`.
        client._inform_scheduler_of_futures()

    def read(self, where: Sequence[slice]) -> Array:
        """Return a part of the array as a numpy array, or as a masked array if chunks are.

        If a chunk has another shape than the array says, a part of that chunk is returned, whose shape shows it.
        """
        cuts = [list(_cut(part, sizes)) for part, sizes in zip(where, self.array.chunks, strict=True)]
        whole: list[Array] = []
        for pieces in itertools.product(*cuts):
            place = tuple(number for number, _, _ in pieces)
            found = self._chunk(place, tuple(inside for _, inside, _ in pieces))
            if found.shape != tuple(inside.stop - inside.start for _, inside, _ in pieces):
                return found
            whole.append(found)
        join = np.ma.concatenate if any(isinstance(part, np.ma.MaskedArray) for part in whole) else np.concatenate
        for axis in reversed(range(self.array.ndim)):  # the last axis varies fastest
            count = len(cuts[axis])
            if count > 1:
                whole = [join(whole[k : k + count], axis) for k in range(0, len(whole), count)]
        return whole[0]

    def forget(self) -> None:
        """Keep no chunk any more."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def each(self) -> Iterator[tuple[str, Array]]:
        """Yield the place of every chunk in words, and its values. Several chunks are computed at once.

        Nothing that was kept is used, since what lies below the array may have changed. What is computed is kept.
        """
        self.forget()
        ranges = [
            list(_cut(slice(0, side), sizes)) for side, sizes in zip(self.array.shape, self.array.chunks, strict=True)
        ]
        all_pieces = list(itertools.product(*ranges))

        def one(pieces: tuple[tuple[int, slice, slice], ...]) -> tuple[str, Array]:
            words = " ".join(f"{outside.start}:{outside.stop}" for _, _, outside in pieces)
            return words, self._chunk(tuple(number for number, _, _ in pieces), None)

        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(all_pieces), READERS):  # more at once would wait in memory
                yield from pool.map(one, all_pieces[start : start + READERS])

    def _chunk(self, place: Place, inside: tuple[slice, ...] | None) -> Array:
        """Return a part of a chunk, the whole chunk for None. Another thread waits while a chunk is computed."""
        if not self.room:
            lazy = self.array.blocks[place]
            with self._alone():
                # A copy, since a view would keep the whole chunk.
                part_of: Array = self._compute(lazy if inside is None else lazy[inside]).copy()
                return part_of
        with self._lock:
            mine = self._one_each.setdefault(place, threading.Lock())
        with mine:
            found = self._known(place)
            if found is None:
                with self._alone():
                    found = self._compute(self.array.blocks[place])
                self._keep(place, found)
        part: Array = found if inside is None else found[inside]
        return part

    def _alone(self) -> AbstractContextManager[Any]:
        large = self.values * WIDEST > LARGE_PIECE_BYTES
        return decoding_alone(os.getpid()) if large else nullcontext()

    def _known(self, place: Place) -> Array | None:
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
            return self._kept.get(place)

    def _keep(self, place: Place, chunk: Array) -> None:
        with self._lock:
            self._kept[place] = chunk
            self._size += chunk.nbytes
            while self._size > self.room and len(self._kept) > 1:
                oldest, forgotten = self._kept.popitem(last=False)
                self._size -= forgotten.nbytes
                self._one_each.pop(oldest, None)

    def _compute(self, part: da.Array) -> Array:
        import dask

        futures = self.futures
        if futures and self._sent:
            found: Array = _here(part, futures)
            return found
        # Without a scheduler of the caller's, the threads that read are the parallelism.
        own = "synchronous" if self._sent else dask.config.get("scheduler", None) or "synchronous"
        scheduler = next(iter(futures.values())).client.get if futures else own
        computed: Array = part.compute(scheduler=scheduler)
        return computed


def _is_future(part: object) -> bool:
    kind = type(part)
    return kind.__name__ == "Future" and kind.__module__.startswith("distributed.")


def _here(part: da.Array, futures: dict[Hashable, Any]) -> Array:
    """Compute a part in this thread, from what lies on the workers of a cluster.

    A worker that waited for tasks of its own cluster could wait for ever: its threads are busy with the run.
    """
    import dask
    from dask.optimization import cull

    graph, _ = cull(dict(part.__dask_graph__()), part.__dask_keys__())
    fetched = {key: value.result() if key in futures else value for key, value in graph.items()}
    import dask.array as da

    with dask.config.set(scheduler="synchronous"):
        found: Array = da.Array(fetched, part.name, part.chunks, part.dtype, part._meta).compute()
    return found


def _cut(part: slice, sizes: tuple[int, ...]) -> Iterator[tuple[int, slice, slice]]:
    """Yield the pieces of a range of pixels that lie in one chunk each: the chunk's number, the range inside the chunk,
    and the range inside the array. `sizes` are the sizes of all chunks."""
    ends = list(itertools.accumulate(sizes))
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        low, high = max(start, part.start), min(end, part.stop)
        if low < high:
            yield number, slice(low - start, high - start), slice(low, high)
