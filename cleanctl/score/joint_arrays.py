"""The few steps of the scorer `joint` in which numpy and torch differ and the array API has no name for what is meant.

The equations are written once for both (`cleanctl_kernels.arrays`). Leaves nothing on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cleanctl_kernels.arrays import Array, namespace, namespace_on


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

    place_BK: int32, 0…size-1, and of a row all different. q_BK: float32, kept as it is. piece: rows whose sums are of
    float32.
    """

    def __init__(self, place_BK: Array, q_BK: Array, size: int, *, piece: int) -> None:
        self._size, self._place, self._q = size, place_BK, q_BK
        self._pieces: list[tuple[slice, Any, Any]] = []
        if isinstance(place_BK, np.ndarray):
            for start in range(0, len(place_BK), piece):
                rows = slice(start, start + piece)
                matrix = _sparse(place_BK[rows], q_BK[rows], size)
                self._pieces.append((rows, matrix, matrix.T))

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


def agreement(class_BK: Array, q_BK: Array, weight_B: Array, num_classes: int) -> tuple[Array, Array]:
    """Float64 Σ_i q[i] q[i]ᵀ (C, C) and Σ_i weight[i] q[i] (C,), of rows that are 0 but for K classes.
    A class that comes twice in a row counts with the sum."""
    if isinstance(class_BK, np.ndarray):
        matrix = _sparse(class_BK, q_BK.astype(np.float64), num_classes)
        return (matrix.T @ matrix).toarray(), matrix.T @ weight_B
    q_BC = q_BK.new_zeros(len(q_BK), num_classes).scatter_add_(1, index(class_BK), q_BK)
    return double(q_BC.T @ q_BC), double(q_BC).T @ weight_B


def _sparse(place_BK: np.ndarray, q_BK: np.ndarray, size: int) -> Any:
    from scipy.sparse import csr_array

    rows, count = place_BK.shape
    first_B = np.arange(0, rows * count + 1, count, dtype=np.int32)
    return csr_array((q_BK.reshape(-1), place_BK.reshape(-1), first_B), shape=(rows, size))
