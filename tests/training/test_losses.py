from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter
from sklearn.metrics import f1_score, jaccard_score, log_loss

from tilepipe.training.losses import (
    IGNORE,
    LOSSES,
    boundary,
    cross_entropy,
    dice,
    focal,
    lovasz,
    near_boundary,
    total_loss,
)

K = 3


def case(seed: int, ignored: float = 0.2, batch: int = 2, side: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, K, side, side, generator=random) * 3
    target = torch.randint(0, K, (batch, side, side), generator=random)
    target[torch.rand(target.shape, generator=random) < ignored] = IGNORE
    return logits, target


def flat(logits: torch.Tensor, target: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and classes (N,) of the scored pixels."""
    p = logits.double().softmax(1).movedim(1, -1).reshape(-1, K).numpy()
    t = target.flatten().numpy()
    return p[t != IGNORE], t[t != IGNORE]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.0)])
def test_cross_entropy_is_that_of_scikit_learn(seed: int, weight: tuple[float, ...] | None) -> None:
    logits, target = case(seed)
    p, t = flat(logits, target)
    sample = None if weight is None else np.array(weight)[t]
    wanted = log_loss(t, p, labels=range(K), sample_weight=sample)
    found = cross_entropy(logits, target, None if weight is None else torch.tensor(weight))
    assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_focal_is_the_formula_of_the_paper(seed: int) -> None:
    logits, target = case(seed)
    p, t = flat(logits, target)
    true = p[np.arange(len(t)), t]
    assert float(focal(logits, target)) == pytest.approx(float(np.mean(-((1 - true) ** 2) * np.log(true))), rel=1e-4)
    assert float(focal(logits, target, gamma=0.0)) == pytest.approx(float(cross_entropy(logits, target)), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_hard_predictions_give_dice_and_iou_of_scikit_learn(seed: int) -> None:
    logits, target = case(seed)
    hard = torch.nn.functional.one_hot(logits.argmax(1), K).movedim(-1, 1) * 200.0
    prediction, t = flat(logits, target)[0].argmax(1), flat(logits, target)[1]
    how = {"average": "macro", "labels": np.unique(t)}
    assert float(dice(hard, target)) == pytest.approx(1 - f1_score(t, prediction, **how), abs=1e-5)
    assert float(lovasz(hard, target)) == pytest.approx(1 - jaccard_score(t, prediction, **how), abs=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_lovasz_is_the_sum_of_the_paper(seed: int, side: int) -> None:
    """Brute force: sort errors by hand, weigh each by the growth of the Jaccard loss of the set of the largest."""
    logits, target = case(seed, batch=1, side=side)
    p, t = flat(logits, target)
    losses = []
    for k in np.unique(t):
        error = np.abs((t == k) - p[:, k])
        order, before, total = np.argsort(-error, kind="stable"), 0.0, 0.0
        for n in range(1, len(order) + 1):
            wrong = set(order[:n].tolist())
            truth = set(np.flatnonzero(t == k).tolist())
            now = 1 - len(truth - wrong) / len(truth | wrong)  # Jaccard loss when just these are wrong
            total, before = total + error[order[n - 1]] * (now - before), now
        losses.append(total)
    assert float(lovasz(logits, target)) == pytest.approx(np.mean(losses) if losses else 0.0, abs=1e-5)


@pytest.mark.parametrize("width", [1, 2])
def test_near_boundary_is_where_another_class_is_within_reach(width: int) -> None:
    target = torch.from_numpy(np.kron(np.arange(16).reshape(4, 4) * 7 % K, np.ones((4, 4), int)))[None].clone()
    target[0, 3, 3] = IGNORE
    one_hot = [maximum_filter((target[0].numpy() == k).astype(int), 2 * width + 1, mode="constant") for k in range(K)]
    wanted = (np.sum(one_hot, axis=0) > 1) & (target[0].numpy() != IGNORE)
    np.testing.assert_array_equal(near_boundary(target, K, width)[0].numpy(), wanted)
    assert 0 < wanted.mean() < 1


def test_boundary_scores_only_pixels_near_another_class() -> None:
    logits, target = case(0)
    target[:] = 0
    target[:, :, 5:] = 1
    near = target.clone()
    near[:, :, :3] = near[:, :, 7:] = IGNORE
    assert float(boundary(logits, target)) == pytest.approx(float(cross_entropy(logits, near)), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_zero_when_right_finite_when_all_is_ignored_and_falls_along_its_gradient(name: str) -> None:
    loss = LOSSES[name]
    logits, target = case(7)
    perfect = torch.nn.functional.one_hot(target.clamp_min(0), K).movedim(-1, 1) * 100.0
    assert float(loss(perfect, target, None)) == pytest.approx(0, abs=1e-5)
    moving = logits.clone().requires_grad_()
    before = loss(moving, target, None)
    before.backward()
    assert moving.grad is not None
    assert (moving.grad.movedim(1, -1)[target == IGNORE] == 0).all()
    assert loss(moving.detach() - 0.1 * moving.grad / moving.grad.norm(), target, None) < before
    nothing = torch.full_like(target, IGNORE)
    empty = logits.clone().requires_grad_()
    zero = loss(empty, nothing, None)
    zero.backward()
    assert float(zero.detach()) == 0
    assert empty.grad is None or torch.isfinite(empty.grad).all()


def test_total_loss_is_the_weighted_sum() -> None:
    logits, target = case(3)
    wanted = 2 * cross_entropy(logits, target) + 0.5 * dice(logits, target)
    assert float(total_loss({"cross_entropy": 2.0, "dice": 0.5}, logits, target)) == pytest.approx(float(wanted))
