"""This module shows a run on a terminal: the head of what fits, and one live line while it works.

The live line says how much is done, how fast, how long it still takes, and how much memory all processes use of the
memory that the plan promises. Sentences that must stay are printed above it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tilepipe.cli import say
from tilepipe.cli.memory_use import MemoryUse
from tilepipe.cli.rate import Rate
from tilepipe.events import Event, Listener
from tilepipe.text import clean_line, duration, size_text

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

PER_SECOND = 4
"""Drawings of the live line in a second."""
BAR = 16
"""Width of the bar in characters."""
UNITS = {
    "predict": "blocks",
    "changes": "blocks",
    "statistics": "patches",
    "export": "files",
    "train": "steps",
    "evaluate": "rows",
}
"""What a stage counts."""
STYLES = {"warning": "yellow", "refuse": "red", "note": "cyan"}
"""Colour of a sentence, by the word that it begins with."""
SIZES = ("tiles", "memory", "disk", "time")
"""Rows of the fit table that have a line of their own in the head."""


@contextmanager
def screen() -> Iterator[Listener]:
    """Yield a listener that shows events on the terminal of standard error."""
    console = Console(stderr=True)
    line = LiveLine()
    # The live line is gone at the end: what stays is the head, sentences, and the summary of the command.
    with Live(get_renderable=line.drawn, console=console, refresh_per_second=PER_SECOND, transient=True):

        def show(event: Event) -> None:
            line.update(event)
            if kept := lasting(event, line.image):
                console.print(kept)

        yield show


class LiveLine:
    """The line that changes while a command works."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, used: Callable[[], int] | None = None) -> None:
        """Begin with nothing to show; `clock` tells the time in seconds, `used` the memory in use in bytes."""
        self._clock, self._used = clock, used or MemoryUse(clock)
        self._spinner = Spinner("dots")
        self._event, self._batch = Event(""), Event("")
        self._units, self._images = Rate(clock), Rate(clock)
        self._promise = 0

    def update(self, event: Event) -> None:
        """Take in an event; the next drawing shows it."""
        if event.stage == "batch":
            # An image that is unchanged costs nothing, so it says nothing about the time that the others take.
            self._batch = event
            self._images.update(event.done, skipped=event.data.get("skipped", 0))
        # A stage that begins again, as for the next image of a batch, has a rate of its own.
        elif event.stage != self._event.stage or event.done < self._event.done:
            self._units = Rate(self._clock)
        if event.stage != "batch":
            self._event = event
            self._units.update(event.done)
        self._promise = event.data.get("memory", self._promise)

    @property
    def image(self) -> str:
        """Name of the image of a batch that is in work; '' if there is none."""
        working = self._batch.done < self._batch.total and "note" not in self._batch.data
        return PurePath(self._batch.message).name if working else ""

    def drawn(self) -> ConsoleRenderable:
        """Return the line as it is now."""
        shown = self._batch if self._batch.total else self._event
        row = Table.grid(padding=(0, 1))
        row.add_column(no_wrap=True, min_width=1)
        row.add_column(no_wrap=True, min_width=BAR if shown.total else 0)
        # Rich takes width only from a column that may wrap; the text itself does not, and ends with an ellipsis.
        row.add_column(overflow="ellipsis")
        bar = ProgressBar(total=shown.total, completed=shown.done, width=BAR) if shown.total else Text("")
        row.add_row(self._spinner, bar, Text(self.text(), no_wrap=True, overflow="ellipsis"))
        return row

    def text(self) -> str:
        """Return what the line says."""
        memory = f"memory {size_text(self._used())} of {size_text(self._promise)}" if self._promise else ""
        if self._batch.total:  # A narrow terminal cuts the end off, and one image matters less than the batch.
            stage, _, _ = self._stage_said()
            parts = [*self._images_said(), memory, " ".join((self.image, stage)) if self.image else ""]
        else:
            parts = [*self._stage_said(), memory]
        return clean_line(", ".join(part for part in parts if part)) or "starting"

    def _images_said(self) -> Iterator[str]:
        """Yield what is known of the images of a batch."""
        done, total = self._batch.done, self._batch.total
        failed, rate = self._batch.data.get("failed", 0), self._images.rate
        yield f"{done} of {total} images"
        yield f"{failed} failed" if failed else ""
        if rate and done < total:
            # Below ten an hour the number of a day says more.
            yield f"{3600 * rate:,.0f} an hour" if rate > 1 / 360 else f"{86400 * rate:,.1f} a day"
            yield f"{duration(self._images.left(total))} left"

    def _stage_said(self) -> tuple[str, str, str]:
        """Return what is known of the stage that works: how much is done, how fast, and its message."""
        event, rate = self._event, self._units.rate
        if not event.total:  # the head or the note of this message stands above the line already
            return "" if event.stage == "done" else event.stage, "", ""
        words = event.stage, str(event.done), "of", str(event.total), UNITS.get(event.stage, "")
        speed = []
        if rate and (pixels := event.data.get("pixels", 0)):
            speed.append(f"{rate * pixels / event.total / 1e6:.3g} Mpx/s")
        if rate and event.done < event.total:
            speed.append(f"{duration(self._units.left(event.total))} left")
        message = "" if "note" in event.data else str(say.shown(event.message))
        return " ".join(filter(None, words)), ", ".join(speed), message


def lasting(event: Event, image: str) -> ConsoleRenderable | None:
    """Return what stays on the screen of an event: the head, notes, and messages of stages that count nothing.

    In a batch `image` is the image in work: what is said of it begins with its name, and its head is left out.
    """
    if any(row["state"] == "ok" for row in event.data.get("fit", ())):
        return None if image else head(event)
    said = event.data.get("note") or (event.message if not event.total else "")
    if not said:
        return None
    text = clean_line(say.shown(said))
    style = STYLES.get(text.partition(":")[0], "")
    return Text(f"{clean_line(image)}: {text}" if image and event.stage != "batch" else text, style=style)


def head(event: Event) -> ConsoleRenderable:
    """Return the head of a run: image, model, and the rows of the fit table that are ok."""
    data = event.data
    height, width = data["shape"]
    ok = {row["name"]: row["text"] for row in data["fit"] if row["state"] == "ok"}
    lines = {
        "image": f"{data['image']}, {height} x {width} px, {data['bands']} bands",
        "model": str(data["model"]),
        "fits": ", ".join(name for name in ok if name not in SIZES),
        **{name: ok[name] for name in SIZES if name in ok},
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in lines.items():
        if text:
            table.add_row(name, Text(clean_line(say.shown(text))))
    return table
