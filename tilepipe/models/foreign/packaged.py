"""Packaged: a network kept as the bytes of its file, opened when it is first called, in every process anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError, TilepipeError

Forward = Callable[[Tensor], Tensor]
Output = Literal["logits", "probabilities"]
OUTPUTS = ("logits", "probabilities")
"""What a file gives per class; probabilities are those of a softmax or sigmoid."""


class Packaged(nn.Module):
    """(B, bands, H, W) float32 -> logits (B, classes, H, W), by a file that another program made.

    It can be pickled and copied. One output channel for two classes is the logit (or probability) of the second.
    """

    opaque = True
    """Its layers are not torch's: it is measured as a black box."""
    file: Tensor

    def __init__(self, data: bytes, path: Path, classes: int, output: Output = "logits") -> None:
        """`data` are the bytes of the file at `path`, which messages name."""
        super().__init__()
        self.register_buffer("file", torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self.path = path  # a Path and not text: where the file lies is no part of a model's identity
        self.classes = classes
        self.output = output
        self._live: dict[torch.device, Forward] = {}

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return bytes(self.file.cpu().numpy().data)

    def opened(self, device: torch.device) -> Forward:
        """Return the function that computes on `device`; called once per device and process."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return logits. Raises `ModelError` where the file's network fails."""
        if x.is_meta:
            return self._shapes_only(x)
        try:
            if x.device not in self._live:
                self._live[x.device] = self.opened(x.device)
            y = self._live[x.device](x)
        except (TilepipeError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a stranger's network raises
            raise ModelError(f"{self.path} fails on tiles of shape {tuple(x.shape)}: {first_line(error)}") from None
        if not isinstance(y, Tensor) or y.ndim != 4:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ModelError(f"{self.path} gives {got} for {tuple(x.shape)}, not one (B, classes, H, W)")
        return as_logits(y, self.classes, self.output)

    def _shapes_only(self, x: Tensor) -> Tensor:
        raise NotImplementedError("what the file computes is not known without computing it")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live": {}}


def as_logits(y: Tensor, classes: int, output: Output = "logits") -> Tensor:
    """Return logits (B, classes, H, W) of logits or probabilities, with one channel or more.

    A single channel for two classes is that of the second class: the first one's logit is 0 then.
    """
    single = y.shape[1] == 1 and classes == 2
    if output == "logits":
        return torch.cat((torch.zeros_like(y), y), 1) if single else y
    least = torch.finfo(torch.float32).tiny
    y = y if y.dtype == torch.float64 else y.float()
    y = torch.cat((1 - y, y), 1) if single else y
    return y.clamp_min(least).log()


def output_of(arch: dict[str, Any] | None, name: str, found: Output) -> Output:
    """Return what a card's arch says that the file gives, or `found`. Raises `ModelError` for another arch."""
    said = dict(arch or {"name": name})
    output = said.pop("output", found)
    if said != {"name": name} or output not in OUTPUTS:
        raise ModelError(
            f"arch {arch} does not fit; for this file leave it out or write {{'name': '{name}', 'output': 'logits'}} "
            "(or 'probabilities')"
        )
    return output  # type: ignore[no-any-return]


def missing_extra(package: str, extra: str, error: ImportError) -> ModelError:
    """Return the error for a package that is not there, with the line that installs it."""
    absent = getattr(error, "name", None) or ""
    reason = "is not installed" if absent.replace("_", "-") == package else f"cannot be used ({error})"
    return ModelError(f"{package} {reason}; run: pip install 'tilepipe[{extra}]'")


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
