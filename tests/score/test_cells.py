"""IVF on a CPU: every row is asked about once, and finds the nearest of those that lie in the cells it visits."""

from __future__ import annotations

import numpy as np
import pytest

from cleanctl.score import cells
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks

faiss = pytest.importorskip("faiss")

ROWS, DIM, CELLS, COUNT = 900, 16, 12, 20


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((ROWS, DIM)) + rng.standard_normal((6, DIM)).repeat(150, axis=0)
    return (image / np.linalg.norm(image, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def quantizer(image):
    index = faiss.IndexFlatIP(DIM)
    index.add(image[:: ROWS // CELLS].astype(np.float32)[:CELLS])
    return index


def searched(image, quantizer, *, probes: int, part: slice = slice(0, ROWS)) -> dict[int, np.ndarray]:
    found = cells.Cells(Float32Blocks(ArrayBlocks(image_ND=image)), quantizer, probes=probes).batches(COUNT, part)
    pairs = [(int(row), near) for row_B, near_BK in found for row, near in zip(row_B, near_BK)]
    assert len(dict(pairs)) == len(pairs), "a row was asked about twice"
    return dict(pairs)


def test_with_all_cells_it_is_exact_however_the_rows_are_cut(image, quantizer, monkeypatch):
    monkeypatch.setattr(cells, "QUERY_ROWS", 7)
    monkeypatch.setattr(cells, "BASE_ROWS", 31)
    found = searched(image, quantizer, probes=CELLS)
    assert sorted(found) == list(range(ROWS))
    cosine = image.astype(np.float64) @ image.astype(np.float64).T
    for row, near in found.items():
        nearest = np.sort(cosine[row])[::-1][:COUNT]
        np.testing.assert_allclose(cosine[row][near], nearest, atol=1e-5)


def test_a_row_finds_the_nearest_of_the_cells_it_visits(image, quantizer):
    place = quantizer.search(image.astype(np.float32), 1)[1][:, 0]
    cosine = image.astype(np.float64) @ image.astype(np.float64).T
    for row, near in searched(image, quantizer, probes=1).items():
        mates = np.flatnonzero(place == place[row])
        found = near[near >= 0]
        assert len(found) == min(COUNT, len(mates))
        assert (place[found] == place[row]).all()
        np.testing.assert_allclose(cosine[row][found], np.sort(cosine[row][mates])[::-1][: len(found)], atol=1e-5)


def test_a_part_asks_about_its_own_rows_among_all(image, quantizer):
    whole, part = searched(image, quantizer, probes=3), searched(image, quantizer, probes=3, part=slice(400, 700))
    assert sorted(part) == list(range(400, 700))
    assert all(np.array_equal(np.sort(part[row]), np.sort(whole[row])) for row in part)


def test_some_rows_find_what_they_find_among_all(image, quantizer):
    found = cells.Cells(Float32Blocks(ArrayBlocks(image_ND=image)), quantizer, probes=3)
    whole, some = searched(image, quantizer, probes=3), np.array([5, 899, 400, 6])
    for row, near in zip(some, found.of(some, COUNT)):
        assert set(near) == set(whole[int(row)])
