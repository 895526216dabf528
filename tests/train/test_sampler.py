"""Class balance, the released code's remainder, and the number of steps."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanctl.train.sampler import balanced, balanced_subset, epoch_batches


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.booleans(), st.integers(0, 1000))
def test_every_present_class_is_visited_as_often_as_the_largest(labels: list[int], legacy: bool, seed: int) -> None:
    label = np.array(labels)
    visits = balanced(label, np.random.default_rng(seed), legacy=legacy)
    counts = np.bincount(label)
    assert np.array_equal(np.bincount(label[visits], minlength=len(counts)), (counts > 0) * counts.max())
    per_sample = np.bincount(visits, minlength=len(label))
    for k in np.flatnonzero(counts):
        assert np.ptp(per_sample[label == k]) <= 1, "no member is visited two times more than another"


def test_the_random_remainder_reaches_every_member_and_the_legacy_one_only_the_first() -> None:
    label = np.array([0] * 13 + [1] * 10)  # class 1 needs a remainder of 3, less than half of its ten members
    extra = {legacy: set() for legacy in (False, True)}
    for legacy, seen in extra.items():
        for seed in range(60):
            visits = balanced(label, np.random.default_rng(seed), legacy=legacy)
            seen |= set(np.flatnonzero(np.bincount(visits) == 2).tolist())
    assert extra[False] == set(range(13, 23))
    assert extra[True] == {13, 14, 15}


def test_steps_come_from_the_caller_and_passes_restart_until_they_are_done() -> None:
    member = np.array([5, 7, 9, 11, 13])
    batches = list(
        epoch_batches(member, np.zeros(5, int), sampler="shuffled", steps=7, batch_size=3, rng=np.random.default_rng(0))
    )
    assert [len(batch) for batch in batches] == [3, 2, 3, 2, 3, 2, 3]  # a pass's last batch is kept
    assert set(np.concatenate(batches[:2])) == set(member)
    assert not np.array_equal(np.concatenate(batches[:2]), np.concatenate(batches[2:4]))


def test_the_remainder_is_drawn_once_an_epoch_and_each_pass_shuffles_it() -> None:
    """docs/method.md B.3: of 2 + 5 samples each pass visits the two of the small class in one and the same way."""
    label = np.array([0] * 5 + [1] * 2)
    for seed in range(8):
        draw = {"sampler": "balanced", "steps": 6, "batch_size": 10, "rng": np.random.default_rng(seed)}
        passes = list(epoch_batches(np.arange(7), label, **draw))
        counts = [np.bincount(one, minlength=7).tolist() for one in passes]
        assert counts == [counts[0]] * 6
        assert sorted(counts[0][5:]) == [2, 3]
        assert len({tuple(one) for one in passes}) == 6


def test_a_balanced_subset_gives_no_class_more_than_its_share_and_changes_from_epoch_to_epoch() -> None:
    label = np.array([0] * 50 + [1] * 30 + [2] * 4)
    drawn = [balanced_subset(label, 30, np.random.default_rng(seed)) for seed in range(20)]
    assert [np.bincount(label[one]).tolist() for one in drawn] == [[10, 10, 4]] * 20
    assert all(len(set(one.tolist())) == 24 for one in drawn)
    assert set(np.concatenate(drawn).tolist()) == set(range(84))
    steps = {"steps": 5, "batch_size": 6, "rng": np.random.default_rng(0)}
    visited = np.concatenate(list(epoch_batches(np.arange(84), label, sampler="balanced-subset", **steps)))
    assert len(visited) == 30
    assert len(set(visited.tolist())) == 24


def test_a_lone_last_image_is_left_out_because_batch_norm_has_no_variance_there() -> None:
    batches = list(
        epoch_batches(
            np.arange(4),
            np.zeros(4, int),
            sampler="shuffled",
            steps=3,
            batch_size=3,
            rng=np.random.default_rng(0),
        )
    )
    assert [len(batch) for batch in batches] == [3, 3, 3]


def test_batches_of_one_image_end_too() -> None:
    draw = {"sampler": "shuffled", "rng": np.random.default_rng(0)}
    batches = list(epoch_batches(np.arange(4), np.zeros(4, int), steps=6, batch_size=1, **draw))
    assert [len(batch) for batch in batches] == [1] * 6
