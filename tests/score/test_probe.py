"""The scorer `probe`: a head learnt by SGD on the embeddings tells wrong labels by their margin."""

from __future__ import annotations

import numpy as np
import pytest

from cleanctl.config import SelectConfig
from cleanctl.score import probe
from cleanctl.score.blocks import ArrayBlocks
from cleanctl.score.compute import open_scorer
from cleanctl.score.scorer import ALONE, Rows

CLASSES, DIM = 6, 32


def drawn(rows, *, wrong=0.3, seed=0):
    """Unit images around a centre a class; labels in the order of the classes, as in a folder of folders."""
    rng = np.random.default_rng(seed)
    centre_CD = rng.standard_normal((CLASSES, DIM))
    truth_N = np.sort(rng.integers(0, CLASSES, rows))
    image_ND = centre_CD[truth_N] + 0.8 * rng.standard_normal((rows, DIM)) + 2
    image_ND /= np.linalg.norm(image_ND, axis=1, keepdims=True)
    label_N = np.where(rng.random(rows) < wrong, (truth_N + rng.integers(1, CLASSES, rows)) % CLASSES, truth_N)
    return image_ND.astype(np.float16), label_N, truth_N


def scored(image_ND, label_N):
    rows = Rows(blocks=ArrayBlocks(image_ND=image_ND, block_rows=500), label_N=label_N, num_classes=CLASSES)
    scorer = open_scorer("probe", SelectConfig())
    model = scorer.fit(rows, ALONE)
    return model, vars(scorer.posterior(model, rows))


def test_the_margin_tells_wrong_labels_also_where_rows_are_sorted_by_class():
    image_ND, label_N, truth_N = drawn(2000)
    _, found = scored(image_ND, label_N)
    result = probe.margin(found, label_N, SelectConfig())
    right_N = label_N == truth_N
    assert (result.keep_N == right_N).mean() > 0.95
    assert result.score_N[right_N].min() < 0 < result.score_N[right_N].mean()
    np.testing.assert_array_equal(result.score_N > 0, result.keep_N)


def test_the_margin_is_that_of_the_logits():
    image_ND, label_N, _ = drawn(400)
    model, found = scored(image_ND, label_N)
    logit_NC = image_ND.astype(np.float64) @ model.coef_DC + model.shift_C
    own_N = logit_NC[np.arange(400), label_N].copy()
    logit_NC[np.arange(400), label_N] = -np.inf
    margin_N = probe.margin(found, label_N, SelectConfig()).score_N
    np.testing.assert_allclose(margin_N, own_N - logit_NC.max(axis=1), atol=1e-3)


def test_of_many_rows_a_part_is_learnt_from_and_all_are_scored(monkeypatch):
    image_ND, label_N, truth_N = drawn(2000)
    monkeypatch.setattr(probe, "SAMPLE", 600)
    model, found = scored(image_ND, label_N)
    assert model.rows == pytest.approx(600, abs=2)
    assert (probe.margin(found, label_N, SelectConfig()).keep_N == (label_N == truth_N)).mean() > 0.9
