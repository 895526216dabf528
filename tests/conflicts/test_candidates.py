"""Candidates are the nearest neighbours, however they are searched, and as many as was asked for."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cleanctl.conflicts import candidates
from cleanctl.conflicts.candidates import Axes, find_pairs
from cleanctl.errors import InputError
from cleanctl.progress import SILENT

OWN, OTHERS, DIM = 900, 300, 16


class Embeddings:
    """As much of a Pool as the search reads: a block of the split itself, and one of another split."""

    def __init__(self, image_MD: np.ndarray, own: int) -> None:
        self.image_MD, self.own = image_MD.astype(np.float16), own

    def __len__(self) -> int:
        return len(self.image_MD)

    def blocks(self):
        for number_B in np.split(np.arange(len(self)), [self.own]):
            yield number_B, self.image_MD[number_B]


@pytest.fixture
def pool() -> Embeddings:
    """Row 100 is a copy of 7, row 1000 (of the other split) of 8, and 1100 of 1001, both of the other split."""
    image_MD = np.random.default_rng(0).standard_normal((OWN + OTHERS, DIM))
    for copy, of in ((100, 7), (1000, 8), (1100, 1001)):
        image_MD[copy] = image_MD[of] + 0.01
    return Embeddings(image_MD, OWN)


def searched(pool, *, neighbors=3, least_cosine=0.9, left_out=()):
    searched_M = np.ones(len(pool), bool)
    searched_M[list(left_out)] = False
    pairs = find_pairs(
        pool, searched_M, Axes(pool), neighbors=neighbors, least_cosine=least_cosine, progress=SILENT
    )  # fmt: skip
    return set(zip(pairs.first_P.tolist(), pairs.second_P.tolist())), pairs.by


@pytest.mark.parametrize("way", ["exact", "inverted file", "without FAISS"])
def test_every_way_to_search_finds_the_copies(pool, way, monkeypatch):
    """Copies inside another split are no candidates: those are asked for by naming it as --split."""
    if way == "inverted file":
        pytest.importorskip("faiss")
        monkeypatch.setattr(candidates, "EXACT_ROWS", 500)
    if way == "without FAISS":
        monkeypatch.setitem(sys.modules, "faiss", None)
        monkeypatch.setattr(candidates, "QUERY_ROWS", 70)  # several tiles
    pairs, by = searched(pool)
    assert pairs == {(7, 100), (8, 1000)}
    assert {"exact": "exact search", "inverted file": "IVF, 12 of 25 cells", "without FAISS": "without FAISS"}[
        way
    ] in by
    assert searched(pool, left_out=[100])[0] == {(8, 1000)}


def test_as_many_neighbours_are_candidates_as_was_asked_for(pool):
    counts = [len(searched(pool, neighbors=count, least_cosine=-1)[0]) for count in (1, 2, 4)]
    assert OWN / 2 <= counts[0] <= OWN < counts[1] <= 2 * OWN < counts[2] <= 4 * OWN


def test_the_least_cosine_is_that_of_whitened_embeddings(pool):
    point_Md = Axes(pool)(pool.image_MD)
    pairs, _ = searched(pool, neighbors=len(pool) - 1, least_cosine=0.6)
    cosine = point_Md @ point_Md.T
    expected = {(i, j) for i, j in np.argwhere(cosine >= 0.6).tolist() if i < j and i < OWN}
    unsure = {(i, j) for i, j in np.argwhere(np.abs(cosine - 0.6) < 1e-4).tolist()}
    assert pairs - unsure == expected - unsure
    assert 2 < len(pairs) < 0.1 * len(pool) ** 2


def test_embeddings_that_are_no_numbers_are_told(pool):
    pool.image_MD[5, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        Axes(pool)
