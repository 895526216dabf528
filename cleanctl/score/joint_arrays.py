"""The few steps of the scorer `joint` in which numpy and torch differ and the array API has no name for what is meant.

The equations are written once for both (`cleanctl_kernels.arrays`). Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import Array, namespace, namespace_on, put

LEAST = 1e-4  # of q that tells what it confuses
PIECE_ROWS = 1 << 12


def kind(device: str) -> str:
    """`cpu` or `cuda`."""
    return device.partition(":")[0]


def zeros(device: str, *shape: int, double: bool = False) -> Array:
    xp = namespace_on(device)
    return xp.zeros(shape, dtype=xp.float64 if double else xp.float32, device=device.partition(":")[0])


def double(array: Array) -> Array:
    """Float64."""
    xp = namespace(array)
    return xp.astype(array, xp.float64)


def single(array: Array) -> Array:
    """Float32, contiguous."""
    return np.ascontiguousarray(array, np.float32) if isinstance(array, np.ndarray) else array.float().contiguous()


def index(array: Array) -> Array:
    """int64, to index with."""
    xp = namespace(array)
    return xp.astype(array, xp.int64)


def row_max(array_BC: Array) -> Array:
    """(B, 1)"""
    return namespace(array_BC).max(array_BC, axis=1, keepdims=True)


def softmax(logit_BC: Array) -> Array:
    """Over classes, in place."""
    xp = namespace(logit_BC)
    logit_BC -= row_max(logit_BC)
    xp.exp(logit_BC, out=logit_BC)
    logit_BC /= xp.sum(logit_BC, axis=1, keepdims=True)
    return logit_BC


def highest(values_BC: Array, count: int) -> Array:
    """(B, count) columns of each row's highest values, in any order."""
    if not isinstance(values_BC, np.ndarray):
        return values_BC.topk(count, dim=1).indices
    # Those not below the least of them: half the time of np.argpartition. Rows with ties have more.
    least_B = np.partition(values_BC, -count, axis=1)[:, -count]
    among_BC = values_BC >= least_B[:, None]
    if np.count_nonzero(among_BC) == count * len(values_BC):
        return np.flatnonzero(among_BC).reshape(-1, count) % values_BC.shape[1]
    return np.argpartition(values_BC, -count, axis=1)[:, -count:]


class Products:
    """Sums over entries (row, place, q), K of each row: in numpy products with scipy's sparse matrices, which take a
    tenth of the time of indexing, and of np.bincount.

    place_BK: int32, 0…size-1. q_BK: float32, kept as it is. count_B: in numpy, if rows have not all K entries, how many
    each has; the others are one-dimensional then. float32 adds up PIECE_ROWS, and float64 adds these sums.
    """

    def __init__(self, place_BK: Array, q_BK: Array, size: int, *, count_B: np.ndarray | None = None) -> None:
        self._size, self._place, self._q = size, place_BK, q_BK
        self._pieces: list[tuple[slice, Any, Any]] = []
        if isinstance(place_BK, np.ndarray):
            matrix = _sparse(place_BK, q_BK, size, count_B)
            for start in range(0, matrix.shape[0], PIECE_ROWS):
                rows = slice(start, start + PIECE_ROWS)
                piece = matrix if matrix.shape[0] <= PIECE_ROWS else matrix[rows]
                self._pieces.append((rows, piece, piece.T))

    def totals(self, value_F: Array) -> Array:
        """(B,): of each row Σ q value[place]."""
        if not self._pieces:
            return (value_F[index(self._place)] * self._q).sum(axis=1)
        return np.concatenate([matrix @ value_F for _, matrix, _ in self._pieces])

    def sums(self, weight_B: Array) -> Array:
        """(size,) float64: at each place Σ q weight of the row."""
        if not self._pieces:
            weighted_F = (self._q * weight_B[:, None]).reshape(-1)
            return namespace(self._q).bincount(index(self._place).reshape(-1), double(weighted_F), minlength=self._size)
        total_F = np.zeros(self._size)
        for rows, _, transposed in self._pieces:
            total_F += transposed @ weight_B[rows]
        return total_F


def agreement(class_BK: Array, q_BK: Array, num_classes: int) -> tuple[Array, Array, Array]:
    """Of rows of which K classes are known, each at its place once: float64 Σ_i q[i] q[i]ᵀ (C, C) of these classes, and
    with ρ for what they leave of a row Σ_i ρ[i] q[i] (C,) and Σ_i ρ[i]². What is below LEAST counts as left."""
    xp = namespace(q_BK)
    q_BK = double(q_BK) * (q_BK >= LEAST)
    rest_B = (1 - q_BK.sum(axis=1)).clip(0.0)
    if xp is np:
        matrix = _sparse(class_BK.astype(np.int32), q_BK, num_classes)  # a copy, because zeros are taken out in place
        matrix.eliminate_zeros()
        return (matrix.T @ matrix).toarray(), matrix.T @ rest_B, (rest_B**2).sum()
    q_BC = q_BK.new_zeros(len(q_BK), num_classes).scatter_add_(1, index(class_BK), q_BK)
    return q_BC.T @ q_BC, q_BC.T @ rest_B, (rest_B**2).sum()


def neighbours_summed(count_C: np.ndarray, device: str) -> Callable[[Array], Array]:
    """A function of Σ count rows: float64 sums of the first count_C[0] rows, of the next count_C[1] and so on, (C, …).

    Each is added up in the rows' order, on CUDA too, where torch's index_add_ has none.
    """
    if namespace_on(device) is not np:
        import torch

        length_C = torch.from_numpy(count_C).to(kind(device))
        return lambda values_GC: torch.segment_reduce(values_GC.double(), "sum", lengths=length_C, axis=0)
    place_G1 = np.repeat(np.arange(len(count_C), dtype=np.int32), count_C)[:, None]
    matrix = _sparse(place_G1, np.ones(place_G1.shape), len(count_C)).T.tocsr()  # np.add.reduceat takes ten times that
    return lambda values_GC: matrix @ double(values_GC)


def above(q_BC: np.ndarray, least: float, label_B: np.ndarray, within_B: np.ndarray, size: int) -> Products:
    """Of rows that are known whole, the entries from `least` on and the given label's, at place within · C + class."""
    classes, among_BC = q_BC.shape[1], q_BC >= least
    put(among_BC, label_B, True)
    flat_F = np.flatnonzero(among_BC)
    row_F, class_F = np.divmod(flat_F, classes)
    place_F = (class_F + within_B[row_F] * classes).astype(np.int32)
    return Products(place_F, q_BC.reshape(-1)[flat_F], size, count_B=np.bincount(row_F, minlength=len(q_BC)))


def _sparse(place_BK: np.ndarray, q_BK: np.ndarray, size: int, count_B: np.ndarray | None = None) -> Any:
    from scipy.sparse import csr_array

    count_B = np.full(place_BK.shape[0], place_BK.shape[1]) if count_B is None else count_B
    end_B = np.concatenate([[0], np.cumsum(count_B)]).astype(np.int32)
    return csr_array((q_BK.reshape(-1), place_BK.reshape(-1), end_B), shape=(len(count_B), size))
