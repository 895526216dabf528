"""The label-noise channel of the scorer `joint`: T[z, y] = P(given label y | true class z), fitted by EM.

In: each row's class probabilities q (B, C), tile by tile, and the given labels. Out: T, and each row's posterior of its
true class, r[i, z] ∝ q[i, z] T[z, y_i].

q is fixed while EM runs, and EM passes over it up to 60 times, so it is kept rather than computed again: whole where it
fits KEPT_BYTES, and else of each row the given label and its most probable classes, TOP in all. What these leave out is
spread over the classes as it is spread in the sum of all rows, and its mean share is told (`left_out`). So memory for a
row does not grow with C, nor beyond KEPT_BYTES by N × C. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.score.scorer import Reduce

if TYPE_CHECKING:
    import torch

ALPHA = 20.0  # rows that a class's error rate, and the place of its errors, are worth before any is seen
ITERATIONS, TOLERANCE = 60, 1e-5
KEPT_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}
TOP = 24
ONE_THREAD = 1 << 21  # entries of q below which threads wait for one another longer than they work
CHUNK = 1 << 15  # rows of one step where only the most probable classes are kept
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Channel:
    """Float64 tensors (C, C). rate: T[z, y]. count: expected rows of true class z and given label y. mean_log: mean
    ln P(given label) of the rows under the rates before the last step."""

    rate: torch.Tensor
    count: torch.Tensor
    mean_log: float


class Whole:
    """q of all rows, ordered by given label and cut into groups of `size` rows of one label, the last of them filled up
    with zeros: a pass is two batched products."""

    def __init__(self, label_B: torch.Tensor, num_classes: int) -> None:
        import torch

        device = label_B.device
        count_C = torch.bincount(label_B, minlength=num_classes)
        size = max(1, min(64, 2 ** int(np.log2(max(1, len(label_B) // num_classes)))))
        group_C = -(-count_C // size)
        order = torch.argsort(label_B, stable=True)
        first_C, first_group_C = count_C.cumsum(0) - count_C, group_C.cumsum(0) - group_C
        within = torch.arange(len(label_B), device=device) - first_C[label_B[order]]
        self._place = torch.empty_like(label_B)
        self._place[order] = first_group_C[label_B[order]] * size + within
        self._label_G = torch.repeat_interleave(torch.arange(num_classes, device=device), group_C)
        self._q = torch.zeros(int(group_C.sum()), size, num_classes, device=device)
        self._row_GB1 = torch.zeros(len(self._q) * size, device=device)
        self._row_GB1[self._place] = 1.0
        self._row_GB1 = self._row_GB1.view(-1, size, 1)
        self._label, self.left_out, self.entries = label_B, 0.0, self._q.numel()

    def put(self, rows: slice, q_BC: torch.Tensor) -> None:
        self._q.view(-1, self._q.shape[2])[self._place[rows]] = q_BC

    def finish(self, reduce: Reduce) -> None:
        pass

    def expect(self, rate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(Σ_i r[i, z] by given label as float64 (C, C), Σ_i ln P(given label of i))."""
        import torch

        count_CC = torch.zeros(rate.shape, dtype=torch.float64, device=rate.device)
        log = torch.zeros((), dtype=torch.float64, device=rate.device)
        if not len(self._q):
            return count_CC, log
        rate_YZ = rate.T.float()
        total_GB1 = torch.bmm(self._q, rate_YZ[self._label_G].unsqueeze(2)).clamp_(min=TINY)
        log += (total_GB1.log() * self._row_GB1).sum(dtype=torch.float64)
        sum_GC = torch.bmm(total_GB1.reciprocal_().transpose(1, 2), self._q).squeeze(1)
        count_CC.index_add_(0, self._label_G, sum_GC.double())
        return count_CC.T * rate, log

    def likelihood(self, rows: slice) -> torch.Tensor:
        """q (B, C) of some rows."""
        return self._q.view(-1, self._q.shape[2])[self._place[rows]]

    def joint(self, rows: slice, rate: torch.Tensor) -> torch.Tensor:
        """q[i, z] T[z, y_i] (B, C)."""
        return self.likelihood(rows) * rate.T.float()[self._label[rows]]


