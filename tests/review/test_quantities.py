"""Limits of noise rate, precision and recall from a stratified sample: exact where they can be, and they cover."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import beta, hypergeom

from cleanctl.review.quantities import QUANTITIES, Looks, covers, estimate


def looks(size, keep, right, wrong, unknown=None):
    """One sample."""
    unknown = [0] * len(size) if unknown is None else unknown
    counts = {"right_GH": right, "wrong_GH": wrong, "unknown_GH": unknown}
    arrays = {name: np.array([values], np.int64) for name, values in counts.items()}
    return Looks(size_H=np.array(size), keep_H=np.array(keep, bool), **arrays)


def told(quantity, sample):
    """(value, low, high) of one sample; None where there is nothing that it is about."""
    found = estimate(quantity, sample)
    return found and SimpleNamespace(value=found.value_G[0], low=found.low_G[0], high=found.high_G[0])


@pytest.mark.parametrize("wrong", [0, 1, 7, 100, 199, 200])
def test_one_cell_of_many_rows_gives_the_limits_of_clopper_and_pearson(wrong):
    found = told("noise", looks([10**7], [True], [200 - wrong], [wrong]))
    assert found.low == pytest.approx(beta.ppf(0.025, wrong, 201 - wrong) if wrong else 0, abs=2e-5)
    assert found.high == pytest.approx(beta.ppf(0.975, wrong + 1, 200 - wrong) if wrong < 200 else 1, abs=2e-5)
    assert found.value == wrong / 200


def test_one_cell_of_few_rows_gives_the_limits_of_the_hypergeometric_distribution():
    size, seen, wrong = 300, 120, 9
    found = told("noise", looks([size], [False], [seen - wrong], [wrong]))
    whole = np.arange(size + 1)
    inside = whole[
        (hypergeom.cdf(wrong, size, whole, seen) > 0.025) & (hypergeom.sf(wrong - 1, size, whole, seen) > 0.025)
    ]
    assert abs(found.low * size - inside[0]) <= 1
    assert abs(found.high * size - inside[-1]) <= 1


def test_where_every_row_was_seen_nothing_is_uncertain():
    found = looks([40, 60, 20], [True, True, False], [39, 50, 4], [1, 10, 16])
    assert (told("noise", found).low, told("noise", found).high) == pytest.approx((27 / 120, 27 / 120), abs=1e-4)
    assert (told("precision", found).low, told("precision", found).high) == pytest.approx((0.89, 0.89), abs=1e-4)
    assert (told("recall", found).low, told("recall", found).high) == pytest.approx((89 / 93, 89 / 93), abs=1e-4)


def test_a_look_that_decided_nothing_counts_against_each_limit():
    known = looks([5000, 5000], [True, False], [95, 20], [5, 80])
    skipped = looks([5000, 5000], [True, False], [90, 20], [5, 75], [5, 5])
    without = looks([5000, 5000], [True, False], [90, 20], [5, 75])
    for quantity in QUANTITIES:
        sure, wide, naive = (told(quantity, one) for one in (known, skipped, without))
        assert wide.low <= sure.low + 1e-6
        assert wide.high >= sure.high - 1e-6
        assert wide.high - wide.low > naive.high - naive.low
        assert wide.low <= wide.value <= wide.high


def test_a_cell_without_a_look_may_hold_anything():
    found = looks([9000, 1000], [True, False], [100, 0], [0, 0])
    assert told("noise", found).low == 0
    alone = told("noise", looks([9000], [True], [100], [0]))
    assert told("noise", found).high == pytest.approx(0.9 * alone.high + 0.1, abs=1e-4)
    assert np.isnan(told("noise", found).value)
    assert told("precision", found).value == 1
    assert told("recall", found).high == 1
    assert told("recall", found).low < 0.9


def test_without_rows_or_looks_nothing_is_claimed():
    nothing = looks([500, 500], [True, False], [0, 0], [0, 0])
    for quantity in QUANTITIES:
        found = told(quantity, nothing)
        assert np.isnan(found.value)
        assert (found.low, found.high) == (0, 1)
    assert told("precision", looks([500], [False], [20], [5])) is None
    assert np.isnan(told("recall", looks([500, 500], [True, False], [0, 0], [50, 50])).value)


TRUTHS = {  # wrong labels of the cells kept 6,000, 1,000, 600; dropped 1,000, 1,400
    "as scores say": (60, 200, 250, 700, 1380),
    "hidden where scores are sure": (480, 20, 20, 700, 1000),
    "nearly none": (3, 2, 1, 1, 1),
    "nearly all": (5990, 990, 599, 999, 1398),
    "all in one cell": (0, 0, 600, 0, 0),
}


@pytest.mark.parametrize("truth", TRUTHS)
def test_limits_cover_whatever_the_noise_is(truth):
    """At least 93 of 100 samples, for each quantity; 120 looks."""
    size, seen, keep = [6000, 1000, 600, 1000, 1400], [30, 25, 20, 25, 20], [True, True, True, False, False]
    size_H, seen_H, wrong_H = np.array(size), np.array(seen), np.array(TRUTHS[truth])
    right_H = size_H - wrong_H
    actual = {
        "noise": wrong_H.sum() / 10_000,
        "precision": right_H[:3].sum() / 7_600,
        "recall": right_H[:3].sum() / right_H.sum(),
    }
    rng = np.random.default_rng(5)
    found_GH = rng.hypergeometric(wrong_H, right_H, seen_H, size=(100, 5))
    counts = {"right_GH": seen_H - found_GH, "wrong_GH": found_GH, "unknown_GH": 0 * found_GH}
    samples = Looks(size_H=size_H, keep_H=np.array(keep), **counts)
    assert all(covers(quantity, samples, value).sum() >= 93 for quantity, value in actual.items())


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_limits_are_where_values_stop_to_be_covered(quantity):
    sample = looks([6000, 1000, 3000], [True, True, False], [49, 20, 10], [1, 10, 40], [0, 2, 1])
    found = told(quantity, sample)
    for limit, out in ((found.low, -1e-4), (found.high, 1e-4)):
        assert covers(quantity, sample, limit - out)
        assert not covers(quantity, sample, limit + out)
