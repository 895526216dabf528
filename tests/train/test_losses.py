"""The losses of the baselines against their equations, written down once more in NumPy; gradients by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cleanctl.train.methods import dividemix, elr, sce
from cleanctl.train.methods.loss_mixture import lower_component
from cleanctl.train.methods.small_loss import dropped_share, small_loss

B, K = 7, 5


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Logits with a few that are so far apart that the clamps act, and labels."""
    rng = np.random.default_rng(5)
    logit = rng.normal(0, 2, (B, K))
    logit[0, 0], logit[1, 1] = 30.0, -30.0
    return logit, rng.integers(0, K, B)


def softmax(logit: np.ndarray) -> np.ndarray:
    return np.array([[np.exp(z) / np.exp(row).sum() for z in row] for row in logit])


def slope(loss: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences."""
    out = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        out[index] = (loss(up) - loss(down)) / (2 * step)
    return out


def assert_same(ours: Callable[[torch.Tensor], torch.Tensor], equation: Callable, logit: np.ndarray) -> None:
    """Loss and its gradient with respect to the logits, in float64."""
    tensor = torch.tensor(logit, requires_grad=True)
    loss = ours(tensor)
    loss.backward()
    assert loss.item() == pytest.approx(equation(logit), rel=1e-9)
    np.testing.assert_allclose(tensor.grad.numpy(), slope(equation, logit), rtol=1e-5, atol=1e-7)


def cross_entropy(logit: np.ndarray, label: np.ndarray) -> float:
    return float(np.mean([-np.log(softmax(logit)[b, y]) for b, y in enumerate(label)]))


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.1, 2.0)])
def test_symmetric_cross_entropy(drawn: tuple[np.ndarray, np.ndarray], alpha: float, beta: float) -> None:
    logit, label = drawn

    def equation(logit: np.ndarray) -> float:
        prob = np.clip(softmax(logit), 1e-7, 1)
        log_one_hot = np.where(np.arange(K) == label[:, None], 0.0, np.log(1e-4))
        return alpha * cross_entropy(logit, label) + beta * float(np.mean(-(prob * log_one_hot).sum(1)))

    target = torch.from_numpy(label)
    assert_same(lambda z: sce.symmetric_cross_entropy(z, target, alpha=alpha, beta=beta), equation, logit)


def test_early_learning_loss_and_its_target(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logit, label = drawn
    before = np.random.default_rng(6).dirichlet(np.ones(K), B)
    prob = np.clip(softmax(logit), 1e-4, 1 - 1e-4)
    wanted = 0.3 * before + 0.7 * prob / prob.sum(1, keepdims=True)
    moved = elr.moved_target(torch.tensor(before), torch.tensor(logit), momentum=0.3)
    np.testing.assert_allclose(moved.numpy(), wanted, rtol=1e-12)

    def equation(logit: np.ndarray) -> float:
        prob = np.clip(softmax(logit), 1e-4, 1 - 1e-4)
        return cross_entropy(logit, label) + 5 * float(np.mean(np.log(1 - (wanted * prob).sum(1))))

    target, labels = torch.tensor(wanted), torch.from_numpy(label)
    assert_same(lambda z: elr.early_learning_loss(z, labels, target, weight=5), equation, logit)


def test_small_loss_learns_from_the_smallest_alone(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logit, label = drawn

    def equation(logit: np.ndarray) -> float:
        each = sorted(-np.log(softmax(logit)[b, y]) for b, y in enumerate(label))
        return float(np.mean(each[:4]))  # ⌊0.6·7⌋

    target = torch.from_numpy(label)
    assert_same(lambda z: small_loss(z, target, dropped=0.4), equation, logit)
    kept_all = small_loss(torch.tensor(logit), target, dropped=0.0)
    assert kept_all.item() == pytest.approx(cross_entropy(logit, label))
    few = small_loss(torch.tensor(logit[:2]), target[:2], dropped=0.9)
    assert few.item() == pytest.approx(min(cross_entropy(logit[b : b + 1], label[b : b + 1]) for b in (0, 1)))


def test_the_share_dropped_rises_over_the_warm_up() -> None:
    shares = [dropped_share(epoch, noise_ratio=0.4, warmup=4) for epoch in range(6)]
    assert shares == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert [dropped_share(epoch, noise_ratio=0.4, warmup=1) for epoch in (0, 1)] == [0, 0.4]


def em(x: np.ndarray, *, iterations: int = 10, tol: float = 1e-2, floor: float = 5e-4) -> np.ndarray:
    """Responsibility of the component of smaller mean: two Gaussians from the best split of the sorted values."""
    order = np.sort(x)
    cost = [((order[:n] - order[:n].mean()) ** 2).sum() + ((order[n:] - order[n:].mean()) ** 2).sum()
            for n in range(1, len(x))]  # fmt: skip
    share = (x <= order[int(np.argmin(cost))]).astype(float)
    share, before = np.stack([share, 1 - share], 1), -np.inf

    def fit(share: np.ndarray) -> tuple[np.ndarray, ...]:
        mass = share.sum(0)
        mean = (share * x[:, None]).sum(0) / mass
        return mass / len(x), mean, (share * (x[:, None] - mean) ** 2).sum(0) / mass + floor

    weight, mean, variance = fit(share)
    for _ in range(iterations):
        density = weight * np.exp(-((x[:, None] - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        share, bound = density / density.sum(1, keepdims=True), float(np.log(density.sum(1)).mean())
        weight, mean, variance = fit(share)
        if abs(bound - before) < tol:
            break
        before = bound
    density = weight * np.exp(-((x[:, None] - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    return density[:, mean.argmin()] / density.sum(1)


def test_the_loss_mixture_keeps_the_lower_component() -> None:
    rng = np.random.default_rng(8)
    loss = np.concatenate([rng.gamma(2, 0.2, 300), rng.normal(3, 0.8, 200).clip(0)]).astype(np.float32)
    loss[[3, 400]] = np.nan
    known = ~np.isnan(loss)
    posterior = em(((loss[known] - loss[known].min()) / np.ptp(loss[known])).astype(float))
    for threshold in (0.5, 0.9):
        got = lower_component(loss, threshold=threshold)
        assert not got[~known].any()
        clear = abs(posterior - threshold) > 0.02
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(got[known][clear], (posterior > threshold)[clear])
    assert 0.4 < got.mean() < 0.7


def test_losses_that_do_not_differ_are_all_kept() -> None:
    assert lower_component(np.array([1, 1, np.nan], np.float32), threshold=0.5).tolist() == [True, True, False]
    assert lower_component(np.array([np.nan, 2], np.float32), threshold=0.5).tolist() == [False, True]


# ---- DivideMix


def test_the_losses_of_dividemix(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logit, label = drawn
    logit = logit / 4
    target = np.random.default_rng(6).dirichlet(np.ones(K), B)

    def squared(logit: np.ndarray) -> float:
        return float(np.mean([(softmax(logit)[b, k] - target[b, k]) ** 2 for b in range(B) for k in range(K)]))

    def prior(logit: np.ndarray) -> float:
        mean = softmax(logit).mean(0)
        return sum(1 / K * np.log(1 / K / mean[k]) for k in range(K))

    def warm(logit: np.ndarray) -> float:
        prob = softmax(logit)
        return cross_entropy(logit, label) + 0.5 * float(np.mean((prob * np.log(prob)).sum(1)))

    targets, labels = torch.tensor(target), torch.from_numpy(label)
    assert_same(lambda z: dividemix.unlabelled_loss(z, targets), squared, logit)
    assert_same(dividemix.prior_penalty, prior, logit)
    assert_same(lambda z: dividemix.warmup_loss(z, labels, entropy_weight=0.5), warm, logit)


def test_sharpening_and_the_ramp() -> None:
    sharp = dividemix.sharpen(torch.tensor([[0.5, 0.3, 0.2]]), 0.5)
    np.testing.assert_allclose(sharp, [[0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]], rtol=1e-6)
    weights = [dividemix.unlabelled_weight(e, lambda_u=25, rampup=16) for e in (-1, 0, 4, 16, 20)]
    assert weights == [0, 0, 6.25, 25, 25]
    assert dividemix.unlabelled_weight(0, lambda_u=3, rampup=0) == 3
