"""Accuracies are counted right, block by block."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from cleanctl.evaluate.accuracy import AccuracyCounter


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


def test_mistakes_are_counted_by_pair_of_classes_most_frequent_first() -> None:
    rng = np.random.default_rng(5)
    logit = rng.normal(size=(501, 6)).astype(np.float32)
    label = rng.integers(0, 6, 501)
    logit[7, 2] = np.nan
    counter = AccuracyCounter(6, pairs=True)
    for block in np.array_split(np.arange(501), 4):
        counter.add(logit[block], label[block])
    found = counter.result()
    assert found.confusion is not None
    defined = np.arange(501) != 7
    matrix = confusion_matrix(label[defined], logit[defined].argmax(1), labels=np.arange(6))
    counted = np.diag(np.diag(matrix))
    for actual, predicted, samples in zip(found.confusion.actual, found.confusion.predicted, found.confusion.samples):
        counted[actual, predicted] += samples
    assert (counted == matrix).all()
    assert list(found.confusion.samples) == sorted(found.confusion.samples, reverse=True)
    assert found.seen == tuple(np.bincount(label, minlength=6))
    assert found.count - sum(found.confusion.samples) - counter.undefined == round(found.top1 * found.count)
