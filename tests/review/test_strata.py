"""The plan of a sample and its draw: every row has the chance that is stated, looks go where they say most."""

from __future__ import annotations

import numpy as np
import pytest

from cleanctl.review.strata import allocate, draw, plan


@pytest.fixture
def scored():
    """(score, keep, label) of 5,000 rows of ten classes."""
    rng = np.random.default_rng(3)
    score_N = rng.beta(2, 0.4, 5000)
    return score_N, score_N > 0.6, rng.integers(0, 10, 5000)


@pytest.mark.parametrize("looks", [1, 7, 200, 4999, 5000])
def test_a_plan_holds_every_row_once_and_as_many_looks_as_asked(scored, looks):
    score_N, keep_N, _ = scored
    made = plan(score_N, keep_N, looks)
    assert made.looks_H.sum() == looks
    assert (made.looks_H <= made.size_H).all()
    assert np.array_equal(np.bincount(made.stratum_N), made.size_H)
    assert np.array_equal(made.keep_H[made.stratum_N], keep_N)


def test_rows_of_which_the_score_is_unsure_are_looked_at_more(scored):
    score_N, keep_N, _ = scored
    made = plan(score_N, keep_N, 200)
    rate_N = (made.looks_H / made.size_H)[made.stratum_N]
    assert rate_N[np.abs(score_N - 0.5) < 0.1].mean() > 3 * rate_N[score_N > 0.98].mean()


@pytest.mark.parametrize("keep", [True, False])
def test_a_selection_that_keeps_all_or_nothing_can_be_sampled(keep):
    score_N = np.ones(300)
    made = plan(score_N, np.full(300, keep), 50)
    assert made.looks_H.sum() == 50
    assert (made.keep_H == keep).all()


def test_looks_add_up_and_stay_within_the_rows():
    assert allocate(np.array([1.0, 1.0, 98.0]), np.array([1000, 2, 30]), 60).tolist() == [28, 2, 30]
    assert allocate(np.array([1.0, 1e-9]), np.array([100, 100]), 50).tolist() == [46, 4]
    assert allocate(np.array([1.0, 1.0, 1.0]), np.array([9, 9, 9]), 2).sum() == 2


def test_every_row_of_a_stratum_has_the_chance_that_is_stated():
    stratum_N = np.repeat([0, 1], [7, 23])
    label_N = np.arange(30) % 3
    times_N = np.zeros(30)
    rng = np.random.default_rng(0)
    for _ in range(4000):
        row_n = draw(stratum_N, np.array([3, 4]), label_N, rng)
        assert len(set(row_n.tolist())) == 7
        times_N[row_n] += 1
    chance_N = np.repeat([3 / 7, 4 / 23], [7, 23])
    assert np.abs(times_N / 4000 - chance_N).max() < 0.04


def test_each_class_gets_its_part_of_a_stratum_and_a_beginning_its_part_of_all():
    label_N = np.repeat(np.arange(5), 200)
    stratum_N = np.tile([0, 1], 500)
    row_n = draw(stratum_N, np.array([50, 25]), label_N, np.random.default_rng(0))
    for stratum, each in ((0, 10), (1, 5)):
        assert np.bincount(label_N[row_n[stratum_N[row_n] == stratum]]).tolist() == [each] * 5
    assert np.bincount(stratum_N[row_n[:30]]).tolist() == pytest.approx([20, 10], abs=1)
