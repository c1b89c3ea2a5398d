"""This module reports the progress of a training as events: loss, speed, time left, and the last validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from tilepipe.events import Event, Listener
from tilepipe.text import duration
from tilepipe.training.config import TrainConfig
from tilepipe.training.state import State
from tilepipe.training.validation import best


class Progress:
    """A reporter of a state to a listener. The speed is that of this process, validations included."""

    def __init__(
        self, state: State, config: TrainConfig, listener: Listener, clock: Callable[[], float] = monotonic
    ) -> None:
        self._state, self._config, self._listener, self._clock = state, config, listener, clock
        self._first, self._began = state.step, clock()

    def stepped(self, loss: float) -> None:
        """Report the mean loss since the last row of the log."""
        step, total = self._state.step, self._config.steps
        # The clock may not have moved yet after a first quick step.
        rate = (step - self._first) / max(self._clock() - self._began, 1e-9)
        left = (total - step) / rate
        words = f"loss {loss:.4f}, {rate:.3g} steps/s, {duration(left)} left{self._validation()}"
        data = {"step": step, "loss": loss, "steps_per_second": round(rate, 4), "seconds_left": round(left, 1)}
        self._listener(Event("train", step, total, words, data))

    def validated(self) -> None:
        """Report the last validation."""
        row, classes = self._state.validations[-1], self._config.classes
        iou = {name: value for name, value in zip(classes, row[2:], strict=True) if not math.isnan(value)}
        data = {"step": self._state.step, "mean_iou": row[1], "iou": iou}
        words = self._validation().removeprefix(", ")
        self._listener(Event("train", self._state.step, self._config.steps, words, data))

    def _validation(self) -> str:
        rows = self._state.validations
        if not rows:
            return ""
        step, iou = rows[best(rows)][:2]
        return f", validation mean IoU {rows[-1][1]:.3f}, best {iou:.3f} at step {step:.0f}"
