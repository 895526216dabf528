"""Approximate nearest neighbours on a CPU: the rows of a cell are compared with those of the cells around it.

FAISS places the cells' centres (k-means) and says whose cell a row is in. The rows of one cell are near the same other
cells, so one matrix product serves them all, and float16 is widened once for them and not once for each row, as FAISS's
own search of an inverted file does. In: Float32Blocks (N, D). Holds N × D float16, the rows cell after cell, 12 bytes a
row, and a tile of both sides for each thread. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import to_numpy
from cleanctl_kernels.threads import in_threads

from cleanctl.score.blocks import Float32Blocks, widen

QUERY_ROWS = 256  # of a cell that are compared at once
BASE_ROWS = 16_384  # with so many at a time: 32 MiB at 512 dimensions

Found = tuple[np.ndarray, np.ndarray]  # products of each row with its neighbours, and their places


class Cells:
    """The rows by cell. near_CP: the cells that are visited from each cell, itself first, then by falling product of
    the centres."""

    def __init__(self, data: Float32Blocks, quantizer: Any, *, probes: int) -> None:
        """quantizer: FAISS's index of the C centres, by inner product."""
        cell_N = np.empty(data.num_rows, np.int32)
        for rows, image in data:
            cell_N[rows] = quantizer.search(to_numpy(image), 1)[1][:, 0]
        count = int(quantizer.ntotal)
        self.row_N = np.argsort(cell_N, kind="stable").astype(np.int32)
        self.start_C1 = np.concatenate([[0], np.cumsum(np.bincount(cell_N, minlength=count))])
        place_N = np.empty(data.num_rows, np.int32)
        place_N[self.row_N] = np.arange(data.num_rows, dtype=np.int32)
        self.image_ND = np.empty((data.num_rows, data.dim), np.float16)
        for rows, image in data:
            self.image_ND[place_N[rows]] = to_numpy(image)
        self.place_N, self.cell_N = place_N, cell_N
        self.near_CP = _nearest_cells(quantizer.reconstruct_n(0, count), probes)

    def batches(self, count: int, part: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every row of `part` exactly once, cell by cell: their numbers (B,), and (B, count) int64 the neighbours'."""
        yield from in_threads(partial(self._found, count), self._queries(part))

    def of(self, row_B: np.ndarray, count: int) -> np.ndarray:
        """(B, count) int64: the neighbours of some rows, in their order."""
        order_B = np.argsort(self.cell_N[row_B], kind="stable")
        cell_B, result_BK = self.cell_N[row_B][order_B], np.empty((len(row_B), count), np.int64)
        cuts = np.flatnonzero(np.diff(cell_B)) + 1
        asked = ((int(self.cell_N[row_B[at[0]]]), self.place_N[row_B[at]]) for at in np.split(order_B, cuts))
        found = in_threads(partial(self._found, count), asked)
        for at, (_, neighbor_BK) in zip(np.split(order_B, cuts), found):
            result_BK[at] = neighbor_BK
        return result_BK

    def _queries(self, part: slice) -> Iterator[tuple[int, np.ndarray]]:
        """Cells, and the places of rows of the part that are in it."""
        for cell in range(len(self.near_CP)):
            place_B = np.arange(self.start_C1[cell], self.start_C1[cell + 1])
            row_B = self.row_N[place_B]
            place_B = place_B[(row_B >= part.start) & (row_B < part.stop)]
            for start in range(0, len(place_B), QUERY_ROWS):
                yield cell, place_B[start : start + QUERY_ROWS]

    def _found(self, count: int, asked: tuple[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        cell, place_B = asked
        query_BD = self.image_ND[place_B].astype(np.float32)
        found: Found | None = None
        for place_M in self._bases(cell):
            base_MD = np.empty((len(place_M), query_BD.shape[1]), np.float32)
            widen(self.image_ND[place_M], base_MD)
            best_BK, at_BK = _highest(query_BD @ base_MD.T, count)
            found = _merged(found, (best_BK, place_M[at_BK]), count)
        assert found is not None, "a cell that is asked about has a row"
        at_BK = found[1]
        neighbor_BK = np.full((len(place_B), count), -1, np.int64)
        neighbor_BK[:, : at_BK.shape[1]] = self.row_N[at_BK]
        return self.row_N[place_B], neighbor_BK

    def _bases(self, cell: int) -> Iterator[np.ndarray]:
        """Places of the rows of the cells around, BASE_ROWS at a time."""
        near_P = self.near_CP[cell]
        place_M = np.concatenate([np.arange(self.start_C1[one], self.start_C1[one + 1]) for one in near_P])
        for start in range(0, len(place_M), BASE_ROWS):
            yield place_M[start : start + BASE_ROWS]


def _nearest_cells(centre_CD: np.ndarray, probes: int) -> np.ndarray:
    """(C, P) int32, each cell itself first."""
    probes = min(probes, len(centre_CD))
    near_CP = np.empty((len(centre_CD), probes), np.int32)
    for start in range(0, len(centre_CD), QUERY_ROWS):
        product_BC = centre_CD[start : start + QUERY_ROWS] @ centre_CD.T
        own_B = np.arange(len(product_BC))
        product_BC[own_B, start + own_B] = np.inf
        near_CP[start : start + QUERY_ROWS] = np.argsort(-product_BC, axis=1, kind="stable")[:, :probes]
    return near_CP


def _merged(found: Found | None, more: Found, count: int) -> Found:
    """The highest of both, falling."""
    if found is None:
        return more
    best_BM, at_BM = (np.concatenate(pair, axis=1) for pair in zip(found, more))
    best_BK, chosen_BK = _highest(best_BM, count)
    return best_BK, np.take_along_axis(at_BM, chosen_BK, axis=1)


def _highest(x_BM: np.ndarray, count: int) -> Found:
    """(B, K) the highest entries of each row, falling, and their places; K at most `count`. Changes x."""
    count = min(count, x_BM.shape[1])
    np.negative(x_BM, out=x_BM)
    place_BK = np.argpartition(x_BM, count - 1, axis=1)[:, :count]
    value_BK = np.take_along_axis(x_BM, place_BK, axis=1)
    order_BK = np.argsort(value_BK, axis=1, kind="stable")
    return -np.take_along_axis(value_BK, order_BK, axis=1), np.take_along_axis(place_BK, order_BK, axis=1)
