"""Packaged: a network kept as the bytes of its file, opened when it is first called, in every process anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from tilepipe.errors import DeviceError, ModelError, TilepipeError, ordinary
from tilepipe.models.calling_convention import CallingConvention
from tilepipe.models.card import ModelCard, Output
from tilepipe.models.output import as_logits, misfit, tensor_of
from tilepipe.models.recognise import recognise
from tilepipe.text import JSON

Forward = Callable[[Tensor], object]
OUTPUTS = get_args(Output)


class Packaged(nn.Module):
    """Maps (B, bands, H, W) float32 to logits (B, classes, H, W) by a file that another program made.

    It can be pickled and copied. One output channel for two classes is the logit (or probability) of the second class.
    """

    opaque = True
    """Whether the layers are not torch's, so that the network is measured as a black box."""
    file: Tensor
    convention = CallingConvention()
    """How the network takes tiles; the default is the usual way."""

    def __init__(self, data: bytes, path: Path, card: ModelCard) -> None:
        """Keep `data`, the bytes of the file at `path`; `card` may say what the file gives. Messages name `path`."""
        super().__init__()
        # As a buffer, the bytes belong to copies, pickles and the identity of the network. torch wants memory that may
        # be written, which bytes are not.
        self.register_buffer("file", torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self.path = path  # a Path and not text: where the file lies is no part of a model's identity
        self.classes = len(card.classes)
        self.output: Output = card.output or "logits"
        self.key = card.key
        # Every attribute becomes part of the network's identity, so the usual convention is no attribute.
        if (convention := self.convention_of(card)) != self.convention:
            self.convention = convention
        self._live: dict[torch.device, Forward] = {}

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return bytes(self.file.cpu().numpy().data)

    @staticmethod
    def convention_of(card: ModelCard) -> CallingConvention:
        """Return how the file takes tiles, by its card."""
        return CallingConvention.of(card)

    def opened(self, device: torch.device) -> Forward:
        """Return the function that computes on `device`; this is called once per device and process."""
        raise NotImplementedError

    def recognise(self, card: ModelCard, *, told: bool = False) -> ModelCard:
        """Find out by one made-up tile what the file returns, and return the card that says so.

        `told` means that the file says it ends in a sigmoid or softmax. Raises `ModelError` for an unreadable output.
        """
        with self._in_one_sentence("cannot be opened"):
            opened = self._on(torch.device("cpu"))
        form = recognise(
            opened, card.model_copy(update={"key": self.key}), str(self.path), told=told, convention=self.convention
        )
        self.output = form.output if form else card.output or ("probabilities" if told else "logits")
        return card.model_copy(update={"output": None if self.output == "logits" else self.output})

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W). Raises `ModelError` if the file's network fails."""
        if x.is_meta:
            return self._shapes_only(x)
        with self._in_one_sentence(f"fails on tiles of shape {tuple(x.shape)}"):
            returned = self.convention.call(self._on(x.device), x)
        y = tensor_of(returned, x, self.classes, self.key, str(self.path))
        if problem := misfit(tuple(y.shape), tuple(x.shape), self.classes, self.output):
            raise ModelError(f"{self.path} gives {tuple(y.shape)} for {tuple(x.shape)}: {problem}")
        return self.convention.decided(as_logits(y, self.classes, self.output))

    def _on(self, device: torch.device) -> Forward:
        if device not in self._live:
            self._live[device] = self.opened(device)
        return self._live[device]

    @contextmanager
    def _in_one_sentence(self, what: str) -> Iterator[None]:
        try:
            yield
        except (TilepipeError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # an unknown network may raise anything
            if isinstance(trouble := ordinary(error), DeviceError):
                raise trouble from error
            raise ModelError(f"{self.path} {what}: {first_line(error)}") from None

    def _shapes_only(self, x: Tensor) -> Tensor:
        raise NotImplementedError("what the file computes is not known without computing it")

    def __getstate__(self) -> JSON:
        # Sessions and scripts cannot be pickled; each process opens its own.
        return {**self.__dict__, "_live": {}}


def said_by(card: ModelCard, name: str) -> ModelCard:
    """Return the card with the kind of output that its arch states. Raises `ModelError` for another arch."""
    said = dict(card.arch or {"name": name})
    output = said.pop("output", card.output)
    if said != {"name": name} or output not in (None, *OUTPUTS):
        raise ModelError(
            f"arch {card.arch} does not fit; for this file leave it out or write {{'name': '{name}', "
            "'output': 'logits'}} (or 'probabilities')"
        )
    return card.model_copy(update={"output": output})


def missing_extra(package: str, extra: str, error: ImportError) -> ModelError:
    """Return the error for a package that is not installed; the error names what is missing and how to install it."""
    absent = (getattr(error, "name", None) or "").partition(".")[0].replace("_", "-")
    if absent and absent != package and isinstance(error, ModuleNotFoundError):
        # The package is there, and another one that it needs is not.
        what = f"{package} needs {absent}, which is not installed"
    else:
        what = f"{package} {'is not installed' if absent == package else f'cannot be used ({error})'}"
    return ModelError(f"{what}; run: pip install 'tilepipe[{extra}]'")


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
