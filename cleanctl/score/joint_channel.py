"""The label-noise channel of the scorer `joint`: T[z, y] = P(given label y | true class z), fitted by EM.

In: each row's class probabilities q (B, C), tile by tile, and the given labels. Out: T, and each row's posterior of its
true class, r[i, z] ∝ q[i, z] T[z, y_i].

q is fixed while EM runs, and EM passes over it up to 60 times, so it is kept rather than computed again: whole where it
fits KEPT_BYTES, and else of each row the given label and its most probable classes, TOP in all (`joint_top`). So memory
for a row does not grow with C, nor beyond KEPT_BYTES by N × C. Rows are kept in the order of their given labels: those
of one label then share a row of T. Leaves nothing on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from cleanctl_kernels.arrays import as_array, namespace, numbers

from cleanctl.score.joint_arrays import Products, above, double, kind, neighbours_summed, single, zeros
from cleanctl.score.joint_tiles import TINY, Each, Tiles
from cleanctl.score.scorer import Reduce

ALPHA = 20.0  # rows that a class's error rate, and the place of its errors, are worth before any is seen
ITERATIONS, TOLERANCE = 60, 1e-5
KEPT_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}
TOP = 24
MANY, LEAST, SPARSE = 128, 1e-9, 8  # classes from which entries of q below LEAST are left out, if that leaves an eighth
GROUP_ROWS = 64
SHARES, FEW = 8, 1 << 20  # pieces of a pass over whole q, for threads to share; entries that one thread has done sooner
STEP_ENTRIES = 1 << 15  # of T that are worked on at once
NEVER = 1e-9


@dataclass(frozen=True, kw_only=True)
class Channel:
    """Float64 arrays. rate: T[z, y]. count: expected rows of true class z and given label y. prior_Z: share of class z
    among the rows times the number of classes; ones where classes are taken for even. mean_log: mean ln P(given label)
    of the rows under the rates before the last step."""

    rate: Any
    count: Any
    prior_Z: Any
    mean_log: float

    @cached_property
    def seen_YZ(self) -> Any:
        """Float32. What q of a row with label y is weighted with: r[i, z] ∝ q[i, z] prior[z] T[z, y_i]."""
        return single(self.rate.T * self.prior_Z)


class Kept(Protocol):
    """q of the part's rows, whole or in part. agree: Σ_i q[i] q[i]ᵀ, what q confuses. left_out: mean share of a row
    that is not kept class by class. Tiles go to `put`, what it returns to `add`, in order; last comes `finish`."""

    agree: Any
    left_out: float

    def put(self, rows: slice, q_BC: Any) -> Any: ...
    def add(self, sums: Any) -> None: ...
    def finish(self, reduce: Reduce) -> None: ...
    def expect(self, rate_YZ: Any, each: Each, *, log: bool) -> tuple[Any, float]: ...
    def likelihood(self, rows: slice) -> Any: ...
    def joint(self, rows: slice, seen_YZ: Any) -> Any: ...


class Groups:
    """Places of rows ordered by given label, in groups of `size` rows of one label, of which the last is filled up."""

    def __init__(self, label_B: np.ndarray, num_classes: int, device: str = "cpu") -> None:
        count_C = np.bincount(label_B, minlength=num_classes)
        self.size = max(1, min(GROUP_ROWS, 2 ** int(np.log2(max(1, len(label_B) // (4 * num_classes))))))
        group_C = -(-count_C // self.size)
        order = np.argsort(label_B, kind="stable")
        first_C, first_group_C = np.cumsum(count_C) - count_C, np.cumsum(group_C) - group_C
        place_B = np.empty(len(label_B), np.int64)
        place_B[order] = first_group_C[label_B[order]] * self.size + np.arange(len(order)) - first_C[label_B[order]]
        self.device, self.num_classes, self.count = device, num_classes, int(group_C.sum())
        self.label_B, self.place_B = as_array(label_B, device), as_array(place_B, device)
        self.filling = as_array(np.setdiff1d(np.arange(self.count * self.size), place_B), device)
        self.label_G = as_array(np.repeat(np.arange(num_classes), group_C), device)
        self.of_labels = neighbours_summed(group_C, device)
        shares = SHARES if self.count * self.size * num_classes > FEW else 1
        step = max(1, -(-self.count // shares))
        self.shares = [slice(start, start + step) for start in range(0, self.count, step)]

    def placed(self, values_BC: Any) -> Any:
        """(count · size, C): the rows at their places, zeros where there is none."""
        values = zeros(self.device, self.count * self.size, self.num_classes)
        values[self.place_B] = values_BC
        return values


class Whole:
    """q of all rows in groups of one label: a pass is two products a group, or where few entries of many classes matter
    sparse products of these. agree: Σ_i q[i] q[i]ᵀ of the part's rows, what q confuses."""

    left_out = 0.0

    def __init__(self, groups: Groups, q_RC: Any = None) -> None:
        """q_RC: at their places, if they are known already."""
        self._groups, classes = groups, groups.num_classes
        self._tiles: Tiles | None = None
        self._above: list[Products] = []
        if q_RC is None:
            self._q_RC = zeros(groups.device, groups.count * groups.size, classes)
            self.agree = zeros(groups.device, classes, classes, double=True)
        else:
            q_RC[groups.filling] = 0.0
            self._q_RC, self.agree = q_RC, double(q_RC.T @ q_RC)

    def put(self, rows: slice, q_BC: Any) -> Any:
        """Keeps them. What is returned is to be handed to `add`, one after the other; threads may share `put`."""
        self._q_RC[self._groups.place_B[rows]] = q_BC
        return q_BC.T @ q_BC

    def add(self, agree: Any) -> None:
        self.agree += agree

    def finish(self, reduce: Reduce) -> None:
        self.agree = reduce.sum(self.agree)
        groups = self._groups
        if groups.num_classes < MANY or not isinstance(self._q_RC, np.ndarray):
            return
        place_B = np.sort(groups.place_B)
        label_B = groups.label_G[place_B // groups.size]
        if np.count_nonzero(self._q_RC >= LEAST) * SPARSE < self._q_RC.size:
            self._tiles = Tiles(label_B, groups.num_classes, groups.device)
            for labels, rows in self._tiles.pieces:
                q_BC, within_B = self._q_RC[place_B[rows]], self._tiles.within_B[rows]
                self._above.append(above(q_BC, LEAST, label_B[rows], within_B, self._tiles.entries(labels)))

    def expect(self, rate_YZ: Any, each: Each, *, log: bool) -> tuple[Any, float]:
        """(Σ_i r[i, z] by given label as float64 [y, z], with `log` Σ_i ln P(given label of i)). rate_YZ: Tᵀ."""
        if self._tiles is not None:
            nothing_B = zeros(self._tiles.device, len(self._tiles.within_B))
            return self._tiles.expect(self._above, nothing_B, rate_YZ[0] * 0.0, rate_YZ, each, log=log)
        groups, xp = self._groups, namespace(rate_YZ)
        if not groups.count:
            return rate_YZ * 0.0, 0.0
        q_GBC = self._q_RC.reshape(groups.count, groups.size, -1)
        rate_GC1 = single(rate_YZ)[groups.label_G][:, :, None]

        def share(which: slice) -> Any:
            total_GB1 = (q_GBC[which] @ rate_GC1[which]).clip(TINY)
            inverse_G1B = (1.0 / total_GB1).reshape(len(total_GB1), 1, -1)
            return total_GB1, (inverse_G1B @ q_GBC[which])[:, 0]

        parts = list((each if len(groups.shares) > 1 else map)(share, groups.shares))
        sum_GC = xp.concat([one for _, one in parts])
        count_YZ = rate_YZ * groups.of_labels(sum_GC)
        if not log:
            return count_YZ, 0.0
        total_R = xp.concat([one for one, _ in parts]).reshape(-1)
        total_R[groups.filling] = 1.0
        return count_YZ, float(double(xp.log(total_R)).sum())

    def likelihood(self, rows: slice) -> Any:
        """q (B, C) of some rows."""
        return self._q_RC[self._groups.place_B[rows]]

    def joint(self, rows: slice, seen_YZ: Any) -> Any:
        """q[i, z] T[z, y_i] (B, C). seen_YZ: of a Channel."""
        q_BC = self.likelihood(rows)
        q_BC *= seen_YZ[self._groups.label_B[rows]]
        return q_BC


def keeps_whole(num_rows: int, num_classes: int, device: str) -> bool:
    """Whether N × C float32 fit. num_rows: of all parts, which decide alike."""
    return num_classes <= TOP or 4 * num_rows * num_classes <= KEPT_BYTES[kind(device)]


def fit_channel(
    kept: Kept, reduce: Reduce, *, iterations: int = ITERATIONS, each: Each = map, uneven: bool = False
) -> Channel:
    """MAP-EM with q held fixed. uneven: with it the shares of the classes, in which q takes them for even (Saerens et
    al. 2002).

    A class's row of T shrinks: its error rate towards the mean rate, the place of its errors towards q's own confusion.
    """
    base_YZ = kept.agree + 0.0  # as all that follows [y, z]; q's agreement is symmetric
    diagonal = numbers(base_YZ)
    base_YZ[diagonal, diagonal] = 0.0
    base_YZ += (base_YZ.sum(axis=0) * NEVER).clip(NEVER)  # a label that q never confuses may be given by error too
    base_YZ[diagonal, diagonal] = 0.0
    base_YZ /= base_YZ.sum(axis=0).clip(1e-12)
    rate_YZ = 0.2 * base_YZ
    rate_YZ[diagonal, diagonal] = 0.8
    base_YZ *= ALPHA
    prior_Z = base_YZ[0] * 0.0 + 1.0
    for _ in range(iterations):
        count_YZ, _ = _counts(kept, rate_YZ, prior_Z, reduce, each, log=False)
        if uneven:
            rows_Z = count_YZ.sum(axis=0)
            prior_Z = (len(prior_Z) * rows_Z + ALPHA) / (rows_Z.sum() + ALPHA)
        step = _to_rates(count_YZ, base_YZ, rate_YZ)
        rate_YZ = count_YZ
        if step < TOLERANCE:
            break
    count_YZ, mean_log = _counts(kept, rate_YZ, prior_Z, reduce, each, log=True)
    return Channel(rate=rate_YZ.T, count=count_YZ.T, prior_Z=prior_Z, mean_log=mean_log)


def _to_rates(count_YZ: Any, base_YZ: Any, before_YZ: Any) -> float:
    """Makes T of the counts, in place; consumes the rates `before`. The largest change of a rate. base_YZ: ALPHA times
    q's own confusion. Some rows at a time, which stay in a processor's cache."""
    diagonal = numbers(count_YZ)
    right_Z = count_YZ[diagonal, diagonal]
    count_YZ[diagonal, diagonal] = 0.0
    wrong_Z = count_YZ.sum(axis=0)
    mean = wrong_Z.sum() / (wrong_Z.sum() + right_Z.sum())
    error_Z = (wrong_Z + ALPHA * mean) / (wrong_Z + right_Z + ALPHA)
    scale_Z, rows = error_Z / (wrong_Z + ALPHA), max(1, STEP_ENTRIES // len(error_Z))
    step = float(abs(before_YZ[diagonal, diagonal] - (1 - error_Z)).max())
    before_YZ[diagonal, diagonal] = 0.0
    for start in range(0, len(count_YZ), rows):
        rate_BZ, before_BZ = count_YZ[start : start + rows], before_YZ[start : start + rows]
        rate_BZ += base_YZ[start : start + rows]
        rate_BZ *= scale_Z
        before_BZ -= rate_BZ
        step = max(step, float(before_BZ.max()), -float(before_BZ.min()))
    count_YZ[diagonal, diagonal] = 1 - error_Z
    return step


def believed(kept: Kept, prior_Z: Any, reduce: Reduce, each: Each = map) -> Any:
    """Float64 (C, C): expected rows of true class z and given label y where the label says nothing beyond q. prior_Z:
    what q is weighted with."""
    return _counts(kept, kept.agree * 0.0 + 1.0, prior_Z, reduce, each, log=False)[0].T


def _counts(kept: Kept, rate_YZ: Any, prior_Z: Any, reduce: Reduce, each: Each, *, log: bool) -> tuple[Any, float]:
    even = bool((prior_Z == 1.0).all())
    count_YZ, logs = kept.expect(rate_YZ if even else rate_YZ * prior_Z, each, log=log)
    if reduce.parts > 1:
        flat = namespace(count_YZ).concat([count_YZ.reshape(-1), count_YZ.reshape(-1)[:1] * 0.0 + logs])
        flat = reduce.sum(flat)
        count_YZ, logs = flat[:-1].reshape(count_YZ.shape), float(flat[-1])
    return count_YZ, logs / max(float(count_YZ.sum()), 1.0)
