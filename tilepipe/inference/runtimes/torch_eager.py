"""Torch itself, operation by operation, with tiles channels last: what every other runtime is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tilepipe.inference.runtimes.base import Compiled, Subject


class TorchEager:
    """Calls the module."""

    def compiled(self, subject: Subject) -> Compiled:
        """Return the module, which takes tensors of any shape that it can take."""
        module = subject.module

        def call(tensors: Sequence[Tensor]) -> list[Tensor]:
            with torch.inference_mode():
                found = module(*(one.contiguous(memory_format=torch.channels_last) for one in tensors))
            return list(found) if isinstance(found, tuple) else [found]

        return call
