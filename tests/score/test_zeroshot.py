"""The zero-shot scorer agrees with the formula in float64 and refuses what it cannot score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanctl.errors import InputError
from cleanctl.records import TextEmbeddings
from cleanctl.score.blocks import ArrayBlocks
from cleanctl.score.compute import posterior_of
from cleanctl.score.mixture import loss_scores
from cleanctl.score.scorer import Rows
from cleanctl.score.zeroshot import class_logits, label_similarity


def unit(rng, rows, dim):
    x = rng.standard_normal((rows, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def zeroshot_posterior(blocks, label, text, *, num_classes, temperature=0.07, pooling="sum"):
    options = {"temperature": temperature, "prompt_pooling": pooling}
    return posterior_of("zeroshot", blocks, label, num_classes=num_classes, text=text, **options)


def make(seed, rows, dim, counts):
    rng = np.random.default_rng(seed)
    class_P = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    text = TextEmbeddings(
        embedding_PD=unit(rng, len(class_P), dim).astype(np.float32), class_P=class_P, prompts=("",) * len(class_P)
    )
    return unit(rng, rows, dim).astype(np.float16), rng.integers(0, len(counts), rows), text


def float64(image, label, text, tau, pooling, classes):
    s = np.exp(image.astype(np.float64) @ text.embedding_PD.astype(np.float64).T / tau)
    pooled = np.stack([s[:, text.class_P == k].sum(axis=1) for k in range(classes)], axis=1)
    if pooling == "mean":
        pooled /= np.bincount(text.class_P)
    return pooled / pooled.sum(axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 70),
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    pooling=st.sampled_from(["sum", "mean"]),
    tau=st.sampled_from([0.01, 0.07, 1.0]),
)
def test_it_agrees_with_float64_within_1e_5(seed, rows, counts, pooling, tau):
    image, label, text = make(seed, rows, 12, counts)
    blocks = ArrayBlocks(image_ND=image, block_rows=32)
    found = zeroshot_posterior(blocks, label, text, num_classes=len(counts), temperature=tau, pooling=pooling)
    prob = float64(image, label, text, tau, pooling, len(counts))
    tolerance = 1e-5 if tau > 0.01 else 1e-4
    ordered = np.sort(prob, axis=1)
    np.testing.assert_allclose(found.p_label, prob[np.arange(rows), label], atol=tolerance)
    np.testing.assert_allclose(found.p_max, ordered[:, -1], atol=tolerance)
    np.testing.assert_allclose(found.p_second, ordered[:, -2] if len(counts) > 1 else 0.0, atol=tolerance)
    entropy = -np.sum(np.where(prob > 0, prob * np.log(np.maximum(prob, 1e-300)), 0), axis=1)
    np.testing.assert_allclose(found.entropy, entropy, atol=10 * tolerance)
    clear = ordered[:, -1] - (ordered[:, -2] if len(counts) > 1 else 0) > 1e-4
    assert (found.suggested[clear] == prob.argmax(axis=1)[clear]).all()


def test_mean_pooling_takes_the_edge_from_classes_with_more_prompts():
    text_PD = np.eye(3, dtype=np.float32)[[0, 0, 0, 1]]
    text = TextEmbeddings(embedding_PD=text_PD, class_P=np.array([0, 0, 0, 1], np.int32), prompts=("",) * 4)
    image = (np.ones((1, 3)) / np.sqrt(3)).astype(np.float16)
    label = np.zeros(1, np.int64)
    by_sum = zeroshot_posterior(ArrayBlocks(image_ND=image), label, text, num_classes=2)
    by_mean = zeroshot_posterior(ArrayBlocks(image_ND=image), label, text, num_classes=2, pooling="mean")
    assert by_sum.p_label[0] == pytest.approx(0.75, abs=1e-6)
    assert by_mean.p_label[0] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_rows_are_refused_and_named(bad):
    image, label, text = make(0, 40, 12, [2, 2])
    image[[7, 33], 3] = bad
    with pytest.raises(InputError, match="rows 7, 33") as caught:
        zeroshot_posterior(ArrayBlocks(image_ND=image, block_rows=40), label, text, num_classes=2)
    assert caught.value.exit_code == 3


def test_infinities_that_cancel_are_refused_too():
    image, label, text = make(0, 4, 12, [2, 2])
    image[1, 0], image[1, 1] = np.inf, -np.inf
    with pytest.raises(InputError, match="rows 1 "):
        zeroshot_posterior(ArrayBlocks(image_ND=image), label, text, num_classes=2)


def test_a_class_without_prompts_and_labels_out_of_range_are_refused():
    image, label, text = make(0, 10, 12, [2, 2])
    with pytest.raises(InputError, match="without a prompt"):
        zeroshot_posterior(ArrayBlocks(image_ND=image), label, text, num_classes=3)
    label[4] = 9
    with pytest.raises(InputError, match="rows 4"):
        zeroshot_posterior(ArrayBlocks(image_ND=image), label, text, num_classes=2)


def test_similarity_is_the_cosine_to_the_nearest_prompt_of_the_label():
    image, label, text = make(3, 50, 12, [1, 4, 2])
    cosine = image.astype(np.float64) @ text.embedding_PD.T
    expected = [cosine[i, text.class_P == label[i]].max() for i in range(50)]
    blocks = ArrayBlocks(image_ND=image, block_rows=16)
    found = label_similarity(Rows(blocks=blocks, label_N=label, num_classes=3, text=text))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_result_does_not_depend_on_how_the_rows_are_cut_into_blocks():
    image, label, text = make(5, 100, 12, [3, 1, 2])
    whole, cut = (
        zeroshot_posterior(ArrayBlocks(image_ND=image, block_rows=size), label, text, num_classes=3)
        for size in (100, 7)
    )
    np.testing.assert_allclose(whole.p_label, cut.p_label, atol=1e-6)
    np.testing.assert_array_equal(whole.suggested, cut.suggested)


def test_the_loss_rule_ranks_below_what_float32_can_hold():
    """At a temperature of 0.001 most probabilities of wrong labels are 0 in float32; their logarithms still differ."""
    image, label, text = make(7, 300, 12, [3, 1, 2])
    found = zeroshot_posterior(ArrayBlocks(image_ND=image), label, text, num_classes=3, temperature=0.001)
    logit = image.astype(np.float64) @ text.embedding_PD.astype(np.float64).T / 0.001
    log_s = np.stack([np.logaddexp.reduce(logit[:, text.class_P == k], axis=1) for k in range(3)], axis=1)
    log_prob = (log_s - np.logaddexp.reduce(log_s, axis=1, keepdims=True))[np.arange(300), label]
    assert (found.p_label == 0).sum() > 100
    np.testing.assert_allclose(found.log_p_label, log_prob, atol=1e-3)
    scored = loss_scores(found.log_p_label, label, num_classes=3)
    for k in range(3):
        mine = label == k
        assert len(np.unique(scored.scaled_N[mine & (found.p_label == 0)])) > 30
        assert (np.diff(log_prob[mine][np.argsort(scored.scaled_N[mine])]) > -1e-3).all()


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_the_logits_of_all_classes_are_those_of_the_formula_and_nearest_is_the_nearest_prompt(pooling):
    image, label, text = make(9, 200, 16, [5, 1, 3, 8])
    rows = Rows(blocks=ArrayBlocks(image_ND=image, block_rows=70), label_N=label, num_classes=4)
    parts = list(class_logits(text, rows, temperature=0.03, pooling=pooling))
    pooled, nearest = (np.concatenate([part[which] for part in parts]) for which in (1, 2))
    prob = np.exp(pooled - pooled.max(axis=1, keepdims=True))
    expected = float64(image, label, text, 0.03, pooling, 4)
    np.testing.assert_allclose(prob / prob.sum(axis=1, keepdims=True), expected, atol=1e-5)
    cosine = image.astype(np.float64) @ text.embedding_PD.T
    best = np.stack([cosine[:, text.class_P == k].max(axis=1) for k in range(4)], axis=1)
    np.testing.assert_allclose(nearest * 0.03, best, atol=1e-5)
