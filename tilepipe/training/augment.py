"""This module changes crops at random.

Its functions take tensors: crops (B, C, H, W) float32 in pixel units, labels (B, H, W) int64. Randomness comes from the
given generator, so a step can be repeated exactly.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tilepipe.errors import UsageError
from tilepipe.training.config_parts import Augment
from tilepipe.training.given import Function

# The rows are the optical densities of haematoxylin, eosin and residual in R, G, B (Ruifrok & Johnston 2001), of unit
# length.
STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))


def augmented(
    images: Tensor, labels: Tensor, std: Tensor, how: Augment | Function, random: Generator
) -> tuple[Tensor, Tensor]:
    """Return changed copies; every crop of the batch is changed on its own. `std` is (C,) in pixel units.

    `how` may be a function of crops and labels. Raises `UsageError` if it returns something else than both.
    """
    if not isinstance(how, Augment):
        return _by_caller(how, images, labels, random)
    pairs = [_turned(image, label, how, random) for image, label in zip(images, labels, strict=True)]
    images, labels = torch.stack([i for i, _ in pairs]), torch.stack([label for _, label in pairs])
    if how.stain:
        images = stain_jitter(images, draw(how.stain, (len(images), 3), random))
    if how.color or how.bands:
        images = color_jitter(images, std, how, random)
    return images, labels


def _by_caller(how: Function, images: Tensor, labels: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(0, 2**62, (), generator=random)))
        found = how(images.clone(), labels.clone())
    parts = found if isinstance(found, tuple | list) else [found]
    said = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    fits = len(parts) == 2 and all(isinstance(part, Tensor) for part in parts)
    if not fits or found[0].shape[:2] != images.shape[:2] or found[0].shape[2:] != found[1].shape[1:]:
        raise UsageError(
            f"`augment` returned {said}; it must return crops and classes, as it was given: {tuple(images.shape)} and "
            f"{tuple(labels.shape)}"
        )
    return found[0].float(), found[1].long()


def draw(spread: float, shape: tuple[int, ...], random: Generator) -> Tensor:
    """Return values drawn evenly from [-spread, spread)."""
    return (torch.rand(shape, generator=random) * 2 - 1) * spread


def color_jitter(images: Tensor, std: Tensor, how: Augment, random: Generator) -> Tensor:
    """Return images with contrast (around each crop's mean) and brightness changed, for all bands and per band."""
    count, bands = images.shape[:2]
    gain = 1 + draw(how.color, (count, 1, 1, 1), random) + draw(how.bands, (count, bands, 1, 1), random)
    shift = draw(how.color, (count, 1, 1, 1), random) + draw(how.bands, (count, bands, 1, 1), random)
    mean = images.mean((2, 3), keepdim=True)
    return mean + (images - mean) * gain + shift * std.view(1, -1, 1, 1)


def stain_jitter(images: Tensor, change: Tensor) -> Tensor:
    """Return RGB crops, 0 to 255, with each stain's density multiplied by 1 + `change` (B, 3)."""
    stains = torch.tensor(STAINS)
    # 1 is added because the logarithm of a black pixel would be infinite; the way back takes it off again.
    density = -torch.log10((images + 1) / 256)  # (B, 3, H, W)
    amounts = torch.einsum("bchw,cs->bshw", density, torch.linalg.inv(stains))
    density = torch.einsum("bshw,sc->bchw", amounts * (1 + change)[:, :, None, None], stains)
    return (256 * 10**-density - 1).clamp(0, 255)


def _turned(image: Tensor, label: Tensor, how: Augment, random: Generator) -> tuple[Tensor, Tensor]:
    # Three numbers are drawn whatever is switched on, so that the draws after them stay the same.
    across, down, quarters = torch.randint(0, 4, (3,), generator=random).tolist()
    axes = [axis for axis, chosen in ((-1, across % 2), (-2, down % 2)) if chosen and how.flips]
    image, label = image.flip(axes), label.flip(axes)
    turns = quarters if how.rotate else 0
    return torch.rot90(image, turns, (-2, -1)), torch.rot90(label, turns, (-2, -1))
