"""This module works on the images of a batch, one or several at a time, and opens the next one meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from tilepipe.events import Event, Listener
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.one_image import Looked, Opened, do, open_image
from tilepipe.execution.batch.record import Entry

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
    return _together(batch, models, images, begun)


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


def _together(
    batch: Batch, models: Sequence[Model], images: Iterator[Looked], begun: Begun
) -> Iterator[tuple[Looked, Entry]]:
    one_at_a_time, stopped = threading.Lock(), threading.Event()
    ended: SimpleQueue[tuple[Looked, Entry] | BaseException | None] = SimpleQueue()

    def tell(event: Event) -> None:
        # An image hears of the stop with its next block.
        if stopped.is_set():
            raise KeyboardInterrupt
        # Blocks of several images would make one figure jump.
        if event.message and event.stage != "predict":
            with one_at_a_time:
                begun.listener(event)

    def work(model: Model) -> None:
        try:
            while not stopped.is_set():
                with one_at_a_time:
                    each = next(images, None)
                    if each is not None:
                        begun.begin(each)
                if each is None:
                    break
                ended.put((each, do(batch, each, _opened(batch, each, model), model, tell)))
            ended.put(None)
        except BaseException as error:
            ended.put(error)

    threads = [
        threading.Thread(target=copy_context().run, args=(work, model), daemon=True, name="image") for model in models
    ]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            found = ended.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
            else:
                with one_at_a_time:
                    yield found
    finally:
        stopped.set()
        for thread in threads:
            thread.join(STOP_SECONDS / len(threads))


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
