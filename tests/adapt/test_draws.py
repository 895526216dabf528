"""Complementary labels: uniform over the other classes, and the same whatever was drawn before."""

from __future__ import annotations

import numpy as np

from cleanctl.adapt.draws import complementary_labels


def test_a_row_draws_the_same_label_in_any_batch_and_order():
    row, label = np.arange(1000), np.arange(1000) % 7
    whole = complementary_labels(3, 2, row, label, num_classes=7)
    order = np.random.default_rng(0).permutation(1000)
    parts = [complementary_labels(3, 2, part, label[part], num_classes=7) for part in np.array_split(order, 13)]
    assert np.array_equal(np.concatenate(parts), whole[order])


def test_draws_are_uniform_over_the_other_classes_and_never_the_label():
    row, label = np.arange(60_000), np.full(60_000, 4)
    drawn = complementary_labels(0, 0, row, label, num_classes=11)
    count = np.bincount(drawn, minlength=11)
    assert count[4] == 0
    others = np.delete(count, 4)
    # Ten classes of 6,000 expected; chi-squared with 9 degrees of freedom is above 34 once in 10,000 generators.
    assert ((others - 6000) ** 2 / 6000).sum() < 34


def test_seeds_and_epochs_draw_differently_and_two_classes_draw_the_other_one():
    row, label = np.arange(5000), np.zeros(5000, int)
    drawn = {key: complementary_labels(*key, row, label, num_classes=6) for key in ((0, 0), (0, 1), (1, 0))}
    for one, other in (((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 1), (1, 0))):
        assert 0.15 < (drawn[one] == drawn[other]).mean() < 0.25
    assert np.array_equal(complementary_labels(9, 9, row, row % 2, num_classes=2), 1 - row % 2)