class Top:
    """Of each row the given label and its most probable classes; see the head of this file."""

    def __init__(self, label_B: torch.Tensor, num_classes: int) -> None:
        import torch

        device, count = label_B.device, len(label_B)
        self._label, self._classes = label_B, num_classes
        self._class_BK = torch.empty(count, TOP, dtype=torch.int32, device=device)
        self._q_BK = torch.empty(count, TOP, device=device)
        self._rest_B = torch.empty(count, device=device)
        self._rest_C = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.left_out, self.entries = 0.0, count * TOP

    def put(self, rows: slice, q_BC: torch.Tensor) -> None:
        import torch

        own_B1 = self._label[rows][:, None]
        own_q_B1 = q_BC.gather(1, own_B1)
        others = q_BC.scatter(1, own_B1, -1.0)
        top = torch.topk(others, TOP - 1, dim=1)
        self._class_BK[rows] = torch.cat([own_B1, top.indices], dim=1).int()
        self._q_BK[rows] = torch.cat([own_q_B1, top.values], dim=1)
        rest_BC = others.scatter_(1, top.indices, 0.0).clamp_(min=0.0)
        self._rest_B[rows] = rest_BC.sum(dim=1)
        self._rest_C += rest_BC.sum(dim=0)

    def finish(self, reduce: Reduce) -> None:
        import torch

        self._rest_C = reduce.sum(self._rest_C)
        rows = reduce.sum(torch.tensor(float(len(self._rest_B)), dtype=torch.float64, device=self._rest_C.device))
        self.left_out = float(self._rest_C.sum() / rows)
        self._rest_C /= self._rest_C.sum().clamp(min=TINY)

    def expect(self, rate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        rate_YZ = rate.T.contiguous().float()
        rest_YZ = rate_YZ.double() * self._rest_C
        rest_Y = rest_YZ.sum(dim=1)
        count_YZ = torch.zeros(self._classes**2, dtype=torch.float64, device=rate.device)
        of_rest_Y = torch.zeros(self._classes, dtype=torch.float64, device=rate.device)
        log = torch.zeros((), dtype=torch.float64, device=rate.device)
        for start in range(0, len(self._label), CHUNK):
            rows = slice(start, start + CHUNK)
            place_BK = self._class_BK[rows].long() + (self._label[rows] * self._classes)[:, None]
            r_BK = self._q_BK[rows] * rate_YZ.view(-1)[place_BK]
            r_rest_B = self._rest_B[rows] * rest_Y.float()[self._label[rows]]
            total_B = (r_BK.sum(dim=1) + r_rest_B).clamp_(min=TINY)
            log += total_B.log().sum(dtype=torch.float64)
            count_YZ.index_add_(0, place_BK.view(-1), (r_BK / total_B[:, None]).double().view(-1))
            of_rest_Y.index_add_(0, self._label[rows], (r_rest_B / total_B).double())
        count_YZ = count_YZ.view(self._classes, self._classes)
        count_YZ += rest_YZ * (of_rest_Y / rest_Y.clamp(min=TINY))[:, None]
        return count_YZ.T, log

    def likelihood(self, rows: slice) -> torch.Tensor:
        q_BC = self._rest_B[rows, None] * self._rest_C.float()
        return q_BC.scatter_add_(1, self._class_BK[rows].long(), self._q_BK[rows])

    def joint(self, rows: slice, rate: torch.Tensor) -> torch.Tensor:
        return self.likelihood(rows) * rate.T.float()[self._label[rows]]


def keeper(label_B: torch.Tensor, num_classes: int, *, num_rows: int) -> Whole | Top:
    """What keeps q of the rows with these labels; num_rows: of all parts, which decide alike."""
    whole = num_classes <= TOP or 4 * num_rows * num_classes <= KEPT_BYTES[label_B.device.type]
    return (Whole if whole else Top)(label_B, num_classes)


def fit_channel(kept: Whole | Top, agree_CC: torch.Tensor, reduce: Reduce, *, iterations: int = ITERATIONS) -> Channel:
    """MAP-EM with q held fixed. agree_CC: float64 Σ_i q[i] q[i]ᵀ over all rows; what classes q confuses.

    A class's row of T shrinks: its error rate towards the mean rate, the place of its errors towards q's own confusion.
    """
    import torch

    base = agree_CC.clone().fill_diagonal_(0.0)
    base /= base.sum(dim=1, keepdim=True).clamp(min=1e-12)
    rate = 0.8 * torch.eye(len(base), dtype=torch.float64, device=base.device) + 0.2 * base
    with _one_thread(kept.entries < ONE_THREAD):
        return _em(kept, base, rate, reduce, iterations)


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Of torch, in the calling thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _em(kept: Whole | Top, base: torch.Tensor, rate: torch.Tensor, reduce: Reduce, iterations: int) -> Channel:
    for _ in range(iterations):
        count, _ = _counts(kept, rate, reduce)
        rows_C, mean = count.sum(dim=1), 1 - count.trace() / count.sum()
        count.fill_diagonal_(0.0)
        wrong_C = count.sum(dim=1)
        error_C = (wrong_C + ALPHA * mean) / (rows_C + ALPHA)
        new = (error_C / (wrong_C + ALPHA))[:, None] * (count + ALPHA * base)
        new.diagonal().copy_(1 - error_C)
        step, rate = float((new - rate).abs().max()), new
        if step < TOLERANCE:
            break
    count, mean_log = _counts(kept, rate, reduce)
    return Channel(rate=rate, count=count, mean_log=mean_log)


def _counts(kept: Whole | Top, rate: torch.Tensor, reduce: Reduce) -> tuple[torch.Tensor, float]:
    import torch

    count, log = kept.expect(rate)
    both = reduce.sum(torch.cat([count.reshape(-1), log[None]]))
    count = both[:-1].view(rate.shape)
    return count, float(both[-1] / count.sum().clamp(min=1.0))
