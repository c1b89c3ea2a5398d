"""torch.compile: torch writes C++ for a network and compiles it. It needs a C++ compiler and a minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tilepipe.inference.runtimes.base import Compiled, GraphError, Subject


class TorchCompile:
    """Compiles the module for fixed shapes, with its weights as constants."""

    def compiled(self, subject: Subject) -> Compiled:
        """Return the compiled module. It is called once, because torch compiles it then."""
        # `freezing` folds batch norms into convolutions and reorders weights. It does so without gradients only.
        options: dict[str, str | int | bool | Callable[..., Any]] = {"freezing": True}
        module = torch.compile(subject.module, fullgraph=True, dynamic=False, options=options)

        def call(tensors: Sequence[Tensor]) -> list[Tensor]:
            with torch.no_grad():
                found = module(*(one.contiguous(memory_format=torch.channels_last) for one in tensors))
            return list(found) if isinstance(found, tuple) else [found]

        try:
            # Tensors that were made in inference mode cannot be compiled with.
            with torch.inference_mode(mode=False), torch.no_grad():
                call([torch.zeros(shape) for shape in subject.shapes])
        except Exception as problem:  # torch's compiler raises what it pleases
            why = " ".join(str(problem).split())[:160]
            raise GraphError(f"torch.compile fails ({type(problem).__name__}: {why})") from None
        return call
