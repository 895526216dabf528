"""MixFix's rule, row by row of docs/method.md B.1's table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanctl.train.methods import mixfix

# One sample a row: given label, prediction, confidence, selected → member and label for scope all, for unselected.
ROWS = [
    # agreement
    (1, 1, 0.70, False, (True, 1), (True, 1)),  # exactly at the threshold: ≥, as the code
    (1, 1, 0.69, False, (False, 1), (False, 1)),
    (1, 1, 0.10, True, (True, 1), (True, 1)),
    # contradiction
    (1, 2, 0.90, False, (True, 2), (True, 2)),
    (1, 2, 0.89, False, (False, 1), (False, 1)),
    (1, 2, 0.75, False, (False, 1), (False, 1)),  # Eq. 7's gap: between the thresholds and contradicted
    (1, 2, 0.95, True, (True, 2), (True, 1)),  # a selected sample is relabelled by the code, not by the paper
    (1, 2, 0.50, True, (True, 1), (True, 1)),
    # could not be read
    (1, -1, -1.0, False, (False, 1), (False, 1)),
]


@pytest.mark.parametrize(("scope", "column"), [("all", 4), ("unselected", 5)])
def test_every_row_of_the_table(scope: mixfix.RelabelScope, column: int) -> None:
    label, predicted = np.array([row[0] for row in ROWS]), np.array([row[1] for row in ROWS])
    confidence = np.array([row[2] for row in ROWS], np.float32)
    selected = np.array([row[3] for row in ROWS])
    got = mixfix.update(
        predicted,
        confidence,
        label,
        selected,
        theta_absorb=np.float32(0.7),
        theta_relabel=np.float32(0.9),
        relabel_scope=scope,
    )
    assert list(zip(got.member_M.tolist(), got.label_M.tolist())) == [row[column] for row in ROWS]
    assert got.absorbed == 1
    assert got.relabelled == (2 if scope == "all" else 1)


def test_thresholds_of_one_do_not_switch_off_but_the_switches_do() -> None:
    label, predicted = np.array([0, 0]), np.array([0, 1])
    certain, none = np.ones(2, np.float32), np.zeros(2, bool)
    on = mixfix.update(predicted, certain, label, none, theta_absorb=1, theta_relabel=1)
    assert on.member_M.tolist() == [True, True]
    off = mixfix.update(predicted, certain, label, none, theta_absorb=0, theta_relabel=0, absorb=False, relabel=False)
    assert off.member_M.tolist() == [False, False]
    assert off.label_M.tolist() == [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_labels_never_pile_up(seed: int) -> None:
    """Two epochs in a row: a label is the given one or this epoch's prediction, never last epoch's."""
    rng = np.random.default_rng(seed)
    given_M, selected_M = rng.integers(0, 3, 50), rng.random(50) < 0.4
    for _ in range(2):
        predicted_M, confidence_M = rng.integers(0, 3, 50), rng.random(50).astype(np.float32)
        got = mixfix.update(predicted_M, confidence_M, given_M, selected_M, theta_absorb=0.5, theta_relabel=0.6)
        changed_M = got.label_M != given_M
        assert (confidence_M[changed_M] >= 0.6).all()
        assert (got.label_M[changed_M] == predicted_M[changed_M]).all()
        assert got.member_M[selected_M].all()
