"""A fit to more rows than `logistic.MANY_ROWS` ends earlier, and says how far it got; to more than `sampled.LARGE_ROWS`
it takes a larger sample, too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from cleanctl.config import SelectConfig
from cleanctl.score import logistic, sampled
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.compute import posterior_of
from cleanctl.score.mechanisms import consistency, loss
from cleanctl.score.mixture import loss_scores
from cleanctl.score.scorer import ALONE, Rows

_spec = importlib.util.spec_from_file_location("geometry", Path(__file__).parents[2] / "bench" / "geometry.py")
assert _spec is not None
assert _spec.loader is not None
geometry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(geometry)

ROWS, CLASSES, DIM = 40_000, 40, 48  # 20 rows a parameter, as ten million of 1,000 classes and 512 dimensions


@pytest.fixture(scope="module")
def data():
    return geometry.clip_like(ROWS, dim=DIM, classes=CLASSES, noise=0.4, seed=3)


@pytest.fixture
def many(monkeypatch):
    """The split's rows count as many."""
    monkeypatch.setattr(logistic, "MANY_ROWS", ROWS - 1)


@pytest.fixture
def large(many, monkeypatch):
    """They also count as so many that the sample has a row a parameter."""
    monkeypatch.setattr(sampled, "LARGE_ROWS", ROWS - 1)
    monkeypatch.setattr(sampled, "MAX_ROWS", 0)


def fit(data) -> logistic.LogisticModel:
    blocks = Float32Blocks(ArrayBlocks(image_ND=data.image_ND))
    return logistic.fit_logistic(blocks, data.label_N.astype(np.int64))


def kept(data) -> np.ndarray:
    """(N,) bool: by both rules of logistic."""
    label = data.label_N.astype(np.int64)
    posterior = posterior_of("logistic", ArrayBlocks(image_ND=data.image_ND), label, num_classes=CLASSES)
    clean = loss_scores(posterior.log_p_label, label, num_classes=CLASSES).posterior_N
    score = vars(posterior) | {"clean": clean}
    config = SelectConfig()
    return loss(score, label, config).keep_N & consistency(score, label, config).keep_N


@pytest.mark.parametrize("size", ["many", "large"])
def test_it_keeps_what_the_whole_fit_keeps(data, request, size):
    whole = kept(data)
    request.getfixturevalue(size)
    hasty = kept(data)
    assert (whole & hasty).sum() / (whole | hasty).sum() >= 0.999


@pytest.mark.parametrize("size", ["many", "large"])
def test_it_passes_over_the_rows_less_often_and_ends_no_farther_away_than_it_states(data, request, size):
    whole = fit(data)
    request.getfixturevalue(size)
    hasty = fit(data)
    assert hasty.converged
    assert hasty.evaluations < whole.evaluations
    assert whole.gap < hasty.gap <= logistic.MANY_TOLERANCE
    assert objective(hasty, data) - whole.objective <= hasty.gap * whole.objective


def test_the_sample_has_a_row_a_parameter(data, large, monkeypatch):
    sizes = []
    take = sampled._rows_of
    monkeypatch.setattr(sampled, "_rows_of", lambda blocks, row_M: sizes.append(len(row_M)) or take(blocks, row_M))
    fit(data)
    assert sizes == [pytest.approx(CLASSES * DIM, rel=0.1)]


def test_passes_and_gap_are_stated_with_the_score(data, large):
    rows = Rows(blocks=ArrayBlocks(image_ND=data.image_ND), label_N=data.label_N.astype(np.int64), num_classes=CLASSES)
    scorer = logistic.Logistic(SelectConfig())
    ran = scorer.ran(scorer.fit(rows, ALONE), rows)
    assert f"gap {ran['gap']:.0e} after {ran['passes']} passes" in ran["by"]
    assert 0 < ran["gap"] <= logistic.MANY_TOLERANCE
    assert 3 <= ran["passes"] <= 10


def objective(model: logistic.LogisticModel, data) -> float:
    """By the formula, in float64."""
    image, label = data.image_ND.astype(np.float64), data.label_N
    logit = image @ model.coef_DK.astype(np.float64) + model.intercept_K
    logit -= logit.max(axis=1, keepdims=True)
    loss_N = np.log(np.exp(logit).sum(axis=1)) - logit[np.arange(len(label)), label]
    weight_C = len(label) / (CLASSES * np.bincount(label, minlength=CLASSES))
    return float(weight_C[label] @ loss_N + 0.5 * np.square(model.coef_DK.astype(np.float64)).sum())
