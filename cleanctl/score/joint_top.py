"""What the scorer `joint` keeps of P(z | i) where N × C is too much: of each row the given label and its best classes.

In: tiles of q (B, C). Out: as of `joint_channel.Whole`: sums over all rows for EM, and q of some rows again. What the
kept classes leave out of a row is spread over the classes as it is spread in the sum of all rows (`rest_C`), and its
mean share is told (`left_out`). Rows lie in the order of their given labels (`joint_tiles`). Memory is 220 bytes a row,
and C². Leaves nothing on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cleanctl_kernels.arrays import as_array, namespace, numbers, pick, put

from cleanctl.score.joint_arrays import Products, agreement, highest, index, single, zeros
from cleanctl.score.joint_channel import TOP
from cleanctl.score.joint_tiles import TINY, Each, Tiles
from cleanctl.score.scorer import Reduce

AGREE_ROWS = 1 << 16  # rows of all parts that tell what q confuses


class Top:
    """agree: Σ_i q[i] q[i]ᵀ, what q confuses, of AGREE_ROWS rows of all parts at most. first: number of the part's
    first row. `put` consumes q."""

    def __init__(self, label_B: np.ndarray, num_classes: int, device: str, *, first: int, num_rows: int) -> None:
        self._classes = num_classes
        stride = -(-num_rows // AGREE_ROWS)
        order = np.argsort(label_B, kind="stable")
        place_B = np.empty(len(label_B), np.int64)
        place_B[order] = np.arange(len(order))
        self._place, self._label = as_array(place_B, device), as_array(label_B, device)
        self._agreeing = as_array(place_B[-first % stride :: stride], device)
        self._tiles = Tiles(label_B[order], num_classes, device)
        self._column_BK = as_array(np.zeros((len(label_B), TOP), np.int32), device)
        self._q_BK = zeros(device, len(label_B), TOP)
        self._rest_B = zeros(device, len(label_B))
        self._rest_C = zeros(device, num_classes, double=True)
        self._products: list[Products] = []
        self.left_out = 0.0

    def put(self, rows: slice, q_BC: Any) -> Any:
        """Keeps them. What is returned is to be handed to `add`, one after the other; threads may share `put`."""
        own_B, place_B = self._label[rows], self._place[rows]
        xp, number_B1 = namespace(q_BC), numbers(q_BC)[:, None]
        own_q_B = pick(q_BC, own_B)
        put(q_BC, own_B, -1.0)
        column_BK = highest(q_BC, TOP - 1)
        self._column_BK[place_B] = xp.astype(xp.concat([own_B[:, None], column_BK], axis=1), xp.int32)
        self._q_BK[place_B] = xp.concat([own_q_B[:, None], q_BC[number_B1, column_BK]], axis=1)
        q_BC[number_B1, column_BK] = 0.0
        put(q_BC, own_B, 0.0)
        self._rest_B[place_B] = q_BC.sum(axis=1)
        return q_BC.sum(axis=0)

    def add(self, rest_C: Any) -> None:
        self._rest_C += rest_C

    def finish(self, reduce: Reduce) -> None:
        self._rest_C = reduce.sum(self._rest_C)
        rows = reduce.sum(self._rest_C[:1] * 0.0 + len(self._rest_B))
        self.left_out = float(self._rest_C.sum()) / float(rows[0])
        self._rest_C /= self._rest_C.sum().clip(TINY)
        self.agree = reduce.sum(self._agreement())
        self._column_BK += (self._tiles.within_B * self._classes)[:, None]
        for labels, piece in self._tiles.pieces:
            places, q = self._column_BK[piece], self._q_BK[piece]
            self._products.append(Products(places, q, self._tiles.entries(labels)))

    def _agreement(self) -> Any:
        """Float64 (C, C), with what is left out of a row at its place."""
        class_BK, q_BK = self._column_BK[self._agreeing], self._q_BK[self._agreeing]
        agree_CC, sum_C, squares = agreement(class_BK, q_BK, self._classes)
        agree_CC += sum_C[:, None] * self._rest_C
        agree_CC += self._rest_C[:, None] * (sum_C + squares * self._rest_C)
        return agree_CC

    def expect(self, rate_YZ: Any, each: Each, *, log: bool) -> tuple[Any, float]:
        """As Whole's."""
        return self._tiles.expect(self._products, self._rest_B, self._rest_C, rate_YZ, each, log=log)

    def likelihood(self, rows: slice) -> Any:
        """q (B, C) of some rows."""
        place_B = self._place[rows]
        q_BC = self._rest_B[place_B][:, None] * single(self._rest_C)
        column_BK = index(self._column_BK[place_B]) - (self._tiles.within_B[place_B] * self._classes)[:, None]
        q_BC[numbers(q_BC)[:, None], column_BK] += self._q_BK[place_B]
        return q_BC

    def joint(self, rows: slice, rate_YZ: Any) -> Any:
        """q[i, z] T[z, y_i] (B, C), float32. rate_YZ: Tᵀ, float32."""
        q_BC = self.likelihood(rows)
        q_BC *= rate_YZ[self._label[rows]]
        return q_BC
