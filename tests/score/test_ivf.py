"""Approximate neighbours: as many cells are visited as the recall takes that was asked for, and what is said of it is
true; a cell's rows are compared exactly, whoever holds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanctl.config import SelectConfig
from cleanctl.score import cells as module
from cleanctl.score import ivf
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks, PartBlocks
from cleanctl.score.cells import Centres, Lists, cells_of, every, number_of_cells, place_centres
from cleanctl.score.compute import posterior_of
from cleanctl.score.ivf import open_ivf, probes_for, recall_at
from cleanctl.score.knn import Knn
from cleanctl.score.neighbors import drop_self
from cleanctl.score.scorer import ALONE


def groups(rows=1_500, dim=16, *, centres=40, spread=0.7, seed=0):
    """Unit rows, float16, around some centres."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((centres, dim))
    image = centre[rng.integers(0, centres, rows)] + spread * rng.standard_normal((rows, dim))
    return (image / np.linalg.norm(image, axis=1, keepdims=True)).astype(np.float16)


def tiles(image, *, block_rows=400):
    return Float32Blocks(ArrayBlocks(image_ND=image, block_rows=block_rows))


def opened(image, count, **options):
    data = tiles(image)
    return open_ivf(data, data, count, ALONE, **{"recall": 0.9} | options)


def neighbors_of(search, rows):
    found = list(search.batches(slice(0, rows)))
    assert [which.start for which, _ in found] == [0, *(which.stop for which, _ in found[:-1])]
    return np.concatenate([number for _, number in found])


def true_neighbors(image, count):
    """Without the row itself; nearest first."""
    cosine = image.astype(np.float64) @ image.astype(np.float64).T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, :count]


