"""`--compat paper-code` is the fit of the scikit-learn that the published code pins, whichever version is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from scipy.special import log_softmax

from cleanctl.score.blocks import ArrayBlocks
from cleanctl.score.compute import posterior_of

ROOT = Path(__file__).parents[2]


def bench_module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


geometry, reference = bench_module("geometry"), bench_module("reference_selection")


def scikit_learn_1_2(image, label):
    """(N, C) by plain L-BFGS-B on the summed objective in float64, its options those that version 1.2 passed."""
    x, classes = image.astype(np.float64), int(label.max()) + 1
    weight = (len(label) / (classes * np.bincount(label)))[label]
    own = np.eye(classes)[label]

    def objective(flat):
        coef = flat.reshape(classes, -1)
        log_prob = log_softmax(x @ coef[:, :-1].T + coef[:, -1], axis=1)
        loss = -(weight * log_prob[own > 0]).sum() + 0.5 * (coef[:, :-1] ** 2).sum()
        residual = weight[:, None] * (np.exp(log_prob) - own)
        return loss, np.column_stack([residual.T @ x + coef[:, :-1], residual.sum(axis=0)]).ravel()

    start = np.zeros(classes * (x.shape[1] + 1))
    found = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-4, "maxiter": 10_000}
    )
    coef = found.x.reshape(classes, -1)
    return np.exp(log_softmax(x @ coef[:, :-1].T + coef[:, -1], axis=1))


@pytest.mark.parametrize(("rows", "classes", "dim"), [(1200, 8, 24), (1000, 100, 16)])
def test_the_fit_is_that_of_the_pinned_version(rows, classes, dim):
    """The second has the ratio of rows to classes at which a tolerance of 1e-4 on the mean stops before it begins."""
    data = geometry.clip_like(rows, dim=dim, classes=classes, prompts=classes, noise=0.3, seed=3)
    label = np.concatenate([np.arange(classes), data.label_N[classes:]]).astype(np.int64)  # every class is there
    prob = scikit_learn_1_2(data.image_ND, label)
    assert prob.max() > 3 / classes  # it has left the start
    found = posterior_of(
        "logistic", ArrayBlocks(image_ND=data.image_ND), label, num_classes=classes, compat="paper-code"
    )
    np.testing.assert_allclose(found.p_label, prob[np.arange(rows), label], atol=5e-4)
    np.testing.assert_allclose(found.p_max, prob.max(axis=1), atol=5e-4)
    np.testing.assert_allclose(reference.induced(data.image_ND, label), prob, atol=5e-4)


@pytest.mark.slow
def test_a_thousand_classes_of_ten_samples_are_fitted():
    data = geometry.clip_like(10_000, dim=8, classes=1_000, prompts=1_000, noise=0.3, seed=4)
    label = np.concatenate([np.arange(1_000), data.label_N[1_000:]]).astype(np.int64)
    found = posterior_of("logistic", ArrayBlocks(image_ND=data.image_ND), label, num_classes=1_000, compat="paper-code")
    consistent = found.p_label / found.p_max >= 0.8
    assert len(np.unique(found.p_label)) > 9_000
    assert 0 < consistent.sum() < 9_900
