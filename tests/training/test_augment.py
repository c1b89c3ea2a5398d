from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2hed

from tilepipe.training.augment import augmented, color_jitter, stain_jitter
from tilepipe.training.config_parts import Augment

NOTHING = Augment(flips=False, rotate=False, scale=1, color=0, bands=0)
STD = torch.tensor([3.0, 2.0, 1.0])


def crops(count: int = 16, side: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(count * side * side).view(count, side, side)
    return torch.stack([labels, labels * 2, labels * 3], 1).float(), labels


def changed(how: Augment, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return augmented(*crops(), STD, how, torch.Generator().manual_seed(seed))


def test_nothing_asked_nothing_changed() -> None:
    images, labels = changed(NOTHING)
    assert torch.equal(images, crops()[0])
    assert torch.equal(labels, crops()[1])


def test_labels_move_with_their_pixels_and_all_eight_positions_occur() -> None:
    whole = crops(64)
    images, labels = augmented(
        *whole, STD, NOTHING.model_copy(update={"flips": True, "rotate": True}), torch.Generator()
    )
    assert torch.equal(images[:, 0].long(), labels)
    seen = set()
    for before, after in zip(whole[1], labels, strict=True):
        turns = [torch.rot90(b, k) for b in (before, before.flip(0)) for k in range(4)]
        seen.update(k for k, turned in enumerate(turns) if torch.equal(turned, after))
    assert seen == set(range(8))


def test_the_same_generator_gives_the_same_crops_and_another_does_not() -> None:
    how = Augment(stain=0.2)
    assert torch.equal(changed(how, 1)[0], changed(how, 1)[0])
    assert not torch.equal(changed(how, 1)[0], changed(how, 2)[0])


def test_color_jitter_is_affine_per_crop_and_band() -> None:
    images = torch.rand(4, 3, 8, 8) * 100
    found = color_jitter(images, STD, Augment(color=0.3, bands=0.2), torch.Generator().manual_seed(0))
    for before, after in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        gain, shift = np.polyfit(before.flatten().numpy(), after.flatten().numpy(), 1)
        assert 0.5 <= gain <= 1.5
        np.testing.assert_allclose(after, before * gain + shift, atol=1e-2)
        assert abs(float((after - before).mean())) <= 0.5 * 3 + 1e-3


def test_stain_jitter_multiplies_the_stains_of_scikit_image() -> None:
    random = np.random.default_rng(0)
    rgb = random.integers(60, 240, (1, 3, 5, 5)).astype(np.float32)
    assert torch.allclose(stain_jitter(torch.from_numpy(rgb), torch.zeros(1, 3)), torch.from_numpy(rgb), atol=1e-2)
    change = torch.tensor([[0.2, -0.1, 0.0]])
    found = stain_jitter(torch.from_numpy(rgb), change).numpy()
    inside = ((found > 1) & (found < 254)).all(1)[0]
    before, after = (rgb2hed((a[0].transpose(1, 2, 0) + 1) / 256)[inside] for a in (rgb, found))
    strong = before > 0.01  # scikit-image cuts negative amounts off
    assert strong.any()
    for stain, factor in enumerate((1.2, 0.9)):
        keep = strong[:, stain]
        np.testing.assert_allclose(after[keep, stain], before[keep, stain] * factor, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_stain_jitter_stays_within_bytes(share: float) -> None:
    found = stain_jitter(torch.rand(3, 3, 9, 9) * 255, torch.full((3, 3), share))
    assert 0 <= float(found.min()) <= float(found.max()) <= 255
