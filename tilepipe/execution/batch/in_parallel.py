"""This module works on the images of a batch, one or several at a time, and opens the next one meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from tilepipe.events import Event, Listener
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.one_image import Looked, Opened, do, open_image
from tilepipe.execution.batch.record import DONE, PARTIAL, Entry

if TYPE_CHECKING:
    from tilepipe.models.model import Model

STOP_SECONDS = 8.0
"""Longest time that a batch which is stopped waits for its images (seconds)."""
Ready: TypeAlias = "tuple[Looked, Opened | Exception]"
T = TypeVar("T")


class Begun(Protocol):
    """Hears which images are begun, and the events of the work on them."""

    listener: Listener
    """Hears the events of an image."""

    def begin(self, looked: Looked) -> None:
        """Hear that an image is begun."""


def worked_on(
    batch: Batch, models: Sequence[Model], images: Iterator[Looked], begun: Begun
) -> Iterator[tuple[Looked, Entry]]:
    """Yield what became of each image, as images end; as many are worked on at a time as there are `models`."""
    if len(models) == 1:
        return _one_by_one(batch, models[0], images, begun)
    return _Together(batch, images, begun).run(models)


def _one_by_one(batch: Batch, model: Model, images: Iterator[Looked], begun: Begun) -> Iterator[tuple[Looked, Entry]]:
    def following() -> Ready | None:
        each = next(images, None)
        return None if each is None else (each, _opened(batch, each, model))

    ahead = _in_thread(following)
    while ready := ahead():
        ahead = _in_thread(following)
        each, image = ready
        begun.begin(each)
        yield each, do(batch, each, image, model, begun.listener)


class _Together:
    """Several images at a time, each in a thread with a model of its own."""

    def __init__(self, batch: Batch, images: Iterator[Looked], begun: Begun) -> None:
        from tilepipe.models.precision import ONE_AT_A_TIME  # it opens torch

        self._batch, self._images, self._begun = batch, images, begun
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._accounted = time.process_time()
        self._ended: SimpleQueue[tuple[Looked, Entry] | BaseException | None] = SimpleQueue()
        # Planning measures the model in ways in which torch crashes if two threads do so at once. Calls of a model come
        # one at a time anyway; what goes on beside them is reading, decoding and writing.
        self._calls, self._planning = ONE_AT_A_TIME, threading.local()

    def run(self, models: Sequence[Model]) -> Iterator[tuple[Looked, Entry]]:
        """Yield what became of each image; if the caller is stopped, the images in work stop with their next block."""
        threads = [
            threading.Thread(target=copy_context().run, args=(self._work, model), daemon=True, name="image")
            for model in models
        ]
        for thread in threads:
            thread.start()
        try:
            left = len(threads)
            while left:
                found = self._ended.get()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    left -= 1
                else:
                    with self._lock:
                        yield found[0], self._with_processor_time(found[1])
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join(STOP_SECONDS / len(threads))

    def _with_processor_time(self, entry: Entry) -> Entry:
        """Return an entry with what the process has spent since the last image ended, so that the sum is that of all.

        A process does not know which of its images has spent its time, and worker processes tell nothing.
        """
        if entry.status not in (DONE, PARTIAL) or self._batch.jobs.settings.get("workers"):
            return entry
        now = time.process_time()
        spent, self._accounted = now - self._accounted, now
        return replace(entry, processor_seconds=round(spent, 3))

    def _work(self, model: Model) -> None:
        try:
            while (each := self._next()) is not None:
                self._calls.acquire()
                self._planning.now = True
                try:
                    image = _opened(self._batch, each, model)
                    self._ended.put((each, do(self._batch, each, image, model, self._tell)))
                finally:
                    self._planned()
            self._ended.put(None)
        except BaseException as error:
            self._ended.put(error)

    def _next(self) -> Looked | None:
        with self._lock:
            each = None if self._stopped.is_set() else next(self._images, None)
            if each is not None:
                self._begun.begin(each)
        return each

    def _tell(self, event: Event) -> None:
        if event.stage != "plan":
            self._planned()
        if self._stopped.is_set():
            raise KeyboardInterrupt
        # Blocks of several images would make one figure jump.
        if event.message and event.stage != "predict":
            with self._lock:
                self._begun.listener(event)

    def _planned(self) -> None:
        if getattr(self._planning, "now", False):
            self._planning.now = False
            self._calls.release()


def _opened(batch: Batch, looked: Looked, model: Model) -> Opened | Exception:
    try:
        return open_image(batch, looked, model)
    except Exception as error:
        return error


def _in_thread(call: Callable[[], T]) -> Callable[[], T]:
    """Start a call in a thread, which does not keep the process from ending; return a function that waits for it."""
    found: SimpleQueue[T | BaseException] = SimpleQueue()

    def answer() -> None:
        try:
            found.put(call())
        except BaseException as error:
            found.put(error)

    threading.Thread(target=copy_context().run, args=(answer,), daemon=True, name="next image").start()

    def wait() -> T:
        result = found.get()
        if isinstance(result, BaseException):
            raise result
        return result

    return wait
