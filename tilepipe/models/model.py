"""Model: a network and its card, ready to be called on tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard, Output
from tilepipe.models.facts import Facts, card_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A network with its card, ready for `segment`, `predict`, `plan` and `probe`.

    `tp.Model.from_torch` makes a model of a torch module, and `tp.load_model` reads one from disk. A model can be
    pickled if its module can.

    Example:
        >>> import torch
        >>> import tilepipe as tp
        >>> module = torch.nn.Conv2d(3, 2, kernel_size=3, padding=1)
        >>> model = tp.Model.from_torch(module, tp.ModelCard(bands=3, classes=["dark", "bright"]))
        >>> model.parameters
        56
    """

    facts: ClassVar[Facts | None] = None
    """Facts that are known although the network has not been read (`unread.Unread`); None if it has been read."""
    card: ModelCard
    """Card that says what the model reads and what its classes mean."""
    module: nn.Module
    """Network from (B, bands, H, W) float32, normalised, to logits (B, classes, H, W); in eval mode, on the CPU."""
    name: str = "python"
    """Name in messages: the directory that the model was loaded from, or 'python'."""
    certificate: str | None = None
    """Text of certificate.json beside the network, which `probe.certificate_file` judges; None if there is none."""
    members: tuple[Model, ...] = field(default=(), repr=False)
    """Models whose probabilities this model averages (`joint.Ensemble`); empty for one network."""

    @classmethod
    def from_torch(
        cls,
        module: nn.Module,
        card: ModelCard | Mapping[str, Any],
        name: str = "python",
        *,
        output: Output | None = None,
        key: str | int | None = None,
    ) -> Model:
        """Wrap a copy of a torch module, in eval mode and float32 on the CPU. The module itself stays as it is.

        Later changes of the module do not change the model: wrap the module again. Objects that cannot be copied (a
        session of a runtime, an open file) are shared.

        Args:
            module: Maps (B, bands, H, W) float32 to (B, classes, H, W) of the same height and width.
            card: What the module expects, or a dict of the card's fields. `mean` and `std` of the card scale the pixels
                first.
            name: What messages call the model.
            output: What the module gives: 'logits', 'probabilities' or 'labels'. If it is left out here and in the
                card, one made-up tile shows it.
            key: Name or place of the scores, if the module gives a dict, a tuple or an object.

        Raises:
            ModelError: `module` is no module, a parameter has no values, the card's stride does not fit the module's
                own `stride`, the card names one class only, or the output cannot be read.
        """
        from torch import nn

        from tilepipe.models.copying import own_copy
        from tilepipe.models.output import wrapped
        from tilepipe.models.recognise import readable

        if not isinstance(module, nn.Module):
            raise ModelError(f"a {type(module).__name__} is not a torch.nn.Module; wrap a function in a module first")
        card = card_of(card)
        if output is not None or key is not None:
            said = {"output": output or card.output, "key": card.key if key is None else key}
            card = ModelCard(**{**card.model_dump(exclude_unset=True), **said})
        model = cls.owning(own_copy(module), card, name)
        # Networks of ours give logits, so there is nothing to recognise.
        if type(module).__module__.startswith("tilepipe."):
            return cls(model.card, wrapped(model.module, card), name)
        read, gives = readable(model.module, card, name)
        return cls(card if gives == "logits" else card.model_copy(update={"output": gives}), read, name)

    @classmethod
    def owning(cls, module: nn.Module, card: ModelCard, name: str = "python") -> Model:
        """Wrap a module that nobody else holds; the module is switched to eval mode and moved to float32 on the CPU.

        A card that states no stride gets the module's own `stride`. Raises `ModelError` if the card states a stride
        that does not fit, or names one class only.
        """
        stride = getattr(module, "stride", None)
        card = with_stride(card, stride) if isinstance(stride, int) else card
        if isinstance(stride, int) and card.stride % stride:
            raise ModelError(
                f"the card says stride {card.stride}, the network subsamples by {stride}; give the card stride={stride}"
            )
        refuse_one_class(card)
        import torch

        return cls(card, module.to("cpu", torch.float32).eval(), name)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model as a directory, which `load_model` reads, and return its path.

        Raises `ModelError` if the network is not one of tilepipe's architectures, `UsageError` if the path exists.
        """
        from tilepipe.models.formats.directory import save_model

        return save_model(self, path, overwrite=overwrite)

    def to_torch(self, *, scaled: bool = False) -> nn.Module:
        """Return a copy of the network for other programs, in eval mode and float32 on the CPU.

        It maps (B, bands, H, W) to logits (B, classes, H, W). Its input is scaled with mean and std of the card before;
        with `scaled` the copy does this itself and takes pixels as the image has them.
        """
        from tilepipe.models.copying import own_copy
        from tilepipe.models.scaled import Scaled

        mine = own_copy(self.module)
        return Scaled(mine, self.card).eval() if scaled else mine

    def to_onnx(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model as a folder of weights.onnx, model.json and README.md, and return its path.

        weights.onnx holds the card too, and can be used alone. Its labels of made-up tiles are compared with torch's
        first. Raises `ModelError` if it cannot be written as ONNX or gives other labels, or if the extra `onnx` is not
        installed, and `UsageError` if the path exists.
        """
        from tilepipe.models.formats.onnx_export import export_onnx

        return export_onnx(self, path, overwrite=overwrite)

    def __repr__(self) -> str:
        card = self.card
        bands = ", ".join(card.band_names) or f"{card.bands} bands"
        return f"<{type(self).__name__} {self.name}: {bands} to classes {', '.join(card.classes)}>"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's members, or its own name if it is one network."""
        return tuple(member.name for member in self.members) or (self.name,)

    @property
    def answers_often(self) -> bool:
        """Whether the model is the mean of several answers, of several networks or positions of a tile."""
        # The network of a model that was not read is a plain one, and must not be read for this.
        return self.facts is None and bool(getattr(self.module, "answers_often", False))

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(p.numel() for p in self.module.parameters())

    def normalise(self, tiles: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return (x - mean) / std for tiles x (B, bands, H, W) in the source's own units, on the device of the tiles.

        The result has type `dtype`, by default float32. It is a copy, which a network may change in place.
        """
        from tilepipe.models.scaled import normalised

        return normalised(tiles, self.card.mean, self.card.std, dtype)

    def sha256(self) -> str:
        """Return the hash of weights, layers, their settings, and the card without words for people.

        The hash names a file's content. It may miss what a module of another package does; `identity.model_identity`
        covers that too.
        """
        from tilepipe.models.contents import network_sha256

        return network_sha256(self.module, card_text(self.card))

    def card_sha256(self) -> str:
        """Return the hash of the card without words for people."""
        return hashlib.sha256(card_text(self.card).encode()).hexdigest()


def card_of(given: object) -> ModelCard:
    """Return a card, or the card of a dict of its fields. Raises `ModelError` for anything else."""
    if isinstance(given, ModelCard):
        return given
    if not isinstance(given, Mapping):
        raise ModelError(
            f"a {type(given).__name__} is no card; give tp.ModelCard(bands=3, classes=['background', 'building']) or a "
            "dict of its fields"
        )
    return ModelCard(**given)


def with_stride(card: ModelCard, stride: int) -> ModelCard:
    """Return a card with the total stride of its network [pixels], if the card leaves the stride to the network."""
    if "stride" in card.model_fields_set:
        return card
    return ModelCard(**{**card.model_dump(exclude_unset=True), "stride": stride})


def refuse_one_class(card: ModelCard) -> None:
    """Raise `ModelError` for a card with one class only: every pixel would get that class."""
    if len(card.classes) == 1:
        raise ModelError(
            f"the card of {card.name} names one class, so every pixel would be {card.classes[0]!r}; name the "
            f"background too: classes: [background, {card.classes[0]}] (one output channel is the second class then)"
        )
