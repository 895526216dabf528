"""Groups have a centre that every member is a copy of; nothing is chained, and nothing is lost to the cut at K."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cleanctl.conflicts.groups import group


def within(place_N, reach):
    """Points on a line that are copies of each other where they are at most `reach` apart."""

    def alike(first_P, second_P):
        apart_P = np.abs(place_N[first_P] - place_N[second_P])
        return np.where(apart_P <= reach, 1 - 0.1 * apart_P / reach, 0).astype(np.float32)

    return alike


def grouped(place_N, reach, neighbors):
    place_N = np.asarray(place_N, float)
    near_NK = np.argsort(np.abs(place_N[:, None] - place_N), axis=1, kind="stable")[:, : neighbors + 1]
    pairs = {(min(i, j), max(i, j)) for i, row in enumerate(near_NK.tolist()) for j in row if i != j}
    first_P, second_P = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    alike = within(place_N, reach)
    found_P = alike(first_P, second_P)
    copy_P = found_P > 0
    return group(len(place_N), first_P[copy_P], second_P[copy_P], found_P[copy_P], alike), alike


def test_what_is_like_a_member_and_not_like_the_centre_stays_out():
    stars, _ = grouped([0, 1, 2], reach=1.2, neighbors=2)
    assert stars.centre_M.tolist() == [1, 1, 1]
    stars, _ = grouped([0, 1, 2, 3], reach=1.2, neighbors=3)
    assert stars.centre_M.tolist() == [1, 1, 1, -1]


def test_more_copies_than_neighbours_are_one_group():
    place_N = np.concatenate([np.linspace(0, 0.2, 300), [5, 9, 9.1]])
    stars, _ = grouped(np.random.default_rng(0).permutation(place_N), reach=1, neighbors=4)
    sizes = np.unique(stars.centre_M[stars.centre_M >= 0], return_counts=True)[1]
    assert sorted(sizes.tolist()) == [2, 300]


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=40),
    st.floats(0.1, 4),
    st.integers(1, 5),
)
def test_every_member_is_a_copy_of_its_centre(places, reach, neighbors):
    stars, alike = grouped(places, reach, neighbors)
    member_M = np.flatnonzero(stars.centre_M >= 0)
    centre_M = stars.centre_M[member_M]
    assert (stars.centre_M[centre_M] == centre_M).all()
    assert (alike(member_M, centre_M) > 0).all()
    np.testing.assert_allclose(stars.alike_M[member_M], alike(member_M, centre_M), rtol=1e-6)
    assert (np.unique(centre_M, return_counts=True)[1] > 1).all()
