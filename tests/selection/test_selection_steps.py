"""Rules, fallback and the estimate of the noise, on arrays small enough to check by hand."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanctl.config import SelectConfig
from cleanctl.records import ClassPosterior
from cleanctl.score.mechanisms import consistency, loss, match, monotone
from cleanctl.selection.expected import warn_of_noise
from cleanctl.selection.fallback import top_up
from cleanctl.selection.noise import estimate_confusion
from cleanctl.selection.select import _warn_of_mixtures
from cleanctl.strategy import Rule


def posterior_of(prob, label):
    prob = np.asarray(prob, np.float32)
    ordered = np.sort(prob, axis=1)
    return ClassPosterior(
        p_label=prob[np.arange(len(prob)), label],
        p_max=ordered[:, -1],
        suggested=prob.argmax(axis=1).astype(np.int32),
        p_second=ordered[:, -2] if prob.shape[1] > 1 else np.zeros(len(prob), np.float32),
        entropy=np.zeros(len(prob), np.float32),
        log_p_label=np.log(np.maximum(prob[np.arange(len(prob)), label], 1e-30)),
    )


def test_consistency_compares_with_the_highest_probability():
    label = np.array([0, 0, 0, 1])
    posterior = posterior_of([[0.4, 0.5, 0.1], [0.39, 0.5, 0.11], [0.5, 0.4, 0.1], [0.5, 0.5, 0]], label)
    found = consistency(asdict(posterior), label, SelectConfig(theta_consistency=0.8))
    np.testing.assert_allclose(found.score_N, [0.8, 0.78, 1.0, 1.0], rtol=1e-6)
    assert found.keep_N.tolist() == [True, False, True, True]
    strict = consistency(asdict(posterior), label, SelectConfig(theta_consistency=1.0))
    assert strict.keep_N.tolist() == [False, False, True, True]


def test_match_keeps_the_arg_max_and_scores_the_margin():
    label = np.array([0, 1, 1])
    posterior = posterior_of([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.5, 0.5, 0]], label)
    found = match(asdict(posterior), label, SelectConfig())
    assert found.keep_N.tolist() == [True, False, False]
    np.testing.assert_allclose(found.score_N, [0.3, -0.3, 0.0], atol=1e-6)


def test_loss_cuts_the_posterior_and_ranks_by_the_logarithm():
    score = {"log_p_label": np.array([np.log(0.5), -np.inf]), "clean": np.array([0.5, 0.49], np.float32)}
    found = loss(score, np.zeros(2, int), SelectConfig(theta_gmm=0.5))
    assert found.keep_N.tolist() == [True, False]
    np.testing.assert_allclose(found.score_N, [np.log(0.5), np.log(1e-12)], rtol=1e-5)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.2, 0.4, 0.9, 1.0]), st.floats(0, 1, width=32)),
        min_size=1,
        max_size=40,
    )
)
def test_a_mended_posterior_never_falls_within_a_class_and_is_the_least_that_does_not(rows):
    label, scaled, fitted = (np.array(column) for column in zip(*rows))
    mended = monotone(fitted.astype(np.float32), scaled.astype(np.float32), label)
    for row in range(len(rows)):
        no_higher = (label == label[row]) & (scaled <= scaled[row])
        assert mended[row] == pytest.approx(fitted[no_higher].max(), abs=1e-6)


# Class 0 keeps two of four, class 1 none of three, class 2 has no samples, class 3 none of one.
LABEL = np.array([0, 0, 0, 0, 1, 1, 1, 3])
KEEP = np.array([1, 1, 0, 0, 0, 0, 0, 0], bool)
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.1, 0.3, 0.2, 0.5])


@pytest.mark.parametrize(
    ("kind", "rows", "added"),
    [("best", [0, 1, 5, 6, 7], {1: 2, 3: 1}), ("lowest", [0, 1, 4, 6, 7], {1: 2, 3: 1}), ("none", [0, 1], {})],
)
def test_empty_classes_get_as_many_as_the_smallest_kept_class(kind, rows, added):
    keep, counts = top_up(KEEP, LABEL, SCORE, num_classes=4, kind=kind)
    assert np.flatnonzero(keep).tolist() == rows
    assert counts == added
    assert np.flatnonzero(KEEP).tolist() == [0, 1]  # the given mask is not changed


def test_the_floor_is_n_over_c_squared():
    label = np.repeat([0, 1], 50)
    keep = np.zeros(100, bool)
    keep[0] = True
    filled, added = top_up(keep, label, np.arange(100.0), num_classes=2, kind="best")
    assert added == {1: 25}
    assert filled[75:].all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 2**31), st.sampled_from(["best", "lowest"]))
def test_after_a_top_up_no_class_is_empty_and_none_lost_a_sample(labels, seed, kind):
    rng = np.random.default_rng(seed)
    label = np.array(labels)
    keep = rng.random(len(label)) < 0.1
    filled, _ = top_up(keep, label, rng.random(len(label)), num_classes=5, kind=kind)
    assert (filled >= keep).all()
    assert set(label[filled]) == set(label)


def test_the_noise_estimate_finds_the_confusion_that_was_made():
    """A quarter of class 0 is really class 1; the other labels are right."""
    rng = np.random.default_rng(0)
    truth = np.concatenate([np.zeros(750, int), np.ones(250, int), np.ones(500, int), np.full(400, 2)])
    label = np.concatenate([np.zeros(1000, int), np.ones(500, int), np.full(400, 2)])
    prob = np.full((len(truth), 3), 0.05)
    prob[np.arange(len(truth)), truth] = rng.uniform(0.8, 0.9, len(truth))
    prob /= prob.sum(axis=1, keepdims=True)
    found = estimate_confusion(posterior_of(prob, label), label, num_classes=4)
    # Thresholds are means, so of equally sure samples only about half count: the estimate is conservative.
    assert 0.1 < found.noise_C[0] < 0.3
    assert found.noise_C[1] == found.noise_C[2] == 0
    assert np.isnan(found.noise_C[3])
    given_label, likely, samples = found.off_diagonal(5)[0]
    assert (given_label, likely) == (0, 1)
    assert samples == pytest.approx(1000 * found.noise_C[0])


def test_calibrated_counts_add_up_to_the_class_sizes():
    rng = np.random.default_rng(1)
    prob = rng.dirichlet([0.5] * 6, 500)
    label = rng.integers(0, 6, 500)
    found = estimate_confusion(posterior_of(prob, label), label, num_classes=6)
    for k in range(6):
        assert found.count_E[found.given_E == k].sum() == pytest.approx((label == k).sum())


def confident_counts(prob, label, *, as_seen=False):
    """Confident learning as its paper has it, from the whole matrix: (C, C) calibrated counts.

    as_seen: only what the most probable and the given class tell, which is all that is kept of a row.
    """
    classes = prob.shape[1]
    threshold = np.array([prob[label == k, k].mean() if (label == k).any() else np.inf for k in range(classes)])
    joint = np.zeros((classes, classes))
    for row, given_label in zip(prob, label):
        confident = np.flatnonzero(row >= threshold - 1e-6)
        if as_seen:
            confident = confident[np.isin(confident, [row.argmax(), given_label])]
        if len(confident):
            joint[given_label, confident[0] if len(confident) == 1 else row.argmax()] += 1
    total = joint.sum(axis=1, keepdims=True)
    return joint / np.where(total > 0, total, 1) * np.bincount(label, minlength=classes)[:, None]


@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([1, 8]))
def test_the_counts_are_confident_learnings_as_far_as_the_kept_classes_tell(rows, classes, seed, levels):
    """levels 1: every probability the same, where a mean must not lie above what it is the mean of."""
    rng = np.random.default_rng(seed)
    prob = 1.0 + rng.integers(0, levels, (rows, classes))
    prob = (prob / prob.sum(axis=1, keepdims=True)).astype(np.float32)
    label = rng.integers(0, classes, rows)
    found = estimate_confusion(posterior_of(prob, label), label, num_classes=classes)
    joint = np.zeros((classes, classes))
    joint[found.given_E, found.likely_E] = found.count_E
    np.testing.assert_allclose(joint, confident_counts(prob, label, as_seen=True), atol=1e-9)


def test_what_the_other_classes_would_tell_moves_the_noise_rate_by_less_than_a_point():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 6, 4000)
    label = np.where(rng.random(4000) < 0.3, rng.integers(0, 6, 4000), truth)
    logit = rng.standard_normal((4000, 6))
    logit[np.arange(4000), truth] += 2.0
    prob = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    found = estimate_confusion(posterior_of(prob, label), label, num_classes=6)
    exact = confident_counts(prob, label)
    noise = 1 - np.trace(exact) / exact.sum()
    assert np.average(found.noise_C, weights=np.bincount(label)) == pytest.approx(noise, abs=0.01)


def test_classes_whose_scores_say_nothing_are_counted_and_named(recorder):
    names = tuple(f"c{k}" for k in range(9))
    needed = SimpleNamespace(title="zeroshot", extra=None, scorer=SimpleNamespace(name="zeroshot"))
    for mixture in ({"constant": [3]}, {"constant": list(range(7)), "not_converged": [8]}, {}):
        scores = [SimpleNamespace(needed=needed, attributes={"mixture": mixture})]
        _warn_of_mixtures(scores, {Rule("zeroshot", "loss"): None}, names, recorder)
    _warn_of_mixtures(scores, {Rule("zeroshot", "match"): None}, names, recorder)
    assert recorder.warnings == [
        "zeroshot.loss: all scores are equal in 1 class (c3); the loss rule keeps all of their samples.",
        "zeroshot.loss: all scores are equal in 7 classes (c0, c1, c2, c3, c4 …); the loss rule keeps all of their "
        "samples.",
        "zeroshot.loss: the mixtures of 1 class did not converge (c8); their posteriors are those of the last step.",
    ]


@pytest.mark.parametrize(("found", "words"), [({"follows": 0.456}, "46 %"), ({}, "too many")])
def test_noise_that_follows_the_image_is_told_with_its_share_until_somebody_looks(found, words, recorder):
    check = {"class_conditional": False, **found}
    warn_of_noise({"check": check}, 100, recorder)
    warn_of_noise({"check": check | {"class_conditional": None}}, 0, recorder)
    warn_of_noise({"check": check | {"class_conditional": True}}, 0, recorder)
    assert recorder.warnings == []
    warn_of_noise({"check": check}, 0, recorder)
    assert f"Of the labels that look wrong, {words} go where their images point" in recorder.warnings[0]
    assert "--strategy intersection" in recorder.warnings[0]
    assert "--verdicts FILE" in recorder.warnings[0]
