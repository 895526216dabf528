"""Selection quality agrees with scikit-learn, ties and corners included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from cleanctl.evaluate.detection import detection, roc_auc
from cleanctl.score.mixture import scaled_in_class


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60))
def test_roc_auc_counts_pairs_and_half_of_the_ties(pairs: list[tuple[int, bool]]) -> None:
    score = np.array([pair[0] for pair in pairs], np.float32) / 3
    clean = np.array([pair[1] for pair in pairs])
    if clean.all() or not clean.any():
        assert roc_auc(score, clean) is None
    else:
        above = score[clean][:, None] - score[~clean][None]
        assert roc_auc(score, clean) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean(), abs=1e-12)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        roc_auc(np.array([np.nan, 0.0, 0.0, 0.0]), np.array([True, False, True, False]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_precision_recall_and_f1_are_sklearns(pairs: list[tuple[bool, bool]]) -> None:
    keep, clean = np.array(pairs).T
    found = detection(keep, clean)
    precision, recall, f1, _ = precision_recall_fscore_support(clean, keep, average="binary", zero_division=0)
    assert (found.precision or 0) == pytest.approx(precision)
    assert (found.recall or 0) == pytest.approx(recall)
    assert (found.f1 or 0) == pytest.approx(f1)
    assert (found.precision is None) == (not keep.any())
    assert (found.recall is None) == (not clean.any())


def test_scaling_inside_classes_handles_constant_and_absent_classes() -> None:
    score = np.array([-5.0, -1.0, -3.0, 7.0, 7.0])
    scaled, flat = scaled_in_class(score, np.array([0, 0, 0, 2, 2]), num_classes=4)
    assert scaled.tolist() == [0.0, 1.0, 0.5, 1.0, 1.0]
    assert flat.tolist() == [False, False, True, False]


def test_scaling_inside_classes_changes_the_auc_where_classes_differ() -> None:
    """Raw scores rank class 1's wrong sample above class 0's right one; inside each class the order is perfect."""
    score = np.array([-9.0, -8.0, -2.0, -1.0])
    clean = np.array([False, True, False, True])
    assert roc_auc(score, clean) == 0.75
    assert roc_auc(scaled_in_class(score, np.array([0, 0, 1, 1]), 2)[0], clean) == 1.0
