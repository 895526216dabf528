"""The losses of the baselines against their equations, written down once more in NumPy; gradients by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cleanctl.train.methods import elr, sce

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
