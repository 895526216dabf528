"""Directions from a sample of the rows change how the optimum is reached, and not which one it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from cleanctl.score import logistic, objective, sampled
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.logistic import fit_logistic
from cleanctl.score.objective import Problem
from cleanctl.score.sampled import SampledCurvature, sample_pays

_spec = importlib.util.spec_from_file_location("geometry", Path(__file__).parents[2] / "bench" / "geometry.py")
assert _spec is not None
assert _spec.loader is not None
geometry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(geometry)

CLASSES = 8


@pytest.fixture(scope="module")
def data():
    return geometry.clip_like(12_000, dim=32, classes=CLASSES, noise=0.4, seed=5)


def problem_of(data, use=None) -> Problem:
    label = data.label_N.astype(np.int64)
    use = np.ones(len(label), bool) if use is None else use
    blocks = Float32Blocks(ArrayBlocks(image_ND=data.image_ND, block_rows=1700))
    problem = Problem(blocks, label, use, np.arange(CLASSES), np.bincount(label[use]), 1.0)
    problem.start()
    return problem


def fit(data, monkeypatch, *, pays, use=None):
    monkeypatch.setattr(logistic, "sample_pays", lambda problem: pays)
    blocks = Float32Blocks(ArrayBlocks(image_ND=data.image_ND, block_rows=1700))
    return fit_logistic(blocks, data.label_N.astype(np.int64), use_N=use)


@pytest.mark.parametrize("kept_bytes", [0, 64 << 20])
def test_the_curvature_is_the_derivative_of_the_gradient(data, monkeypatch, kept_bytes):
    monkeypatch.setitem(objective.KEPT_BYTES, "cpu", kept_bytes)
    problem = problem_of(data)
    rng = np.random.default_rng(0)
    x, v = (rng.standard_normal((33, CLASSES), dtype=np.float32) * scale for scale in (np.float32(3), np.float32(1)))
    times = problem.curvature_at(x)
    step = 1e-2
    change = problem.evaluate(x + step * v)[1].astype(np.float64) - problem.evaluate(x - step * v)[1]
    measured, told = change / (2 * step), times(v)
    assert np.linalg.norm(told - measured) < 2e-3 * np.linalg.norm(measured)


def test_it_is_symmetric_and_positive(data):
    problem = problem_of(data)
    rng = np.random.default_rng(1)
    x, a, b = (rng.standard_normal((33, CLASSES), dtype=np.float32) for _ in range(3))
    times = problem.curvature_at(x)
    assert float((a * times(b)).sum()) == pytest.approx(float((b * times(a)).sum()), rel=1e-3)
    assert float((a * times(a)).sum()) > 0


def test_the_optimum_is_that_of_all_rows(data, monkeypatch):
    plain = fit(data, monkeypatch, pays=False)
    fast = fit(data, monkeypatch, pays=True)
    assert fast.converged
    assert fast.objective == pytest.approx(plain.objective, rel=2e-7)
    assert fast.evaluations < plain.evaluations
    assert np.abs(probabilities(fast, data) - probabilities(plain, data)).max() < 1e-3


def test_rows_that_are_held_out_are_not_in_the_sample(data, monkeypatch):
    use = np.arange(len(data.label_N)) % 3 != 0
    problem = problem_of(data, use)
    chosen = []
    sampled_of = Problem.sampled
    monkeypatch.setattr(
        Problem, "sampled", lambda self, few, rows: (chosen.append(rows), sampled_of(self, few, rows))[1]
    )
    curvature = SampledCurvature(problem)
    (rows,) = chosen
    assert use[rows].all()
    assert len(rows) == pytest.approx(use.sum() / sampled.SHARE, rel=0.01)
    sample = curvature._sample
    assert float(sample.weight_N.sum()) == pytest.approx(problem.total_weight, rel=1e-5)
    stored = np.concatenate([image.copy() for _, image in sample.data])
    assert np.array_equal(stored, data.image_ND[rows].astype(np.float32))
    plain, fast = (fit(data, monkeypatch, pays=pays, use=use) for pays in (False, True))
    assert fast.objective == pytest.approx(plain.objective, rel=2e-7)


def test_a_solve_leaves_a_tenth_of_the_gradient(data):
    problem = problem_of(data)
    curvature = SampledCurvature(problem, rows=len(data.label_N))  # all of them
    x = curvature.start(np.zeros((33, CLASSES), np.float32))
    value, gradient = problem.evaluate(x)
    assert 0 < value < problem.total_weight * np.log(CLASSES)
    left = gradient - problem.curvature_at(x)(curvature.solve(gradient))
    before, after = (float((r * problem.precondition(r)).sum()) for r in (gradient, left))
    assert after <= 1.01 * sampled.TOLERANCE**2 * before


def test_it_is_used_where_it_pays(data, monkeypatch):
    problem = problem_of(data)
    assert not sample_pays(problem)
    problem.total_weight = float(sampled.FROM_ROWS)
    assert sample_pays(problem)
    problem.num_classes = 1_000  # few rows a parameter: the plain way needs few passes
    assert not sample_pays(problem)


@pytest.mark.slow
def test_at_the_size_where_it_is_used_it_saves_passes(monkeypatch):
    data = geometry.clip_like(300_000, dim=128, classes=50, seed=6)
    plain = fit(data, monkeypatch, pays=False)
    fast = fit(data, monkeypatch, pays=True)
    assert fast.evaluations < plain.evaluations
    assert fast.objective == pytest.approx(plain.objective, rel=2e-7)


def probabilities(model, data) -> np.ndarray:
    logit = data.image_ND.astype(np.float64) @ model.coef_DK + model.intercept_K
    prob = np.exp(logit - logit.max(axis=1, keepdims=True))
    return prob / prob.sum(axis=1, keepdims=True)
