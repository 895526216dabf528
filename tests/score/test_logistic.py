"""The logistic scorer finds scikit-learn's optimum, streams its blocks, and survives every odd class."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanctl.errors import InputError, UsageError
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.compute import posterior_of
from cleanctl.score.logistic import fit_logistic, stratified_folds

_spec = importlib.util.spec_from_file_location("geometry", Path(__file__).parents[2] / "bench" / "geometry.py")
assert _spec is not None
assert _spec.loader is not None
geometry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(geometry)


def sklearn_fit(image, label, *, inverse_l2=1.0, tol=1e-8):
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(max_iter=10_000, class_weight="balanced", tol=tol, C=inverse_l2)
        return model.fit(image.astype(np.float64), label)


def our_probabilities(model, image, classes):
    logit = image.astype(np.float64) @ model.coef_DK + model.intercept_K
    prob = np.exp(logit - logit.max(axis=1, keepdims=True))
    full = np.zeros((len(image), classes))
    full[:, model.class_K] = prob / prob.sum(axis=1, keepdims=True)
    return full


def objective(coef_DK, intercept_K, image, label, class_K, l2=1.0):
    """float64, of the fitted classes, multinomial form."""
    logit = image.astype(np.float64) @ coef_DK + intercept_K
    high = logit.max(axis=1, keepdims=True)
    log_norm = np.log(np.exp(logit - high).sum(axis=1)) + high[:, 0]
    target = np.searchsorted(class_K, label)
    weight = (len(label) / (len(class_K) * np.bincount(target)))[target]
    return float((weight * (log_norm - logit[np.arange(len(label)), target])).sum() + 0.5 * l2 * (coef_DK**2).sum())


@pytest.mark.parametrize("inverse_l2", [1.0, 0.05])
def test_probabilities_are_within_1e_3_of_scikit_learn_and_the_objective_is_not_higher(inverse_l2):
    data = geometry.clip_like(3000, dim=48, classes=12, noise=0.4, seed=2)
    blocks = Float32Blocks(ArrayBlocks(image_ND=data.image_ND, block_rows=700))
    ours = fit_logistic(blocks, data.label_N.astype(np.int64), inverse_l2=inverse_l2)
    theirs = sklearn_fit(data.image_ND, data.label_N, inverse_l2=inverse_l2)
    prob = our_probabilities(ours, data.image_ND, 12)
    assert np.abs(prob - theirs.predict_proba(data.image_ND.astype(np.float64))).max() < 1e-3
    args = (data.image_ND, data.label_N, ours.class_K, 1 / inverse_l2)
    best = objective(theirs.coef_.T, theirs.intercept_, *args)
    assert objective(ours.coef_DK, ours.intercept_K, *args) < best * (1 + 1e-5)
    assert ours.objective == pytest.approx(best, rel=1e-5)
    assert ours.converged


@pytest.mark.slow
def test_agreement_at_the_size_of_the_promise():
    """N = 20,000, D = 512, C = 100, 40 % noise: probabilities within 1e-3, objective within 1e-5 relative."""
    data = geometry.clip_like(20_000, noise=0.4, seed=3)
    ours = fit_logistic(Float32Blocks(ArrayBlocks(image_ND=data.image_ND)), data.label_N.astype(np.int64))
    theirs = sklearn_fit(data.image_ND, data.label_N, tol=1e-7)
    prob = our_probabilities(ours, data.image_ND, 100)
    assert np.abs(prob - theirs.predict_proba(data.image_ND.astype(np.float64))).max() < 1e-3
    args = (data.image_ND, data.label_N, ours.class_K)
    best = objective(theirs.coef_.T, theirs.intercept_, *args)
    assert objective(ours.coef_DK, ours.intercept_K, *args) < best * (1 + 1e-5)
    assert ours.evaluations <= 20


def test_two_classes_agree_with_scikit_learns_binary_model():
    data = geometry.clip_like(600, dim=24, classes=2, prompts=2, noise=0.3, seed=4)
    ours = fit_logistic(Float32Blocks(ArrayBlocks(image_ND=data.image_ND)), data.label_N.astype(np.int64))
    theirs = sklearn_fit(data.image_ND, data.label_N)
    prob = our_probabilities(ours, data.image_ND, 2)
    assert np.abs(prob - theirs.predict_proba(data.image_ND.astype(np.float64))).max() < 1e-3


def test_the_statistics_are_those_of_the_fitted_model():
    data = geometry.clip_like(900, dim=24, classes=6, prompts=6, seed=5)
    label = data.label_N.astype(np.int64)
    label[label == 3] = 2  # class 3 is absent
    blocks = ArrayBlocks(image_ND=data.image_ND, block_rows=250)
    found = posterior_of("logistic", blocks, label, num_classes=7)
    prob = our_probabilities(fit_logistic(Float32Blocks(blocks), label), data.image_ND, 7)
    ordered = np.sort(prob, axis=1)
    np.testing.assert_allclose(found.p_label, prob[np.arange(900), label], atol=1e-5)
    np.testing.assert_allclose(found.p_max, ordered[:, -1], atol=1e-5)
    np.testing.assert_allclose(found.p_second, ordered[:, -2], atol=1e-5)
    np.testing.assert_array_equal(found.suggested, prob.argmax(axis=1))
    assert 3 not in found.suggested
    assert 6 not in found.suggested


def test_crossfit_scores_each_row_by_a_model_that_did_not_see_it():
    data = geometry.clip_like(800, dim=24, classes=4, prompts=4, noise=0.4, seed=6)
    label, blocks = data.label_N.astype(np.int64), ArrayBlocks(image_ND=data.image_ND)
    found = posterior_of("logistic", blocks, label, num_classes=4, crossfit=3, seed=11)
    fold = stratified_folds(label, 3, 11)
    for number in range(3):
        held = fold == number
        theirs = sklearn_fit(data.image_ND[~held], label[~held])
        prob = theirs.predict_proba(data.image_ND[held].astype(np.float64))
        np.testing.assert_allclose(found.p_label[held], prob[np.arange(held.sum()), label[held]], atol=1e-3)
    inside = posterior_of("logistic", blocks, label, num_classes=4)
    assert found.p_label.mean() < inside.p_label.mean()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(2, 5), st.integers(0, 99))
def test_folds_are_balanced_in_every_class_and_overall(counts, folds, seed):
    label = np.repeat(np.arange(len(counts)), counts)
    fold = stratified_folds(label, folds, seed)
    assert np.array_equal(fold, stratified_folds(label, folds, seed))
    for k in range(len(counts)):
        sizes = np.bincount(fold[label == k], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 2, 9]), min_size=1, max_size=5).filter(any),
    st.sampled_from([0, 2]),
    st.booleans(),
    st.integers(0, 999),
)
def test_any_classes_give_finite_probabilities(counts, crossfit, constant, seed):
    """Absent classes, one-sample classes, one class only, identical images."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    image = rng.standard_normal((len(label), 6))
    if constant:
        image[:] = image[0]
    image = (image / np.linalg.norm(image, axis=1, keepdims=True)).astype(np.float16)
    blocks = ArrayBlocks(image_ND=image)
    if crossfit > len(label):
        with pytest.raises(UsageError, match="--crossfit is 2, of 1 readable"):
            posterior_of("logistic", blocks, label, num_classes=len(counts), crossfit=crossfit)
        return
    found = posterior_of("logistic", blocks, label, num_classes=len(counts), crossfit=crossfit)
    for values in (found.p_label, found.p_max, found.p_second):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (values <= 1 + 1e-6).all()
    assert (found.p_label <= found.p_max + 1e-6).all()
    present = np.flatnonzero(np.bincount(label))
    if not crossfit:
        assert np.isin(found.suggested, present).all()
        if len(present) == 1:
            assert (found.p_label == 1).all()
            assert (found.p_second == 0).all()


def test_non_finite_rows_are_refused_and_named():
    data = geometry.clip_like(100, dim=16, classes=3, prompts=3, seed=7)
    data.image_ND[[20, 99], 5] = np.nan
    with pytest.raises(InputError, match="rows 20, 99"):
        posterior_of("logistic", ArrayBlocks(image_ND=data.image_ND), data.label_N, num_classes=3)


def test_memory_is_bounded_blocks_beyond_the_budget_are_read_again_and_give_the_same_fit():
    data = geometry.clip_like(2000, dim=16, classes=3, prompts=3, seed=8)
    label, blocks = data.label_N.astype(np.int64), ArrayBlocks(image_ND=data.image_ND, block_rows=300)
    kept = Float32Blocks(blocks)
    some = Float32Blocks(blocks, cache_bytes=700 * 16 * 2)
    fits = [fit_logistic(source, label) for source in (kept, some)]
    assert sum(rows.stop - rows.start for rows, _ in some._kept) == 600
    assert [rows for rows, _ in some] == [rows for rows, _ in kept]
    np.testing.assert_allclose(fits[0].coef_DK, fits[1].coef_DK, atol=1e-5)