def share_found(image, found, count):
    true, found = true_neighbors(image, count), drop_self(found, np.arange(len(image)))
    return float(np.mean([np.isin(*pair).mean() for pair in zip(true, found)]))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that a search crosses tiles, pieces of cells and batches."""
    monkeypatch.setattr(module, "PIECE_ROWS", 32)
    monkeypatch.setattr(module, "TILE_ROWS", 100)
    monkeypatch.setattr(ivf, "QUERY_ROWS", 700)


@pytest.mark.parametrize("recall", [0.6, 0.9, 0.99])
def test_the_recall_asked_for_is_reached_with_no_more_cells_than_that_takes(recall):
    image = groups()
    search = opened(image, 41, recall=recall)
    assert search.recall >= recall - 0.03
    assert search.sampled == 250  # rows that had no part in choosing the cells
    assert search.recall == pytest.approx(share_found(image, neighbors_of(search, len(image)), 40), abs=0.03)
    fewer = opened(image, 41, probes=search.probes - 1)
    assert fewer.recall < recall + 0.02
    assert f"{search.probes} of {search.cells} cells visited, measured recall {search.recall:.3f}" in search.by


def test_rows_without_groups_take_more_cells_for_the_same_recall():
    grouped, alike = (opened(groups(spread=spread), 41) for spread in (0.3, 5.0))
    assert alike.probes > 1.5 * grouped.probes
    assert alike.recall == pytest.approx(grouped.recall, abs=0.05)


def test_every_cell_visited_is_exact_search():
    image = groups(300)
    search = opened(image, 21, probes=100)
    assert search.to_json() == {
        "by": "IVF, cell by cell, 6 of 6 cells visited, measured recall 1.000",
        "cells": 300 // 48,
        "probes": 6,
        "recall": 1.0,
        "recall_rows": 300,
    }
    np.testing.assert_array_equal(drop_self(neighbors_of(search, 300), np.arange(300)), true_neighbors(image, 20))


def test_the_recall_of_cells_that_are_given_is_that_of_the_neighbours_found():
    """One cell of six: many true neighbours are missed, and places that stay empty cast no vote."""
    image, label = groups(300), np.random.default_rng(1).integers(0, 4, 300)
    search = opened(image, 151, probes=1)
    found = neighbors_of(search, 300)
    assert (found < 0).any()
    assert search.recall == pytest.approx(share_found(image, found, 150), abs=0.002)
    assert search.recall < 0.9
    scorer = Knn(SelectConfig(neighbors=150, knn_index="ivf", knn_probes=1))
    posterior = posterior_of(scorer, ArrayBlocks(image_ND=image), label, num_classes=4)
    own = found[7][(found[7] >= 0) & (found[7] != 7)]
    votes = np.bincount(label[own], minlength=4) / np.bincount(label, minlength=4)
    assert posterior.p_label[7] == pytest.approx(votes[label[7]] / votes.sum(), abs=1e-5)


@pytest.mark.parametrize("probes", [1, 5])
def test_cell_by_cell_finds_what_faiss_finds_in_the_same_cells(probes):
    pytest.importorskip("faiss")
    image = groups()
    ours, theirs = (opened(image, 31, probes=probes, backend=backend) for backend in ("auto", "faiss"))
    assert (ours.recall, ours.cells) == (theirs.recall, theirs.cells)
    assert "FAISS IVF" in theirs.by
    ours, theirs = (neighbors_of(one, len(image)) for one in (ours, theirs))
    assert np.mean(ours == theirs) > 0.98  # sums of float32 are rounded otherwise
    assert np.mean([np.isin(*pair).mean() for pair in zip(ours, theirs)]) > 0.999


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 120),
    distinct=st.integers(1, 12),
    count=st.integers(1, 130),
    probes=st.integers(1, 4),
    negative=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_ties_and_empty_cells_give_the_highest_of_the_cells_visited_lower_numbers_first(
    rows, distinct, count, probes, negative, seed
):
    rng = np.random.default_rng(seed)
    kinds = groups(distinct, 6, seed=seed)
    image = kinds[rng.integers(0, distinct, rows)] * (-1 if negative else 1)
    data, centres = tiles(image, block_rows=50), Centres.at(kinds[:5])
    cell_M = cells_of(data, centres)
    lists = Lists.of(data, cell_M, centres)
    query = kinds.astype(np.float32)
    cosine_BK, number_BK = lists.search(query, count, probes)
    assert cosine_BK.shape == number_BK.shape == (distinct, count)
    visited = centres.visited(query, probes)
    for number, cosine, cells, one in zip(number_BK, cosine_BK, visited, query):
        inside = np.flatnonzero(np.isin(cell_M, cells))
        score = (image[inside].astype(np.float64) @ one.astype(np.float64)).astype(np.float32)
        few = min(count, len(inside))
        np.testing.assert_allclose(cosine[:few], -np.sort(-score)[:few], atol=1e-6)
        assert (number[few:] == -1).all()
        assert np.isneginf(cosine[few:]).all()
        assert len(set(number[:few].tolist())) == few
        assert np.isin(number[:few], inside).all()
        same = cosine[:few][1:] == cosine[:few][:-1]
        assert (np.diff(number[:few])[same] > 0).all()


@pytest.mark.parametrize("first", [0, 1, 7, 399])
@pytest.mark.parametrize("step", [1, 3, 10])
def test_every_nth_row_is_counted_over_all_parts_and_blocks(first, step):
    image = np.arange(450, dtype=np.float16)[:, None]
    part = PartBlocks(blocks=ArrayBlocks(image_ND=image, block_rows=100), part=slice(first, 440))
    found, number = every(Float32Blocks(part), step)
    assert number.tolist() == [row for row in range(first, 440) if row % step == 0]
    assert found[:, 0].tolist() == number.tolist()


def test_centres_lie_where_the_rows_are_and_no_cell_stays_empty():
    image = groups(4_000, centres=12, spread=0.05)
    data = tiles(image)
    centres = place_centres(data, len(image), ALONE)
    assert len(centres) == number_of_cells(4_000) == 83
    size_C = np.bincount(cells_of(data, centres), minlength=83)
    assert (size_C > 0).mean() > 0.95
    near = centres.nearness(image.astype(np.float32)).max(axis=1)
    assert (1 - 2 * near).mean() < 0.05  # squared distance to the nearest centre, of unit rows


@pytest.mark.parametrize(("rows", "cells"), [(1, 1), (100, 2), (100_000, 1_264), (10**6, 4_000), (10**8, 16_384)])
def test_cells_grow_with_the_root_of_the_rows(rows, cells):
    assert number_of_cells(rows) == cells


def test_the_fewest_cells_for_a_recall():
    rank_SK = np.array([[-1, 0, 0, 1], [-1, 0, 3, 9]], np.int32)
    assert [recall_at(rank_SK, probes) for probes in (1, 2, 4, 10)] == pytest.approx([0.5, 4 / 6, 5 / 6, 1.0])
    for recall, probes in ((0.5, 1), (0.51, 2), (0.8, 4), (5 / 6, 4), (1.0, 10)):
        assert probes_for(rank_SK, recall, 20) == probes
    assert probes_for(np.full((1, 1), -1, np.int32), 0.9, 20) == 20
