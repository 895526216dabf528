"""EM's sums for the scorer `joint` over rows of which few classes matter, a tile of neighbouring labels at a time.

In: rows in the order of their given labels, of each the places of some classes and q there, and what it has left,
which is spread over the classes as rest_C says. Out: expected rows of true class z and given label y. A tile's rows of
T and of the counts stay in a processor's cache; threads share the tiles, and every sum has one order. Leaves nothing on
disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import as_array, namespace

from cleanctl.score.joint_arrays import Products, double, kind, single, zeros

TILE_ROWS = {"cpu": 1 << 11, "cuda": 1 << 17}
TILE_LABELS = {"cpu": 32, "cuda": 1 << 10}
TINY = 1e-30

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # map, or that of a pool of threads


class Tiles:
    """label_B: ascending. pieces: neighbouring labels, and their rows. within_B: each row's label, numbered from its
    piece's first."""

    def __init__(self, label_B: np.ndarray, num_classes: int, device: str) -> None:
        self.num_classes, self.device = num_classes, device
        self.pieces = _pieces(np.bincount(label_B, minlength=num_classes), kind(device))
        within_B = label_B.astype(np.int64)
        for labels, rows in self.pieces:
            within_B[rows] -= labels.start
        self.within_B = as_array(within_B, device)

    def entries(self, labels: slice) -> int:
        """Of T in these labels."""
        return (labels.stop - labels.start) * self.num_classes

    def expect(
        self, products: list[Products], rest_B: Any, rest_C: Any, rate_YZ: Any, each: Each, *, log: bool
    ) -> tuple[Any, float]:
        """(Σ_i r[i, z] by given label as float64 [y, z], with `log` Σ_i ln P(given label of i)). products: of each
        piece. rest_B: float32. rate_YZ: Tᵀ."""
        xp, count_YZ = namespace(rate_YZ), zeros(self.device, self.num_classes, self.num_classes, double=True)

        def tile(number: int) -> float:
            labels, rows = self.pieces[number]
            rate_LZ, within_B, left_B = rate_YZ[labels], self.within_B[rows], rest_B[rows]
            total_B = products[number].totals(single(rate_LZ).reshape(-1))
            total_B += left_B * single(rate_LZ @ rest_C)[within_B]
            inverse_B = 1.0 / total_B.clip(TINY)
            sum_LZ = products[number].sums(inverse_B).reshape(rate_LZ.shape)
            left_L = xp.bincount(within_B, double(left_B * inverse_B), minlength=len(rate_LZ))
            sum_LZ += left_L[:, None] * rest_C
            sum_LZ *= rate_LZ
            count_YZ[labels] = sum_LZ
            return -float(double(xp.log(inverse_B)).sum()) if log else 0.0

        return count_YZ, sum(each(tile, range(len(self.pieces))))


def _pieces(count_C: np.ndarray, device: str) -> list[tuple[slice, slice]]:
    """TILE_LABELS neighbouring labels, or those of TILE_ROWS rows, and their rows; none without a row."""
    end_C, pieces, start = np.cumsum(count_C), [], 0
    while start < len(count_C):
        first_row = int(end_C[start] - count_C[start])
        enough = int(np.searchsorted(end_C, first_row + TILE_ROWS[device])) + 1
        stop = max(start + 1, min(enough, start + TILE_LABELS[device], len(count_C)))
        if end_C[stop - 1] > first_row:
            pieces.append((slice(start, stop), slice(first_row, int(end_C[stop - 1]))))
        start = stop
    return pieces
