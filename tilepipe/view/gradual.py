"""Gradual: something small that is made of something large, part by part, while the page is already open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tilepipe.box import Box
from tilepipe.errors import TilepipeError, ordinary


class Gradual:
    """A smaller version that is filled in a thread of the caller."""

    def __init__(self) -> None:
        """Begin with nothing filled."""
        self.share = 0.0
        """Part that has been filled, 0 to 1."""
        self.trouble = ""
        """Reason why filling has ended early; '' if it has not."""
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let `fill` end soon."""
        self._stop.set()

    def _each(self, boxes: Sequence[Box], add: Callable[[Box], None]) -> None:
        """Call `add` with each box, unless `stop` is called meanwhile; an error of the image is kept as `trouble`."""
        try:
            for number, box in enumerate(boxes, 1):
                if self._stop.is_set():
                    return
                add(box)
                self.share = number / len(boxes)
        except Exception as error:
            known = ordinary(error) or error
            if not isinstance(known, TilepipeError):
                raise
            self.trouble = str(known)
