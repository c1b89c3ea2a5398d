"""This module lets images wait that may still be growing: a copy or a scanner may not have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from tilepipe.execution.batch.image_state import Folders, age
from tilepipe.execution.batch.one_image import Looked


class Settling:
    """The images of a batch in the order in which they can be read: images that were changed a moment ago come last."""

    def __init__(self, seconds: float, looked: Sequence[Looked], sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the images with work to do; an image must have stayed unchanged for `seconds`."""
        self._sleep = sleep
        self._fresh = [each for each in looked if seconds > 0 and age(each.item) < seconds and each.seen]
        fresh = {each.output for each in self._fresh}
        self._old = [each for each in looked if each.output not in fresh]
        self._until = time.monotonic() + seconds
        self.growing: list[Looked] = []
        """Images that have changed since they were looked at; the next batch takes them."""

    def settled(self) -> Iterator[Looked]:
        """Yield the images that do not change; wait for the others at the end, once."""
        yield from self._old
        if self._fresh:
            self._sleep(max(0.0, self._until - time.monotonic()))
        folders = Folders()
        for each in self._fresh:
            if folders.state(each.item, each.reads) == each.seen:
                yield each
            else:
                self.growing.append(each)
