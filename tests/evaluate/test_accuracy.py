"""Accuracies are counted right, block by block."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from cleanctl.evaluate.accuracy import AccuracyCounter, zero_shot


def test_top1_top5_and_per_class_agree_with_sklearn_in_uneven_blocks() -> None:
    rng = np.random.default_rng(3)
    logit = rng.normal(size=(1003, 12)).astype(np.float32)
    label = rng.integers(0, 12, 1003)
    logit[np.arange(1003), label] += 1
    counter = AccuracyCounter(12)
    for block in np.array_split(np.arange(1003), 7):
        counter.add(logit[block], label[block])
    found = counter.result()
    assert found.count == 1003
    assert found.top1 == pytest.approx(top_k_accuracy_score(label, logit, k=1, labels=np.arange(12)))
    assert found.top5 == pytest.approx(top_k_accuracy_score(label, logit, k=5, labels=np.arange(12)))
    for k in range(12):
        assert found.per_class[k] == pytest.approx((logit[label == k].argmax(1) == k).mean())


def test_ties_go_to_the_lowest_class_and_absent_classes_have_no_accuracy() -> None:
    counter = AccuracyCounter(7)
    counter.add(np.zeros((3, 7), np.float32), np.array([0, 4, 5]))
    found = counter.result()
    assert found.top1 == pytest.approx(1 / 3)
    assert found.top5 == pytest.approx(2 / 3)
    assert found.per_class == (1.0, None, None, None, 0.0, 0.0, None)


def test_top5_is_not_claimed_for_five_classes_or_fewer() -> None:
    counter = AccuracyCounter(5)
    counter.add(np.eye(5, dtype=np.float32), np.arange(5))
    assert counter.result().top5 is None


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_zero_shot_is_the_plain_formula_over_blocks_and_skips_unknown_truth() -> None:
    rng = np.random.default_rng(5)
    image = unit(rng.normal(size=(500, 16))).astype(np.float16)
    text = unit(rng.normal(size=(11, 16))).astype(np.float32)
    owner = np.array([2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 2], np.int32)
    label = rng.integers(0, 3, 500).astype(np.int32)
    label[::9] = -1
    known = label >= 0
    blocks = [(slice(at, min(at + 130, 500)), image[at : at + 130]) for at in range(0, 500, 130)]
    found = zero_shot(blocks, label, text, owner, 3)
    similarity = image.astype(np.float64) @ text.T
    summed = np.stack([np.exp(similarity[:, owner == k] / 0.07).sum(axis=1) for k in range(3)], axis=1)
    assert found["sum"].count == known.sum()
    assert found["sum"].top1 == pytest.approx((summed.argmax(1) == label)[known].mean())
    assert found["nearest"].top1 == pytest.approx((owner[similarity.argmax(1)] == label)[known].mean())


@pytest.mark.parametrize("spoilt", [slice(None), slice(2, 3)])
def test_nan_in_a_prediction_counts_as_wrong(spoilt: slice) -> None:
    logit = np.eye(10, dtype=np.float32).repeat(10, axis=0)
    label = np.repeat(np.arange(10), 10)
    logit[:30, spoilt] = np.nan
    counter = AccuracyCounter(10)
    counter.add(logit, label)
    found = counter.result()
    assert counter.undefined == 30
    assert found.top1 == found.top5 == 0.7
    assert found.per_class[:4] == (0.0, 0.0, 0.0, 1.0)
